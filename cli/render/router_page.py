"""A trained router on the terminal: what it chooses between, what it looks at, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...routers.router_files import AUTO_KIND as AUTO
from ...routers.router_files import QUESTION_KIND as QUESTION
from ...routers.router_files import AutoFile, QuestionFile, load_auto, load_question_router
from .console import out, printable, write_json
from .router_tables import arms_table, signals_line, told_line


def kind_of(file: str) -> str | None:
    """What a JSON file says it is; None if it is no JSON object, or says nothing."""
    try:
        plain = json.loads(Path(file).expanduser().read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kind = plain.get("kind") if isinstance(plain, dict) else None
    return kind if isinstance(kind, str) else None


def show_router(file: str, *, as_json: bool) -> bool:
    """Print a router, if the file holds one.

    Returns:
        Whether it does.

    Raises:
        DataError: It is one, and damaged.
    """
    kind, path = kind_of(file), Path(file).expanduser()
    if kind not in (AUTO, QUESTION):
        return False
    found: AutoFile | QuestionFile = load_auto(path) if kind == AUTO else load_question_router(path)
    if as_json:
        write_json({**found.model_dump(mode="json"), "digest": found.digest})
        return True
    out().print(_facts(found))
    out().print()
    if isinstance(found, AutoFile):
        out().print(arms_table(found))
    else:
        out().print(Text(printable(f"needs the large model by: {told_line(found.space, found.needed, 8)}")))
    return True


def _facts(file: AutoFile | QuestionFile) -> Table:
    trained = file.trained
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    facts = {"router": f"{file.kind}, {file.digest}"}
    facts |= {f"{role} model": name for role, name in trained.models.items()}
    facts |= {f"{role} engine": name for role, name in trained.engines.items()}
    facts |= {
        "runs": ", ".join(trained.runs),
        "datasets": ", ".join(trained.datasets),
        "questions": f"{trained.questions:,}"
        + (f", {100 * trained.held_out:.0f}% of all kept back" if trained.held_out else ""),
        "signals": signals_line(file),
    }
    if isinstance(file, AutoFile):
        facts["price"] = f"{file.price:g} for 1000 tokens"
    else:
        facts["rate"] = f"{file.rate:g}: threshold {file.threshold:.4f}, sends {100 * file.measured_rate:.1f}%"
        facts["small model answers by"] = f"{file.small.strategy}, {100 * file.small.share_right:.1f}% right"
        facts["large model answers by"] = f"{file.large.strategy}, {100 * file.large.share_right:.1f}% right"
    facts["made"] = f"{trained.made} by reason {trained.version}"
    for name, value in facts.items():
        table.add_row(name, Text(printable(value)))
    return table
