"""`reason memory`: list, show and remove named memories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .command import option_model
from .options import Json, Store
from .render.console import (
    age,
    byte_size,
    confirm_removal,
    one_line,
    out,
    plain_table,
    printable,
    say,
    write_json,
)

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..reasoning.memory.named_memory import NamedMemory, StoredItem

T = TypeVar("T")

DEFAULT_LIMIT = 50
"""Maximum number of items in a table without --limit."""

memory_app = typer.Typer(help="List, show and remove named memories.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the memory.")]


@memory_app.callback(invoke_without_command=True)
def memory(context: typer.Context) -> None:
    """List, show and remove named memories.

    A named memory holds what earlier runs have learnt, for later runs. It is stored next to the run store.
    """
    if context.invoked_subcommand is None:
        list_()


@dataclass(frozen=True, kw_only=True)
class ListMemoriesOptions:
    """Options of `reason memory list`."""

    as_json: Json = False
    store: Store = None


@memory_app.command("list")
@option_model
def list_(options: ListMemoriesOptions) -> None:
    """List the memories."""
    from ..core.settings import load_settings
    from ..reasoning.memory.named_memory import list_memories, summarize_memory

    summaries = [summarize_memory(path) for path in list_memories(load_settings(store=options.store))]
    if options.as_json:
        write_json({"memories": [summary.model_dump(mode="json") for summary in summaries]})
        return
    if not summaries:
        say("no memories yet")
        return
    table = plain_table("name", "state", "items", "changed", "size")
    now = time.time()
    for summary in summaries:
        ready = summary.state == "ready"
        changed, items = (age(now - summary.changed) + " ago", str(summary.items)) if ready else ("", "")
        table.add_row(summary.name, summary.state, items, changed, byte_size(summary.size_bytes))
    out().print(table)


@dataclass(frozen=True, kw_only=True)
class ShowMemoryOptions:
    """Options of `reason memory show`."""

    name: Name
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help=f"Show at most this many items, the newest ones. (default: {DEFAULT_LIMIT}; JSON: all)",
        ),
    ] = None
    as_json: Json = False
    store: Store = None


@memory_app.command()
@option_model
def show(options: ShowMemoryOptions) -> None:
    """Show the items of a memory."""
    from ..core.settings import load_settings

    items = _read_items(options.name, load_settings(store=options.store))
    shown = items if options.limit is None and options.as_json else items[-(options.limit or DEFAULT_LIMIT) :]
    if options.as_json:
        write_json({"name": options.name, "items": [_record(item) for item in shown]})
        return
    if not items:
        say(f"memory {options.name!r} is empty")
        return
    _print(shown)
    if len(shown) < len(items):
        say(f"{len(items) - len(shown)} older items are not shown; --limit {len(items)} shows all", label="note")


@dataclass(frozen=True, kw_only=True)
class RemoveMemoryOptions:
    """Options of `reason memory rm`."""

    name: Name
    items: Annotated[
        list[int],
        typer.Argument(metavar="ITEM", help="Numbers of items; without any, the memory itself.", show_default=False),
    ] = field(default_factory=list)
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False
    store: Store = None


@memory_app.command()
@option_model
def rm(options: RemoveMemoryOptions) -> None:
    """Remove a memory, or items of it."""
    from ..core.settings import load_settings
    from ..reasoning.memory.named_memory import find_memory, remove_memory

    settings = load_settings(store=options.store)
    path = find_memory(options.name, settings)
    numbers = list(dict.fromkeys(options.items))
    listed = ", ".join(map(str, numbers))
    what = (
        f"{'item' if len(numbers) == 1 else 'items'} {listed} of memory {options.name}"
        if numbers
        else f"memory {options.name} with all its items"
    )
    if not confirm_removal(what, yes=options.yes):
        return
    if numbers:
        _with_memory(options.name, settings, lambda memory: memory.remove(numbers))
    else:
        remove_memory(path)
    say(f"removed {what}")


def _read_items(name: str, settings: Settings) -> list[StoredItem]:
    return _with_memory(name, settings, lambda memory: memory.items())


def _with_memory(name: str, settings: Settings, work: Callable[[NamedMemory], Awaitable[T]]) -> T:
    """Open an existing memory without a model, and run `work` on it."""
    from ..reasoning.memory.named_memory import load_memory

    async def run() -> T:
        return await work(await load_memory(name, settings, create=False))

    return asyncio.run(run())


def _record(item: StoredItem) -> dict[str, Any]:
    """An item as one flat JSON object."""
    return {
        "id": item.id,
        **item.item.model_dump(mode="json"),
        **item.model_dump(mode="json", exclude={"id", "item"}),
    }


def _print(items: list[StoredItem]) -> None:
    from rich.text import Text

    table = plain_table("item", "age", "score", "source", "text")
    now = time.time()
    for item in items:
        table.add_row(
            str(item.id),
            age(now - item.created),
            f"{item.item.score:.2f}",
            Text(printable(item.item.source_id or item.item.source_kind)),
            Text(one_line(item.item.text)),
        )
    out().print(table)
