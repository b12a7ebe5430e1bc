"""Writes the tables of README.md that come from the code: strategies from the registry, and the backends.

python docs/tables.py            writes them
python docs/tables.py --check    exits with 1 if they are not up to date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reason.reasoning.strategy import STRATEGIES
from reason.serving.backends import BACKENDS

README = Path(__file__).resolve().parent.parent / "README.md"


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


def with_tables(text: str) -> str:
    """The text with its tables made anew."""
    for name, make in (("strategies", strategies), ("backends", backends)):
        marked = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.S)
        if not marked.search(text):
            raise SystemExit(f"README.md has no table marked {name}")
        text = marked.sub(lambda m, make=make: m[1] + make() + "\n" + m[2], text)
    return text


def main() -> int:
    """Write or check."""
    old = README.read_text(encoding="utf-8")
    new = with_tables(old)
    if "--check" in sys.argv:
        return 0 if new == old else 1
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
