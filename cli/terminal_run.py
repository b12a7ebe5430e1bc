"""A run in the terminal: live view and streamed text while it lasts, then its result and the exit status."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import typer

from ..agents.reasoner import Reasoner
from ..agents.verification import TextVerification
from ..core.budget import Budget
from ..core.errors import BackendError, BudgetExceeded, NotVerified, ReasonError
from ..core.events import BudgetCharged, Event, RunFinished, RunStarted, Sink
from ..core.files import Progress
from ..core.types import Answer
from .first_run import advise_new_user
from .interrupts import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, run_interruptible
from .key_reader import keys
from .options import AnswerOptions, resume_flags
from .render.answer import print_answer, print_json, print_notes, set_limits
from .render.claims import print_verification
from .render.console import can_animate, say, write_line
from .render.live import LiveView
from .render.run_progress import Progress as RunProgress
from .render.text_stream import TextStream
from .trace_file import open_trace

EXIT_BY_STOPPED = {"done": 0, "user": 0, "budget": 4, "cancelled": EXIT_INTERRUPTED, "error": 3}
EXIT_NO_ANSWER = 6
"""Exit status of a run that ended by itself, or at the user's request, without an answer."""
ANSWER_KEY = "a"
"""Key for the answer now."""

Answering = Callable[[Reasoner, Sequence[Sink], bool], Awaitable[Answer]]
"""Calls the reasoner with the sinks, and whether they need text deltas."""

Verifying = Callable[[Progress, Sequence[Sink]], Awaitable[TextVerification]]
"""Verifies a text; takes the progress callback of loading, and the sinks."""


@dataclass(frozen=True)
class Output:
    """Where and how a result is written.

    Attributes:
        as_json: One JSON object instead of text.
        show_reasoning: Whether the reasoning is printed before an answer that is a value.
        stream: Whether text is printed while it is generated; None: if standard output is a terminal.
        trace: File for all events; None writes none.
        resume_flags: Flags that `reason runs resume` needs again.
    """

    as_json: bool = False
    show_reasoning: bool = False
    stream: bool | None = None
    trace: Path | None = None
    resume_flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: AnswerOptions) -> Output:
        """The output of a command's options."""
        return cls(options.as_json, options.show_reasoning, options.stream, options.trace, resume_flags(options.store))

    def resume_command(self, run_id: str) -> str:
        """The command that resumes a run."""
        return shlex.join(["reason", "runs", "resume", run_id, *self.resume_flags])

    @property
    def streams(self) -> bool:
        """Whether text is printed while it is generated; reasoning is printed at the end, with the thought."""
        default = sys.stdout.isatty() and not self.show_reasoning
        return not self.as_json and (default if self.stream is None else self.stream)


