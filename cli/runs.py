"""`reason runs`: what was asked before; showing it, going on with it, removing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, RunName, Store, Stream, Trace, resume_flags
from .render.console import out, say, write_line
from .run_store import with_store

if TYPE_CHECKING:
    from ..core.store import RunStore

runs_app = typer.Typer(help="List, show, replay, resume and remove runs.")


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context) -> None:
    """List, show, replay, resume and remove runs.

    Every question is a run in the run store, with its model calls and events. RUN is a run's name or its beginning.
    """
    if context.invoked_subcommand is None:
        list_()


@runs_app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Most runs shown.")] = 20,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """List the newest runs."""
    from .render.run_page import run_row, runs_table

    records = with_store(store, lambda s: s.list_runs(limit))
    if as_json:
        write_line(json.dumps([run_row(r) for r in records], indent=2, ensure_ascii=False))
    elif records:
        out().print(runs_table(records))
    else:
        say("no runs yet")


@runs_app.command()
def show(
    run: RunName,
    as_json: Json = False,
    events: Annotated[bool, typer.Option("--events", help="Print the run's events, one JSON object a line.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Draw the trees that the run's searches grew.")] = False,
    nodes: Annotated[
        int, typer.Option("--nodes", min=0, metavar="N", help="With --tree: most nodes of a tree off the chosen path.")
    ] = 60,
    all_nodes: Annotated[bool, typer.Option("--all", help="With --tree: every node.")] = False,
    trace: Trace = None,
    store: Store = None,
) -> None:
    """Show a run: question, models, answer, candidates, and what it cost."""
    from .render.search_tree import print_search_trees
    from .render.run_page import print_run
    from .tracing import open_trace

    async def look(s: RunStore) -> None:
        record = await s.get_run(run)
        if trace is not None:
            with open_trace(trace, record.status) as sinks:
                for event in await s.events(record.id):
                    for sink in sinks:
                        sink(event)
        if tree:
            print_search_trees(record, await s.events(record.id), as_json, None if all_nodes else nodes)
        elif events:
            for event in await s.events(record.id):
                write_line(event.model_dump_json())
        elif as_json:
            write_line(record.model_dump_json(indent=2))
        elif trace is None:
            print_run(record)

    with_store(store, look)


@runs_app.command()
def replay(
    run: RunName, as_json: Json = False, stream: Stream = None, trace: Trace = None, store: Store = None
) -> None:
    """Take a run through its strategy again without a model: every reply comes from the run store.

    Prints what ask printed.
    """
    from ..agents.reasoner import Reasoner
    from ..core.settings import load_settings
    from .answering import Outlet, answer_here

    settings = load_settings(store=store)
    answer_here(
        lambda progress: Reasoner(settings=settings, calibration="none", progress=progress),  # a run has its own
        lambda reasoner, sinks, _: reasoner.areplay(run, sinks=sinks),
        Outlet(as_json, stream, trace, resume_flags(store)),
    )


@runs_app.command()
def resume(
    run: RunName,
    as_json: Json = False,
    stream: Stream = None,
    trace: Trace = None,
    store: Store = None,
) -> None:
    """Go on with a run that was interrupted, killed or failed. What it has paid for is not paid again.

    The model must be the one that the run began with; its engine is set up as it was.
    """
    from ..agents.reasoner import Reasoner
    from ..core.settings import load_settings
    from .answering import Outlet, answer_here

    settings = load_settings(store=store)
    answer_here(
        lambda progress: Reasoner(settings=settings, calibration="none", progress=progress),  # a run has its own
        lambda reasoner, sinks, stream_text: reasoner.aresume(run, sinks=sinks, stream_text=stream_text),
        Outlet(as_json, stream, trace, resume_flags(store)),
    )


@runs_app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs, or their beginnings.")],
    store: Store = None,
) -> None:
    """Remove runs with their model calls and events."""

    async def remove(s: RunStore) -> list[str]:
        found = [(await s.get_run(name)).id for name in names]  # all of them before any is removed
        found = list(dict.fromkeys(found))
        for run_id in found:
            await s.take_run(run_id)  # refuses a run that another process works on
            await s.delete_run(run_id)
        return found

    for run_id in with_store(store, remove):
        say(f"removed {run_id}")
