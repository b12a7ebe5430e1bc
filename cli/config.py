"""`reason config`: the settings in force and the source of each."""

from __future__ import annotations

import json

import typer

from .options import Json
from .render.console import out, plain_table, write_line

config_app = typer.Typer(help="Show the settings and their sources.", no_args_is_help=False)


@config_app.callback(invoke_without_command=True)
def config(context: typer.Context) -> None:
    """Show the settings and their sources.

    A setting is taken from the first of: options, the environment (REASON_…), reason.toml in the working directory,
    reason.toml in the user's configuration directory, the defaults.
    """
    if context.invoked_subcommand is None:
        show()


@config_app.command()
def show(as_json: Json = False) -> None:
    """Show every setting with its value and its source.

    Settings are changed in reason.toml, for example [b]model = "local/smollm2-135m"[/b], or in the environment, for
    example [b]REASON_BUDGET__TOKENS=2000[/b].
    """
    from ..core.settings import config_files, load_settings, setting_sources

    settings = setting_sources(load_settings(), {})
    files = [{"path": str(path), "found": path.is_file()} for path in reversed(config_files())]
    if as_json:
        values = {name: {"value": value, "source": source} for name, (value, source) in settings.items()}
        write_line(json.dumps({"settings": values, "files": files}, indent=2, ensure_ascii=False))
        return

    from rich.text import Text

    table = plain_table("setting", "value", "source")
    for name, (value, source) in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = Text("-", "dim") if value is None else Text(text)
        table.add_row(Text(name), shown, Text(source, "dim" if source == "default" else "green"))
    console = out()
    console.print(table)
    console.print()
    for file in files:
        console.print(Text(f"{'read' if file['found'] else 'missing'}: {file['path']}", "dim"))
