"""One answer on the terminal: live view and streamed text while it is made, the answer and its exit status after.

`ask`, `runs resume` and `runs replay` all go through `answer_here`; they differ in what they ask of the reasoner.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from ..agents.reasoner import Reasoner
from ..core.answer import Answer
from ..core.budget import Budget
from ..core.errors import LimitExceeded, NotVerified, ReasonError
from ..core.events import EventFields, RunFinished, RunStarted, Sink
from ..serving.model_files.downloads import Progress
from .interrupts import EXIT_INTERRUPTED, EXIT_NOBODY_READS, run_interruptible
from .render.answer import print_answer, print_json, print_notes
from .render.console import moving_parts, say
from .render.live import LiveView
from .render.text_stream import TextStream
from .tracing import open_trace

EXIT_BY_STOPPED = {"done": 0, "budget": 4, "cancelled": EXIT_INTERRUPTED, "error": 3}

Work = Callable[[Reasoner, Sequence[Sink], bool], Awaitable[Answer]]
"""Asks the reasoner; takes the sinks and whether they want text as it is generated."""


@dataclass(frozen=True)
class Outlet:
    """How the answer is wanted.

    Attributes:
        as_json: One JSON object instead of the text.
        stream: Whether to print text as it is generated; None leaves it to the terminal.
        trace: Where to write everything that happens; None is nowhere.
        resume_flags: Flags that going on with the run would need again.
    """

    as_json: bool = False
    stream: bool | None = None
    trace: Path | None = None
    resume_flags: tuple[str, ...] = ()

    def resume_command(self, run_id: str) -> str:
        """The command that goes on with a run."""
        return shlex.join(["reason", "runs", "resume", run_id, *self.resume_flags])

    @property
    def streams(self) -> bool:
        """Whether text is printed as it is generated."""
        return not self.as_json and (sys.stdout.isatty() if self.stream is None else self.stream)


class Heard:
    """A sink that keeps what must be said if the run does not come to its end."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.answer: Answer | None = None

    def __call__(self, event: EventFields) -> None:
        """Keep the run's name and its answer, whole or partial."""
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
        elif isinstance(event, RunFinished):
            self.answer = event.answer


def answer_here(
    make_reasoner: Callable[[Progress], Reasoner], work: Work, outlet: Outlet, budget: Budget | None = None
) -> None:
    """Have a question answered and print the answer.

    Args:
        make_reasoner: Makes who answers, given whom to tell how far a model's files are; it is closed afterwards.
        work: What to ask of it.
        outlet: How the answer is wanted.
        budget: The limits, for the live view, where they are known before the run begins.

    Raises:
        typer.Exit: The answer is partial; carries the exit status.
        ReasonError: There is no answer; a partial one, if there is any, is printed already.
    """
    heard = Heard()
    view = LiveView({} if budget is None else budget.model_dump(exclude_none=True))
    reasoner = make_reasoner(view.pulled)
    stream: TextStream | None = None

    async def go() -> Answer:
        nonlocal stream
        task = asyncio.current_task()
        sinks: list[Sink] = [heard, view, *traces]
        if outlet.streams and task is not None:
            # on one terminal, moving lines and growing text cannot both be had
            stream = TextStream(view.close if sys.stdout.isatty() else lambda: None, task.cancel)
            sinks.append(stream)
        async with reasoner:
            return await work(reasoner, sinks, outlet.streams or moving_parts() or bool(traces))

    with open_trace(outlet.trace) as traces:
        try:
            with view:
                answer = run_interruptible(go(), on_first=lambda: view.note("stopping"))
        except asyncio.CancelledError:
            if stream is not None and stream.nobody_reads:
                raise typer.Exit(EXIT_NOBODY_READS) from None
            _print(heard.answer, outlet, stream)
            saved = "" if heard.run_id is None else f"; the partial run is saved: {outlet.resume_command(heard.run_id)}"
            say(f"interrupted{saved}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (LimitExceeded, NotVerified) as e:
            _print(e.partial, outlet, stream)
            raise
        except ReasonError:
            _print(None, outlet, stream)
            if heard.run_id is not None:
                say(f"what was done is saved: {outlet.resume_command(heard.run_id)}", label="note", style="cyan")
            raise
        _print(answer, outlet, stream)
        print_notes(answer, view.progress.exhausted, summarised=not outlet.as_json)
    if EXIT_BY_STOPPED[answer.stopped]:
        raise typer.Exit(EXIT_BY_STOPPED[answer.stopped])


def _print(answer: Answer | None, outlet: Outlet, stream: TextStream | None) -> None:
    """Print an answer, or as much of it as there is; text that is printed already is only ended."""
    printed = stream.printed if stream is not None else ""
    if outlet.as_json:
        if answer is not None:
            print_json(answer)
    else:
        print_answer(answer, printed)
