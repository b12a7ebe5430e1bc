"""`reason strategies`: which there are, and what each takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completions import complete_strategy
from .options import Json
from .render.console import out, say, write_line

if TYPE_CHECKING:
    from ..reasoning.strategy import Strategy

strategies_app = typer.Typer(help="List the reasoning strategies and show their parameters.")

STABILITY_STYLES = {"stable": "green", "beta": "yellow", "experimental": "red"}


@strategies_app.callback(invoke_without_command=True)
def strategies(context: typer.Context) -> None:
    """List the reasoning strategies and show their parameters."""
    if context.invoked_subcommand is None:
        list_()


@strategies_app.command("list")
def list_(as_json: Json = False) -> None:
    """List the strategies, those of other installed packages included."""
    from ..core.errors import ReasonError
    from ..reasoning.strategy import STRATEGIES

    loaded: list[type[Strategy]] = []
    for name in STRATEGIES.names():
        try:
            loaded.append(STRATEGIES.load(name))
        except ReasonError as e:
            say(str(e), label="warning", style="yellow")
    if as_json:
        write_line(json.dumps([_head(s) for s in loaded], indent=2, ensure_ascii=False))
        return

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("name", "stability", "what it does", "from"):
        table.add_column(head, overflow="fold")
    for s in loaded:
        stability = Text(s.stability, STABILITY_STYLES[s.stability])
        table.add_row(Text(s.name, "bold"), stability, Text(s.summary), Text(s.paper, "dim"))
    out().print(table)


@strategies_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the strategy.", autocompletion=complete_strategy, show_default=False
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a strategy: what it does, what it needs, its parameters with type, default and meaning."""
    from ..reasoning.strategy import STRATEGIES
    from .parameters import parameters_of

    strategy = STRATEGIES.load(name)
    parameters = parameters_of(strategy.Config)
    if as_json:
        shown = {**_head(strategy), "parameters": [p._asdict() for p in parameters]}
        write_line(json.dumps(shown, indent=2, ensure_ascii=False))
        return

    from rich.table import Table
    from rich.text import Text

    console = out()
    console.print(
        Text.assemble((strategy.name, "bold"), "  ", (strategy.stability, STABILITY_STYLES[strategy.stability]))
    )
    console.print(Text(strategy.summary))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("from", Text(strategy.paper or "-"))
    facts.add_row("models", Text(", ".join(strategy.roles)))
    facts.add_row("needs", Text(", ".join(sorted(strategy.requires)) or "nothing special"))
    console.print(facts)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("parameter", "type", "default", "meaning"):
        table.add_column(head, overflow="fold")
    for p in parameters:
        default = Text("required", "yellow") if p.required else Text(json.dumps(p.default, ensure_ascii=False))
        table.add_row(Text(p.name, "bold"), Text(p.type, "cyan"), default, Text(p.meaning))
    console.print(table)
    if parameters:
        example = next((p for p in parameters if p.default is not None and p.default != ""), parameters[0])
        value = example.default if isinstance(example.default, str) else json.dumps(example.default)
        console.print()
        console.print(Text(f'reason ask "…" --strategy {strategy.name} --set {example.name}={value}', "dim"))


def _head(strategy: type[Strategy]) -> dict[str, Any]:
    return {
        "name": strategy.name,
        "summary": strategy.summary,
        "stability": strategy.stability,
        "paper": strategy.paper,
        "requires": sorted(strategy.requires),
        "roles": list(strategy.roles),
    }
