"""`reason verifiers`: which there are, and what each takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completions import complete_verifier
from .options import Json
from .render.console import out, plain_table, say, write_line
from .strategies import STABILITY_STYLES

if TYPE_CHECKING:
    from ..verify.verifier import Verifier

verifiers_app = typer.Typer(help="List the verifiers and show their parameters.")


@verifiers_app.callback(invoke_without_command=True)
def verifiers(context: typer.Context) -> None:
    """List the verifiers and show their parameters."""
    if context.invoked_subcommand is None:
        list_()


@verifiers_app.command("list")
def list_(as_json: Json = False) -> None:
    """List the verifiers, those of other installed packages included."""
    from ..core.errors import ReasonError
    from ..verify.verifier import VERIFIERS

    loaded: list[type[Verifier]] = []
    for name in VERIFIERS.names():
        try:
            loaded.append(VERIFIERS.load(name))
        except ReasonError as e:
            say(str(e), label="warning", style="yellow")
    if as_json:
        write_line(json.dumps([_head(v) for v in loaded], indent=2, ensure_ascii=False))
        return

    from rich.text import Text

    table = plain_table("name", "stability", "what it does", "from")
    for v in loaded:
        stability = Text(v.stability, STABILITY_STYLES[v.stability])
        table.add_row(Text(v.name, "bold"), stability, Text(v.summary), Text(v.paper, "dim"))
    out().print(table)


@verifiers_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the verifier.", autocompletion=complete_verifier, show_default=False
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a verifier: what it does, and its parameters with type, default and meaning."""
    from ..verify.verifier import VERIFIERS
    from .parameters import parameters_of

    verifier = VERIFIERS.load(name)
    parameters = parameters_of(verifier.Config)
    if as_json:
        shown = {**_head(verifier), "parameters": [p._asdict() for p in parameters]}
        write_line(json.dumps(shown, indent=2, ensure_ascii=False))
        return

    from rich.text import Text

    console = out()
    console.print(
        Text.assemble((verifier.name, "bold"), "  ", (verifier.stability, STABILITY_STYLES[verifier.stability]))
    )
    console.print(Text(verifier.summary))
    console.print(Text(f"from  {verifier.paper or '-'}"))
    console.print()
    table = plain_table("parameter", "type", "default", "meaning")
    for p in parameters:
        default = Text("required", "yellow") if p.required else Text(json.dumps(p.default, ensure_ascii=False))
        table.add_row(Text(p.name, "bold"), Text(p.type, "cyan"), default, Text(p.meaning))
    console.print(table)
    if parameters:
        example = next((p for p in parameters if isinstance(p.default, int | float)), parameters[0])
        value = f"{example.name}={json.dumps(example.default)}"
        console.print()
        console.print(Text(f"reason verify --answer FILE --docs PATH --verifier {verifier.name} --set {value}", "dim"))


def _head(verifier: type[Verifier]) -> dict[str, Any]:
    return {
        "name": verifier.name,
        "summary": verifier.summary,
        "stability": verifier.stability,
        "paper": verifier.paper,
    }
