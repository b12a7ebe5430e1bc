"""`reason strategies` and `reason verifiers`: list the registered plugins and show the parameters of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .completion import complete_strategy, complete_verifier
from .options import Json
from .render.console import out, plain_table, say, write_line

if TYPE_CHECKING:
    from pydantic import BaseModel

FAMILIES = ("chains", "votes", "several models", "routing", "knowledge", "search")
"""Order of the families in the list."""
STABILITY_STYLES = {"stable": "green", "beta": "yellow", "experimental": "red"}

strategies_app = typer.Typer(help="List the reasoning strategies and show their parameters.")
verifiers_app = typer.Typer(help="List the verifiers and show their parameters.")


@strategies_app.callback(invoke_without_command=True)
def strategies(context: typer.Context) -> None:
    """List the reasoning strategies and show their parameters."""
    if context.invoked_subcommand is None:
        list_strategies()


@strategies_app.command("list")
def list_strategies(
    show_all: Annotated[bool, typer.Option("--all", help="Also list strategies for research and measurement.")] = False,
    as_json: Json = False,
) -> None:
    """List the recommended strategies by family, with when to use each; with --all every installed one.

    With --json, all of them.
    """
    from ..reasoning.strategy import STRATEGIES

    if as_json or show_all:
        _list(STRATEGIES, _strategy_head, as_json=as_json)
        return
    from rich.text import Text

    recommended = [s for s in _loaded(STRATEGIES) if _tier(s)["when_to_use"]]
    table = plain_table("family", "name", "stability", "when to use")
    for strategy in sorted(recommended, key=lambda s: (*FAMILIES, s.family).index(s.family)):
        stability = Text(strategy.stability, STABILITY_STYLES[strategy.stability])
        table.add_row(Text(strategy.family), Text(strategy.name, "bold"), stability, Text(strategy.when_to_use))
    out().print(table)
    say(f"{len(STRATEGIES.names()) - len(recommended)} more with --all")


@strategies_app.command("show")
def show_strategy(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the strategy.", autocompletion=complete_strategy)
    ],
    as_json: Json = False,
) -> None:
    """Show a strategy: summary, requirements, what its confidence means, and its parameters."""
    from ..reasoning.strategy import STRATEGIES

    strategy = STRATEGIES.load(name)
    facts = {
        "source": strategy.paper or "-",
        "models": ", ".join(strategy.roles),
        "requires": ", ".join(sorted(strategy.requires)) or "text generation only",
        "confidence": _confidence(strategy),
    }
    command = f'reason ask "…" --strategy {strategy.name}'
    _show(strategy, _strategy_head(strategy), facts, command, as_json=as_json)


@verifiers_app.callback(invoke_without_command=True)
def verifiers(context: typer.Context) -> None:
    """List the verifiers and show their parameters."""
    if context.invoked_subcommand is None:
        list_verifiers()


@verifiers_app.command("list")
def list_verifiers(as_json: Json = False) -> None:
    """List the verifiers, including those of other installed packages."""
    from ..verify.verifier import VERIFIERS

    _list(VERIFIERS, _head, as_json=as_json)


@verifiers_app.command("show")
def show_verifier(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the verifier.", autocompletion=complete_verifier)
    ],
    as_json: Json = False,
) -> None:
    """Show a verifier: summary, and its parameters with type, default and meaning."""
    from ..verify.verifier import VERIFIERS

    verifier = VERIFIERS.load(name)
    command = f"reason verify --answer FILE --docs PATH --verifier {verifier.name}"
    _show(verifier, _head(verifier), {"source": verifier.paper or "-"}, command, as_json=as_json)


def _loaded(registry: Any) -> list[Any]:
    """The plugins that can be loaded; a warning tells of the others."""
    from ..core.errors import ReasonError

    loaded = []
    for name in registry.names():
        try:
            loaded.append(registry.load(name))
        except ReasonError as e:
            say(str(e), label="warning", style="yellow")
    return loaded


def _list(registry: Any, head: Callable[[Any], dict[str, Any]], *, as_json: bool) -> None:
    loaded = _loaded(registry)
    if as_json:
        write_line(json.dumps([head(plugin) for plugin in loaded], indent=2, ensure_ascii=False))
        return
    from rich.text import Text

    table = plain_table("name", "stability", "summary", "source")
    for plugin in loaded:
        stability = Text(plugin.stability, STABILITY_STYLES[plugin.stability])
        table.add_row(Text(plugin.name, "bold"), stability, Text(plugin.summary), Text(plugin.paper, "dim"))
    out().print(table)


def _show(plugin: Any, head: dict[str, Any], facts: Mapping[str, str], command: str, *, as_json: bool) -> None:
    parameters = list_parameters(plugin.Config)
    if as_json:
        record = {**head, "parameters": [p._asdict() for p in parameters]}
        write_line(json.dumps(record, indent=2, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    console = out()
    console.print(Text.assemble((plugin.name, "bold"), "  ", (plugin.stability, STABILITY_STYLES[plugin.stability])))
    console.print(Text(plugin.summary))
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(name, Text(value))
    console.print(grid)
    console.print()
    table = plain_table("parameter", "type", "default", "meaning")
    for p in parameters:
        default = Text("required", "yellow") if p.required else Text(json.dumps(p.default, ensure_ascii=False))
        table.add_row(Text(p.name, "bold"), Text(p.type, "cyan"), default, Text(p.meaning))
    console.print(table)
    if parameters:
        example = next((p for p in parameters if p.default is not None and p.default != ""), parameters[0])
        value = example.default if isinstance(example.default, str) else json.dumps(example.default)
        console.print()
        console.print(Text(f"{command} --set {example.name}={value}", "dim"))


def _head(plugin: Any) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "summary": plugin.summary,
        "stability": plugin.stability,
        "paper": plugin.paper,
    }


def _strategy_head(strategy: Any) -> dict[str, Any]:
    return {
        **_head(strategy),
        **_tier(strategy),
        "confidence": _confidence(strategy),
        "requires": sorted(strategy.requires),
        "roles": list(strategy.roles),
    }


def _tier(strategy: Any) -> dict[str, str]:
    """Family and recommended use; both empty for a strategy that is for research and measurement."""
    return {name: str(getattr(strategy, name, "")) for name in ("family", "when_to_use")}


def _confidence(strategy: Any) -> str:
    """What a strategy's confidence means; one of another package may not declare it."""
    return str(getattr(strategy, "confidence", "")) or "not declared"


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        name: Its name; nested names are joined by dots, as in `--set`.
        type: Its type and bounds, for people.
        default: Its default as JSON; also None if it is required.
        required: Whether it has no default.
        meaning: Its description.
    """

    name: str
    type: str
    default: Any
    required: bool
    meaning: str


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def list_parameters(config: type[BaseModel]) -> list[Parameter]:
    """The parameters of a plugin's `Config`, in its order."""
    schema = config.model_json_schema()
    return _schema_parameters(schema, schema.get("$defs", {}), "", {})


