"""Every strategy and verifier on every kind of model that thinks: the table of `docs/results/thinking.md`.

    python benchmarks/thinking_contract.py            prints the tables
    python benchmarks/thinking_contract.py --write    writes them into the page
    python benchmarks/thinking_contract.py --kind "Qwen3, parser" --setting default

The cells are those of `tests/contract`: servers that play each kind of model over a script and refuse what the real
ones refuse. The script ends with status 1 if a cell breaks an invariant.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from reporting import made_here

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.thinking_cells import SETTINGS, CellResult, cell_names, kind_sessions  # noqa: E402
from support.wires.kinds import KINDS  # noqa: E402

PAGE = ROOT / "docs" / "results" / "thinking.md"
MAX_REASONS = 16
"""Messages that the page shows."""
SIGNS = {"ok": "ok", "replaced": "reported", "refused": "refused"}

Results = Mapping[tuple[str, str, str], CellResult]
"""By kind, cell and setting."""


def main() -> int:
    """Run the cells and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    parser.add_argument("--kind", action="append", choices=[kind.name for kind in KINDS], help="one kind of model")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="one setting")
    args = parser.parse_args()
    kinds = [kind for kind in KINDS if not args.kind or kind.name in args.kind]
    settings = [setting for setting in SETTINGS if not args.setting or setting in args.setting]
    names = cell_names()
    started = time.monotonic()
    results: dict[tuple[str, str, str], CellResult] = {}
    with kind_sessions() as sessions:
        for kind in kinds:
            for name in names:
                for setting in settings:
                    results[kind.name, name, setting] = sessions.run(kind, name, setting)
    first = settings[0]
    parts = [
        _conclusion(results, time.monotonic() - started),
        f"### {_title(first)}\n\n{cell_table(results, [k.name for k in kinds], names, first)}",
        f"### Cells of all settings\n\n{settings_table(results, settings)}",
        f"### The most frequent reports and refusals\n\n{reasons_table(results)}",
    ]
    shown = "\n\n".join(parts)
    if args.write:
        write_section(PAGE, "contract", shown)
    else:
        print(shown)
    broken = {key: result.problems for key, result in results.items() if result.problems}
    for key, problems in broken.items():
        print(*key, *problems, sep=" | ", file=sys.stderr)
    return 1 if broken else 0


def _conclusion(results: Results, seconds: float) -> str:
    counts = Counter(result.outcome for result in results.values())
    broken = sum(bool(result.problems) for result in results.values())
    return (
        f"{len(results)} cells: {counts['ok']} as the method says, {counts['replaced']} with something replaced and "
        f"reported, {counts['refused']} refused before anything was generated, {broken} broken. Made in "
        f"{seconds:.0f} s by `python benchmarks/thinking_contract.py --write`. {made_here()}"
    )


def _title(setting: str) -> str:
    options = SETTINGS[setting]
    flat = {
        key: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        for key, value in options.items()
    }
    return "Defaults" if not flat else f"`{setting}`: " + ", ".join(f"{k} {v}" for k, v in flat.items())


def cell_table(results: Results, kinds: Sequence[str], names: Sequence[str], setting: str) -> str:
    """A row for each strategy and verifier, a column for each kind of model."""
    head = ["", *kinds]
    rows = [[f"`{name}`", *(cell_sign(results[kind, name, setting]) for kind in kinds)] for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def settings_table(results: Results, settings: Sequence[str]) -> str:
    """A row for each setting: how many cells ended in which way."""
    lines = ["| | " + " | ".join(SIGNS.values()) + " | broken |", "| --- | ---: | ---: | ---: | ---: |"]
    for setting in settings:
        cells = [result for (_, _, at), result in results.items() if at == setting]
        counts = Counter(result.outcome for result in cells)
        broken = sum(bool(result.problems) for result in cells)
        lines.append(f"| {_title(setting)} | " + " | ".join(str(counts[one]) for one in SIGNS) + f" | {broken} |")
    return "\n".join(lines)


def cell_sign(result: CellResult) -> str:
    """The sign of a cell; a broken one is in bold."""
    return f"**broken: {result.problems[0]}**" if result.problems else SIGNS[result.outcome]


def reasons_table(results: Results) -> str:
    """The most frequent reported reasons and refusals, with numbers replaced."""
    counts: Counter[tuple[str, str]] = Counter()
    for (kind, _, _), result in results.items():
        why = result.why[:1] if result.outcome == "refused" else result.why
        for one in why:
            general = re.sub(r"(?<![\w-])\d[\d,.]*", "N", one).replace(kind, "MODEL")
            general = re.sub(r"(hosted_vllm|openai|deepseek|anthropic)/[\w.-]+", "MODEL", general)
            counts[SIGNS[result.outcome], general.replace("|", "/").replace("\n", " ")] += 1
    rows = [(sign, why, str(count)) for (sign, why), count in counts.most_common(MAX_REASONS)]
    lines = [("", "message", "cells"), ("---", "---", "---:"), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def write_section(page: Path, name: str, text: str) -> None:
    """Replace a marked section of a page.

    Raises:
        SystemExit: The page has no such section.
    """
    marked = re.compile(rf"(<!-- section:{name} -->\n).*?(<!-- end -->)", re.S)
    old = page.read_text(encoding="utf-8")
    if not marked.search(old):
        raise SystemExit(f"{page} has no section marked {name}")
    page.write_text(marked.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", old), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