class RunRecorder:
    """A sink that keeps the ID and the answer of a run, for messages about a run that ends early.

    Attributes:
        has_stored: Whether anything that was paid is stored.
        on_start: Called with the run's ID after its first event; None calls nothing.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.answer: Answer | None = None
        self.has_stored = False
        self.on_start: Callable[[str], object] | None = None

    def __call__(self, event: Event) -> None:
        """Keep the ID and the final or partial answer."""
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
            if self.on_start is not None:  # later, since other sinks are still to get this event
                asyncio.get_running_loop().call_soon(self.on_start, event.run_id)
        elif isinstance(event, BudgetCharged):
            self.has_stored |= event.total_tokens + event.total_reward_calls > 0
        elif isinstance(event, RunFinished):
            self.answer = event.answer


def answer_in_terminal(
    create_reasoner: Callable[[Progress], Reasoner], work: Answering, output: Output, budget: Budget | None = None
) -> None:
    """Answer a question and print the answer.

    Args:
        create_reasoner: Creates the reasoner from the progress callback of model files; it is closed afterwards.
        work: The call of the reasoner.
        output: Where and how the answer is written.
        budget: Limits shown in the live view, if they are known before the run starts.

    Raises:
        typer.Exit: The answer is partial, or there is none; carries the exit status.
        ReasonError: There is no complete answer; a partial one is already printed.
    """
    recorder = RunRecorder()
    view = LiveView({} if budget is None else budget.model_dump(exclude_none=True))
    reasoner = create_reasoner(view.pulled)
    view.note("reading the run" if budget is None else f"loading {reasoner.settings.model}")
    stream: TextStream | None = None

    async def run() -> Answer:
        nonlocal stream
        task = asyncio.current_task()
        sinks: list[Sink] = [recorder, view, *traces]
        if output.streams and task is not None:
            # the live view and growing text cannot share a terminal
            stream = TextStream(
                view.close if sys.stdout.isatty() else lambda: None, task.cancel, show_reasoning=bool(output.stream)
            )
            sinks.append(stream)

        def on_key(key: str) -> None:
            if key.lower() == ANSWER_KEY:
                view.note("answering now")
                view.hint = ""
                if recorder.run_id is None:
                    recorder.on_start = reasoner.conclude
                else:
                    reasoner.conclude(recorder.run_id)

        with keys(on_key) if can_animate() else nullcontext(False) as has_keys:
            view.hint = f"{ANSWER_KEY}: answer now" if has_keys else ""
            async with reasoner:
                return await work(reasoner, sinks, output.streams or can_animate() or bool(traces))

    with open_trace(output.trace) as traces:
        try:
            with view:
                answer = run_interruptible(run(), on_first=lambda: view.note("stopping"))
        except asyncio.CancelledError:
            if stream is not None and stream.pipe_closed:
                raise typer.Exit(EXIT_BROKEN_PIPE) from None
            _print(recorder.answer, output, view.progress, stream)
            _say_interrupted(recorder, output, "the partial run is saved")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (BudgetExceeded, NotVerified) as e:
            _print(e.partial, output, view.progress, stream)
            raise
        except ReasonError as e:
            _print(None, output, view.progress, stream)
            _say_saved(recorder, output, e)
            raise
        value = _print(answer, output, view.progress, stream)
        print_notes(answer, view.progress.exhausted, value=value, with_summary=not output.as_json)
        advise_new_user(reasoner.settings)
    status = EXIT_BY_STOPPED[answer.stopped] or (EXIT_NO_ANSWER if answer.answer is None else 0)
    if status:
        raise typer.Exit(status)


def verify_in_terminal(work: Verifying, output: Output, budget: Budget) -> TextVerification:
    """Verify a text and print the verification.

    Args:
        work: Verifies the text.
        output: Where and how the verification is written.
        budget: Limits shown in the live view.

    Raises:
        typer.Exit: Interrupted; the run is saved.
        ReasonError: Nothing could be verified.
    """
    recorder = RunRecorder()
    view = LiveView(budget.model_dump(exclude_none=True))
    view.note("reading")

    async def run() -> TextVerification:
        return await work(view.pulled, [recorder, view, *traces])

    with open_trace(output.trace) as traces:
        try:
            with view:
                verified = run_interruptible(run(), on_first=lambda: view.note("stopping"))
        except asyncio.CancelledError:
            _say_interrupted(recorder, output, "the run is saved")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except ReasonError as e:
            _say_saved(recorder, output, e)
            raise
    if output.as_json:
        record = {"limits": set_limits(view.progress), "stopped_by": view.progress.exhausted}
        record |= json.loads(verified.model_dump_json())
        record["question"] = record["question"] or None
        write_line(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print_verification(verified)
    for sentence in verified.degraded:
        say(sentence, label="note", style="cyan")
    return verified


def _say_interrupted(recorder: RunRecorder, output: Output, saved: str) -> None:
    resume = "" if recorder.run_id is None else f"; {saved}: {output.resume_command(recorder.run_id)}"
    say(f"interrupted{resume}")
    if recorder.answer is not None and (lost := recorder.answer.usage.lost_tokens):
        say(f"{lost:,} generated tokens of unfinished calls are lost", label="note", style="cyan")


def _say_saved(recorder: RunRecorder, output: Output, error: ReasonError) -> None:
    """Say how a failed run continues, if anything of it is stored or the model's side may do better next time."""
    if recorder.run_id is not None and (recorder.has_stored or isinstance(error, BackendError)):
        what = "the work so far is saved" if recorder.has_stored else "to try again"
        say(f"{what}: {output.resume_command(recorder.run_id)}", label="note", style="cyan")


def _print(answer: Answer | None, output: Output, progress: RunProgress, stream: TextStream | None) -> str | None:
    """Print an answer or the partial one; text that was already streamed is not repeated. As `print_answer`."""
    if output.as_json:
        if answer is not None:
            print_json(answer, progress)
        return None
    return print_answer(
        answer,
        progress.question,
        show_reasoning=output.show_reasoning,
        printed="" if stream is None else stream.printed,
        writer=None if stream is None else stream.writer,
    )