def _schema_parameters(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str, outer: dict[str, Any]
) -> list[Parameter]:
    parameters: list[Parameter] = []
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        resolved = {**_definition(field, definitions), **{k: v for k, v in field.items() if k != "$ref"}}
        default = outer.get(name, resolved.get("default"))
        if "properties" in resolved:
            nested = default if isinstance(default, dict) else {}
            parameters += _schema_parameters(resolved, definitions, f"{prefix}{name}.", nested)
        else:
            is_required = name in required and name not in outer
            type_, meaning = _type_name(resolved, definitions), resolved.get("description", "")
            parameters.append(Parameter(prefix + name, type_, default, is_required, meaning))
    return parameters


def _definition(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = definitions.get(str(field.get("$ref", "")).rpartition("/")[2], {})
    return definition


def _type_name(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    field = {**_definition(field, definitions), **field}
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "discriminator" in field:  # a union of objects, discriminated by one field
        key, kinds = field["discriminator"]["propertyName"], field["discriminator"]["mapping"]
        return f'{" | ".join(kinds)}, as "{key}" of an object'
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_type_name(kind, definitions) for kind in field[union])
    if field.get("type") == "array":
        items = field.get("items")
        return f"list of {_type_name(items, definitions)}" if items else "list"
    name = _TYPES.get(str(field.get("type")), str(field.get("type", "any")))
    bounds = ", ".join(f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field)
    return f"{name} {bounds}" if bounds else name
