"""`reason memory`: what named memories hold; showing it, removing it, and taking it elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import OUTPUT, Json, Store
from .render.console import megabytes, out, plain_table, printable, say, write, write_json

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..reasoning.memory.named_rows import NamedItem

SHOWN = 50
"""Most items of a table where no number is given."""

memory_app = typer.Typer(help="List, show, remove and export named memories.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the memory.", show_default=False)]


@memory_app.callback(invoke_without_command=True)
def memory(context: typer.Context) -> None:
    """List, show, remove and export named memories.

    A named memory holds what runs have learnt, for the runs after them. It lies beside the run store.
    """
    if context.invoked_subcommand is None:
        list_()


@memory_app.command("list")
def list_(as_json: Json = False, store: Store = None) -> None:
    """List the memories."""
    from ..core.settings import load_settings
    from ..reasoning.memory.named_list import summarize
    from ..reasoning.memory.named_place import memory_places
    from .render.run_page import age

    listed = [summarize(place) for place in memory_places(load_settings(store=store))]
    if as_json:
        write_json({"memories": [one.model_dump(mode="json") for one in listed]})
        return
    if not listed:
        say("no memories yet")
        return
    table = plain_table("name", "state", "items", "changed", "size")
    now = time.time()
    for one in listed:
        ready = one.state == "ready"
        changed, items = (age(now - one.changed) + " ago", str(one.items)) if ready else ("", "")
        table.add_row(one.name, one.state, items, changed, megabytes(one.size_bytes))
    out().print(table)


@memory_app.command()
def show(
    name: Name,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, metavar="N", help=f"Most items shown, the newest. (default: {SHOWN}; JSON: all)"
        ),
    ] = None,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """Show what a memory holds."""
    from ..core.settings import load_settings

    items = _items_of(name, load_settings(store=store))
    shown = items if limit is None and as_json else items[-(limit or SHOWN) :]
    if as_json:
        write_json({"name": name, "items": [_record(one) for one in shown]})
        return
    if not items:
        say(f"memory {name!r} is empty")
        return
    _print(shown)
    if len(shown) < len(items):
        say(f"{len(items) - len(shown)} older items are not shown; --limit {len(items)} shows all", label="note")


@memory_app.command()
def rm(
    name: Name,
    items: Annotated[
        list[int] | None,
        typer.Argument(metavar="ITEM", help="Numbers of items; without any, the whole memory.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: Store = None,
) -> None:
    """Remove a memory, or items of it."""
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..reasoning.memory.named_place import find_memory, remove_memory

    settings = load_settings(store=store)
    place = find_memory(name, settings)
    numbers = list(dict.fromkeys(items or ()))
    what = f"{_items_named(numbers)} of memory {name}" if numbers else f"memory {name} with all its items"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"remove {what}? Nobody is there to ask", hint="say --yes")
        if not typer.confirm(f"Remove {what}?", err=True):
            say("nothing was removed")
            return
    if numbers:
        _remove_items(name, numbers, settings)
    else:
        remove_memory(place)
    say(f"removed {what}")


@memory_app.command()
def export(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write to FILE. (default: standard output)",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    store: Store = None,
) -> None:
    """Print what a memory holds, one JSON object an item."""
    from ..core.errors import UserError
    from ..core.settings import load_settings

    items = _items_of(name, load_settings(store=store))
    lines = "".join(json.dumps(_record(one), ensure_ascii=False) + "\n" for one in items)
    if to is None:
        write(lines)
        return
    try:
        to.write_text(lines, encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot write {to}: {e.strerror}", hint="give another --out") from e
    say(f"{_count(items)} of memory {name} written to {to}")


def _items_of(name: str, settings: Settings) -> list[NamedItem]:
    """The items of a memory, without a model."""
    from ..reasoning.memory.named import NamedMemory
    from ..reasoning.memory.named_place import find_memory

    async def inside() -> list[NamedItem]:
        memory = await NamedMemory.open(find_memory(name, settings), create=False)
        try:
            return await memory.items()
        finally:
            await memory.aclose()

    return asyncio.run(inside())


def _remove_items(name: str, numbers: list[int], settings: Settings) -> None:
    from ..reasoning.memory.named import NamedMemory
    from ..reasoning.memory.named_place import find_memory

    async def inside() -> None:
        memory = await NamedMemory.open(find_memory(name, settings), create=False)
        try:
            await memory.remove(numbers)
        finally:
            await memory.aclose()

    asyncio.run(inside())


def _record(one: NamedItem) -> dict[str, Any]:
    """An item as one flat JSON object."""
    return {"id": one.id, **one.item.model_dump(mode="json"), **one.model_dump(mode="json", exclude={"id", "item"})}


def _print(items: list[NamedItem]) -> None:
    from rich.text import Text

    from .render.run_page import age

    table = plain_table("item", "age", "score", "source", "text")
    now = time.time()
    for one in items:
        source = one.item.source_id or one.item.source_kind
        table.add_row(
            str(one.id),
            age(now - one.created),
            f"{one.item.score:.2f}",
            Text(printable(source)),
            Text(printable(" ".join(one.item.text.split()))),
        )
    out().print(table)


def _items_named(numbers: list[int]) -> str:
    return ("item " if len(numbers) == 1 else "items ") + ", ".join(str(n) for n in numbers)


def _count(items: list[NamedItem]) -> str:
    return "1 item" if len(items) == 1 else f"{len(items)} items"
