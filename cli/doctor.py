"""`reason doctor`: check by trial whether questions can be answered on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .options import Json
from .render.console import out, write_line

if TYPE_CHECKING:
    from .doctor_checks import Check

EXIT_FAILED = 3


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of `reason doctor`."""

    pull: Annotated[bool, typer.Option("--pull", help="Download of missing default models.")] = False
    quick: Annotated[bool, typer.Option("--quick", help="No start of vLLM, which takes half a minute.")] = False
    as_json: Json = False


@option_model
def doctor(options: DoctorOptions) -> None:
    """Check what works on this machine, and report what is missing.

    Starts each installed backend; makes no request that could cost money. Exit status 0 if everything installed or
    chosen works, else 3.
    """
    from ..core.settings import load_settings
    from .doctor_checks import run_checks
    from .interrupts import run_interruptible
    from .render.status import status_line

    settings = load_settings()
    checks: list[Check] = []

    async def run() -> None:
        with status_line(quiet=options.as_json) as report:
            async for check in run_checks(settings, pull=options.pull, quick=options.quick, report=report):
                checks.append(check)
                if not options.as_json:
                    with report.hidden():
                        _print(check)

    run_interruptible(run())
    ok = all(check.state != "fail" for check in checks)
    if options.as_json:
        write_line(json.dumps({"ok": ok, "checks": [c._asdict() for c in checks]}, indent=2, ensure_ascii=False))
    if not ok:
        raise typer.Exit(EXIT_FAILED)


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
