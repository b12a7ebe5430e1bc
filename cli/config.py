"""`reason config`: what is set, and where."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .options import Json
from .render.console import out, write_line

config_app = typer.Typer(help="Show the settings and where each comes from.", no_args_is_help=False)


@config_app.callback(invoke_without_command=True)
def config(context: typer.Context) -> None:
    """Show the settings and where each comes from.

    Settings come from flags, the environment (REASON_…), reason.toml here, reason.toml in the user's configuration
    folder, and the defaults, the first that has a value.
    """
    if context.invoked_subcommand is None:
        show()


@config_app.command()
def show(
    as_json: Json = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what differs from the defaults.")] = False,
) -> None:
    """Show every setting with its value and its source.

    A setting is changed in reason.toml, for example [b]model = "local/smollm2-135m"[/b], or in the environment,
    for example [b]REASON_BUDGET__TOKENS=2000[/b].
    """
    from ..core.settings import config_files, load_settings, where_set

    told = where_set(load_settings(), {})
    if changed:
        told = {name: (value, source) for name, (value, source) in told.items() if source != "default"}
    files = [{"path": str(path), "found": path.is_file()} for path in reversed(config_files())]
    if as_json:
        settings = {name: {"value": value, "source": source} for name, (value, source) in told.items()}
        write_line(json.dumps({"settings": settings, "files": files}, indent=2, ensure_ascii=False))
        return

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("setting", "value", "source"):
        table.add_column(head, overflow="fold")
    for name, (value, source) in told.items():
        table.add_row(Text(name), _value(value), Text(source, "dim" if source == "default" else "green"))
    console = out()
    console.print(table if told else Text("nothing differs from the defaults"))
    console.print()
    for file in files:
        console.print(Text(f"{'read' if file['found'] else 'not there'}: {file['path']}", "dim"))


def _value(value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("-", "dim")
    return Text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
