"""`reason doctor`: whether a question could be answered here, found out by trying."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json
from .render.console import out, write_line

if TYPE_CHECKING:
    from .check import Check

EXIT_NOT_WELL = 3


def doctor(
    pull: Annotated[bool, typer.Option("--pull", help="Fetch the default models if they are not here.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not start vLLM, which takes half a minute.")] = False,
    as_json: Json = False,
) -> None:
    """Find out by trying what works here, and say what is missing.

    Starts each backend that is installed; no request is made that could cost money. Exit status 0 if everything
    installed or chosen works, else 3.
    """
    from ..core.settings import load_settings
    from .checks import examine
    from .interrupts import run_interruptible
    from .render.status import status_line

    settings = load_settings()
    found: list[Check] = []

    async def look() -> None:
        with status_line(quiet=as_json) as line:
            async for check in examine(settings, pull=pull, quick=quick, tell=line):
                found.append(check)
                if not as_json:
                    with line.hidden():
                        _print(check)

    run_interruptible(look())
    well = all(check.state != "fail" for check in found)
    if as_json:
        write_line(json.dumps({"ok": well, "checks": [c._asdict() for c in found]}, indent=2, ensure_ascii=False))
    if not well:
        raise typer.Exit(EXIT_NOT_WELL)


def _print(check: Check) -> None:
    from rich.table import Table
    from rich.text import Text

    mark, style = {"ok": ("ok", "green"), "note": ("note", "yellow"), "fail": ("FAIL", "bold red")}[check.state]
    row = Table.grid(padding=(0, 2))
    row.add_column(width=4)
    row.add_column(width=10)
    row.add_column(overflow="fold")
    text = Text(check.detail)
    if check.hint:
        text.append(f"\n→ {check.hint}", "cyan")
    row.add_row(Text(mark, style), Text(check.name, "bold"), text)
    out().print(row)
