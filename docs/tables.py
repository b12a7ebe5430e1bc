"""Generates the tables of the docs from the code: strategies and backends, stability labels, fields of OpenAI's API.

python docs/tables.py            writes the tables
python docs/tables.py --check    exits with status 1 if a table is outdated
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reason.core.stability import EXPERIMENTAL, LABELS, MEMBERS, NAMES
from reason.reasoning.strategy import STRATEGIES
from reason.serving.factory import BACKENDS
from reason.sidecar.app import ROUTE_STABILITY
from reason.sidecar.openai.requests import CHAT, RESPONSES, field_table
from reason.sidecar.openai.run_config import parameter_table
from reason.verify.verifier import VERIFIERS

ROOT = Path(__file__).resolve().parent.parent


def strategies() -> str:
    """A row for each registered strategy."""
    rows = ["| strategy | what it does | source | needs of the model | stability |", "| --- | --- | --- | --- | --- |"]
    for name in STRATEGIES.names():
        s = STRATEGIES.load(name)
        rows.append(
            f"| `{name}` | {s.summary} | {s.paper} | {', '.join(sorted(s.requires)) or 'text'} | {s.stability} |"
        )
    return "\n".join(rows)


def backends() -> str:
    """A row for each backend."""
    rows = ["| model string | what | needs | can |", "| --- | --- | --- | --- |"]
    rows += [f"| `{b.model_string}` | {b.what} | {b.needs} | {b.can} |" for b in BACKENDS]
    return "\n".join(rows)


def stability() -> str:
    """A row for each kind of public API, a column for each label."""
    kinds: dict[str, dict[str, str]] = {
        "names of `reason`": {**NAMES, **MEMBERS},
        "names of documented modules": {**dict.fromkeys(sorted(EXPERIMENTAL), "experimental"), "all others": "beta"},
        "strategies": {name: STRATEGIES.load(name).stability for name in STRATEGIES.names()},
        "verifiers": {name: VERIFIERS.load(name).stability for name in VERIFIERS.names()},
        "routes": dict(ROUTE_STABILITY),
    }
    rows = [f"| | {' | '.join(LABELS)} |", "| --- " * (len(LABELS) + 1) + "|"]
    for kind, labels in kinds.items():
        cells = (
            ", ".join(_shown(n) for n, own_label in labels.items() if own_label == label) or "none" for label in LABELS
        )
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _shown(name: str) -> str:
    return name if " " in name else f"`{name}`"


PAGES = {
    "README.md": {"strategies": strategies, "backends": backends},
    "docs/stability.md": {"stability": stability},
    "docs/openai-api.md": {
        "chat-fields": lambda: field_table(CHAT),
        "strategy-parameters": parameter_table,
        "responses-fields": lambda: field_table(RESPONSES),
    },
}


def with_tables(text: str, page: str) -> str:
    """The text of a page with regenerated tables."""
    for name, make in PAGES[page].items():
        marked = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.S)
        if not marked.search(text):
            raise SystemExit(f"{page} has no table marked {name}")
        text = marked.sub(lambda m, make=make: m[1] + make() + "\n" + m[2], text)
    return text


def main() -> int:
    """Write or check the tables."""
    old = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    new = {page: with_tables(text, page) for page, text in old.items()}
    if "--check" in sys.argv:
        return 0 if new == old else 1
    for page, text in new.items():
        (ROOT / page).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
