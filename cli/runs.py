"""`reason runs`: list, show, replay, resume, remove and prune stored runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .completion import complete_run
from .options import Json, RunName, Store, Trace, known_outcome, parse_seconds, resume_flags
from .render.console import out, say, write_line
from .run_store import with_store

if TYPE_CHECKING:
    from ..core.store.sql import RunStore
    from .approvals import TerminalApprover
    from .terminal_run import Answering

runs_app = typer.Typer(help="List, show, replay, resume, remove and prune runs.")


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context) -> None:
    """List, show, replay, resume, remove and prune runs.

    Every question is a run in the run store, with its model calls and events. RUN is a run's ID or a prefix of it.
    """
    if context.invoked_subcommand is None:
        list_()


@runs_app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="List at most N runs.")] = 20,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """List the newest runs."""
    from .render.answer import run_row, runs_table

    records = with_store(store, lambda store: store.list_runs(limit))
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
    events: Annotated[bool, typer.Option("--events", help="Print the run's events, one JSON object per line.")] = False,
    trace: Trace = None,
    store: Store = None,
) -> None:
    """Show a run: settings, usage, question, answer and candidates; with --trace, write it as a page."""
    from .render.answer import print_run
    from .terminal_run import open_trace

    async def print_record(store: RunStore) -> None:
        record = await store.get_run(run)
        stored = await store.list_events(record.id) if events or trace is not None else []
        with open_trace(trace, record.status) as sinks:
            for event in stored:
                for sink in sinks:
                    sink(event)
        if events:
            for event in stored:
                write_line(event.model_dump_json())
        elif as_json:
            write_line(record.model_dump_json(indent=2))
        elif trace is None:
            print_run(record)

    with_store(store, print_record)


@runs_app.command()
def replay(run: RunName, as_json: Json = False, store: Store = None) -> None:
    """Repeat a run without a model: every model call is answered from the run store.

    The output is that of the original command.
    """
    _rerun(lambda reasoner, sinks, _: reasoner.areplay(run, sinks=sinks), as_json, store)


@runs_app.command()
def resume(
    run: RunName,
    assume: Annotated[
        str | None,
        typer.Option(
            metavar="done|failed",
            help="Assume that interrupted calls that change something took effect (done), or did not (failed).",
            callback=known_outcome,
        ),
    ] = None,
    decide: Annotated[
        list[str],
        typer.Option(
            metavar="CALL=approve|reject", help="Decide about a waiting call. Repeatable.", show_default=False
        ),
    ] = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
    store: Store = None,
) -> None:
    """Resume a run that was interrupted, killed or failed, or waits; finished model calls are not paid again.

    The model and its engine settings must be those of the run.
    """
    from .approvals import TerminalApprover, can_ask, parse_decisions

    approver = TerminalApprover() if can_ask() else None

    decisions = parse_decisions(decide)
    _rerun(
        lambda reasoner, sinks, stream_text: reasoner.aresume(
            run,
            sinks=sinks,
            stream_text=stream_text,
            assume=assume,  # type: ignore[arg-type]  # its callback has checked it
            decisions=decisions,
        ),
        as_json,
        store,
        approver,
    )


def _rerun(work: Answering, as_json: bool, store: str | None, approver: TerminalApprover | None = None) -> None:
    from ..agents.reasoner import Reasoner
    from ..core.settings import load_settings
    from .terminal_run import Output, answer_in_terminal

    settings = load_settings(store=store)
    answer_in_terminal(
        # the run has its own map
        lambda progress: Reasoner(settings=settings, calibration="none", approver=approver, progress=progress),
        work,
        Output(as_json, resume_flags=resume_flags(store)),
        approver=approver,
    )


@runs_app.command()
def rm(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="IDs of runs, or unique prefixes of them.", autocompletion=complete_run),
    ],
    store: Store = None,
) -> None:
    """Remove runs with their model calls and events."""

    async def remove(store: RunStore) -> list[str]:
        ids = [(await store.get_run(name)).id for name in runs]  # resolve all before removing any
        ids = list(dict.fromkeys(ids))
        for run_id in ids:
            await store.claim_run(run_id)  # refuses a run that another process executes
            await store.delete_run(run_id)
        return ids

    for run_id in with_store(store, remove):
        say(f"removed {run_id}")


@runs_app.command()
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Remove runs older than this, for example 12h, 90d or 8w.")
    ],
    store: Store = None,
) -> None:
    """Remove old runs that have ended or wait for a decision, with their model calls and events.

    Runs in flight are kept. The file of a SQLite store keeps its size; freed space is used again.
    """
    before = time.time() - parse_seconds(older_than, "--older-than")

    async def prune_all(store: RunStore) -> int:
        total = 0
        while pruned := await store.prune_runs(before=before):
            total += pruned
        return total

    total = with_store(store, prune_all)
    say(f"removed {total} run{'' if total == 1 else 's'}")
