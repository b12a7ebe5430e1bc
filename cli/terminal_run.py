"""A run in the terminal: progress line and streamed text while it lasts, then its result and the exit status."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from ..agents.reasoner import Reasoner
from ..core.budget import Budget
from ..core.errors import BackendError, BudgetExceeded, NotVerified, ReasonError, StoreError, UserError
from ..core.events import (
    CallStarted,
    Event,
    JsonlSink,
    MemorySink,
    RunStarted,
    Sink,
    StrategyNote,
    TextDelta,
    ToolStarted,
)
from ..core.files import Progress
from ..core.registry import Registry
from ..core.settings import DEFAULT_MODEL, JURY, Settings
from ..core.store.records import RunStatus as StoredStatus
from ..core.types import Answer
from ..reasoning.answers.extraction import has_value_answer
from ..reasoning.search.core import SearchOptions
from ..reasoning.strategy import STRATEGIES
from .approvals import TerminalApprover
from .interrupts import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, LineReader, keys, run_interruptible
from .options import AnswerOptions, resume_flags
from .render.answer import print_answer, print_json, print_notes
from .render.console import TextWriter, can_animate, say
from .render.run_status import RunStatus
from .render.tool_calls import ToolLines, print_pending

EXIT_WAITING = 7
EXIT_NO_ANSWER = 6
"""Exit status of a run that ended by itself, or at the user's request, without an answer."""
EXIT_BY_STOPPED = {
    "done": 0,
    "user": 0,
    "abstained": EXIT_NO_ANSWER,
    "budget": 4,
    "loop": 4,
    "waiting": EXIT_WAITING,
    "cancelled": EXIT_INTERRUPTED,
    "error": 3,
}
ANSWER_KEY = "a"
"""Key for the answer now."""

Answering = Callable[[Reasoner, Sequence[Sink], bool], Awaitable[Answer]]
"""Calls the reasoner with the sinks, and whether they need text deltas."""


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


def answer_in_terminal(
    create_reasoner: Callable[[Progress], Reasoner],
    work: Answering,
    output: Output,
    budget: Budget | None = None,
    approver: TerminalApprover | None = None,
) -> None:
    """Answer a question and print the answer.

    Args:
        create_reasoner: Creates the reasoner from the progress callback of model files; it is closed afterwards.
        work: The call of the reasoner.
        output: Where and how the answer is written.
        budget: Limits shown in the progress line, if they are known before the run starts.
        approver: The reasoner's, if it asks at this terminal.

    Raises:
        typer.Exit: The answer is partial, or there is none; carries the exit status.
        ReasonError: There is no complete answer; a partial one is already printed.
    """
    status = RunStatus({} if budget is None else budget.model_dump(exclude_none=True))
    reasoner = create_reasoner(status.pulled)
    status.note("reading the run" if budget is None else f"loading {reasoner.settings.model}")
    stream: TextStream | None = None

    async def run() -> Answer:
        nonlocal stream
        task = asyncio.current_task()
        sinks: list[Sink] = [status, *traces]
        if output.streams and task is not None:
            # the progress line and growing text cannot share a terminal
            stream = TextStream(
                status.close if sys.stdout.isatty() else lambda: None, task.cancel, show_reasoning=bool(output.stream)
            )
            sinks.append(stream)
        sinks.append(ToolLines())

        with attended(reasoner, status, approver):
            async with reasoner:
                return await work(reasoner, sinks, output.streams or can_animate() or bool(traces))

    with open_trace(output.trace) as traces:
        try:
            with status:
                answer = run_interruptible(run(), on_first=lambda: status.note("stopping"))
        except asyncio.CancelledError:
            if stream is not None and stream.pipe_closed:
                raise typer.Exit(EXIT_BROKEN_PIPE) from None
            _print(status.answer, output, status, stream)
            say_interrupted(status, output, "the partial run is saved")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (BudgetExceeded, NotVerified) as e:
            _print(e.partial, output, status, stream)
            raise
        except ReasonError as e:
            _print(None, output, status, stream)
            say_saved(status, output, e)
            raise
        value = _print(answer, output, status, stream)
        print_notes(answer, status.exhausted, value=value, with_summary=not output.as_json)
        if answer.pending:
            print_pending(answer.pending, output.resume_command(answer.run_id))
        _advise_new_user(reasoner.settings)
    exit_status = EXIT_BY_STOPPED[answer.stopped] or (EXIT_NO_ANSWER if answer.answer is None else 0)
    if exit_status:
        raise typer.Exit(exit_status)


@contextmanager
def attended(reasoner: Reasoner, status: RunStatus, approver: TerminalApprover | None) -> Iterator[None]:
    """Take the user's keys and decisions while the reasoner answers a question, from within an event loop."""
    loop = asyncio.get_running_loop()

    def on_key(key: str) -> None:
        if key.lower() != ANSWER_KEY:
            return
        status.note("answering now")
        status.hint = ""
        if status.run_id is not None:
            reasoner.conclude(status.run_id)
        else:  # as soon as it has started, and all sinks have that event
            status.on_start = lambda run_id: loop.call_soon(reasoner.conclude, run_id)

    with keys(on_key) if can_animate() else nullcontext(None) as reader:
        status.hint = "" if reader is None else f"{ANSWER_KEY}: answer now"
        if approver is not None:
            approver.attach(reader or LineReader(), status.paused)
        yield


def say_interrupted(status: RunStatus, output: Output, saved: str) -> None:
    """Report that a run was interrupted, and how it is resumed."""
    resume = "" if status.run_id is None else f"; {saved}: {output.resume_command(status.run_id)}"
    say(f"interrupted{resume}")
    if status.answer is not None and (lost := status.answer.usage.lost_tokens):
        say(f"{lost:,} generated tokens of unfinished calls are lost", label="note", style="cyan")


def say_saved(status: RunStatus, output: Output, error: ReasonError) -> None:
    """Say how a failed run is resumed, if any of it is stored or the model may respond next time."""
    if status.run_id is not None and (status.has_stored or isinstance(error, BackendError)):
        what = "the work so far is saved" if status.has_stored else "to try again"
        say(f"{what}: {output.resume_command(status.run_id)}", label="note", style="cyan")


def _print(answer: Answer | None, output: Output, status: RunStatus, stream: TextStream | None) -> str | None:
    """Print an answer or the partial one; text that was already streamed is not repeated. As `print_answer`."""
    if output.as_json:
        if answer is not None:
            print_json(answer, status)
        return None
    return print_answer(
        answer,
        status.question,
        show_reasoning=output.show_reasoning,
        printed="" if stream is None else stream.printed,
        writer=None if stream is None else stream.writer,
    )


def _advise_new_user(settings: Settings) -> None:
    """Name better models once, on a terminal, after the first answer of the default one."""
    marker = settings.data_dir / "first-answer"
    if settings.model != DEFAULT_MODEL or not sys.stderr.isatty() or marker.exists():
        return
    with suppress(OSError):  # the tip appears again next time
        marker.touch()
    say(
        "the default model is tiny and often wrong; for better ones: reason models pull recommended",
        label="tip",
        style="cyan",
    )


# -- streamed text


class TextStream:
    """A sink that prints the text of each turn's first generation, if it is a single sample that may be the answer.

    Text that verification may have repaired is printed by no sink: it may claim what is not so.

    The first generation of a search is a step of its tree, and that of a jury one of several opinions: neither is
    printed, even if another strategy chose the search or the jury. Text that a strategy releases as the run's answer
    (`TextDelta.answer_start`) is printed in any case.

    Leading white space is dropped and trailing white space held back, so that the printed text equals the answer's.

    Args:
        on_first: Called before the first text is printed, to remove the live view.
        on_closed: Called once when the reader of standard output has closed the pipe.
        show_reasoning: Whether text is printed whose only answer is a value (`has_value_answer`).
    """

    def __init__(
        self, on_first: Callable[[], None], on_closed: Callable[[], object], *, show_reasoning: bool = True
    ) -> None:
        self._show_reasoning = show_reasoning
        self._is_silent = False
        self._on_first = on_first
        self._on_closed = on_closed
        self._call: int | None = None
        self._strategy = ""
        self._seen_generation = False
        self._held = ""
        self.writer = TextWriter()
        self.printed = ""
        self.pipe_closed = False

    def __call__(self, event: Event) -> None:
        """Print a text delta of the sample."""
        if isinstance(event, RunStarted):
            self._strategy = event.strategy
            self._seen_generation = starts_with_draft(event.strategy)
            has_value = not self._show_reasoning and has_value_answer(event.question)
            self._is_silent = has_value or event.may_be_repaired
        elif isinstance(event, StrategyNote) and event.name in ("auto.chosen", "question.routed"):
            self._seen_generation |= starts_with_draft(str(event.data.get("chosen", "")))
        elif isinstance(event, ToolStarted):  # another turn follows
            self._end_turn()
        elif isinstance(event, CallStarted) and event.operation == "workers":
            self._seen_generation = True  # the generation after the workers only ends their transcript
        elif isinstance(event, CallStarted) and event.operation == "generate":
            self._call = event.number if not self._seen_generation and event.samples == 1 else None
            self._seen_generation = True
        elif isinstance(event, TextDelta) and event.answer_start is None and event.parent == self._call:
            self._print(event.text)
        elif isinstance(event, TextDelta) and event.answer_start is not None:
            self._seen_generation = True
            self._print(event.text)

    def _end_turn(self) -> None:
        """End the line of a turn's text, which is not the answer's."""
        self._call, self._seen_generation = None, starts_with_draft(self._strategy)
        if self.printed and not self.pipe_closed:
            self.writer.write_line("")
        self.printed = self._held = ""

    def _print(self, text: str) -> None:
        if self._is_silent:
            return
        text = self._held + text
        if not self.printed:
            text = text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if not shown:
            return
        if not self.printed:
            self._on_first()
        self.printed += shown
        try:
            self.writer.write(shown)
        except BrokenPipeError:
            self._call = None
            self.pipe_closed = True
            self._on_closed()


def starts_with_draft(strategy: str) -> bool:
    """Whether a strategy starts with a step of a tree or one of several opinions; False for unknown strategies."""
    try:
        kind = STRATEGIES.load(strategy)
        return JURY in kind.roles or issubclass(kind.Config, SearchOptions)
    except ReasonError:
        return False


# -- the trace in a file

FORMATS: Registry[Callable[[Sequence[Event], StoredStatus | None], str]] = Registry(
    "reason.trace_formats", "trace format"
)
"""Functions from a run's events and status to the text of a file, by the file's suffix."""


@contextmanager
def open_trace(path: Path | None, status: StoredStatus | None = None) -> Iterator[tuple[Sink, ...]]:
    """The sinks that write a trace; the file is complete when the context exits, also by an exception.

    Args:
        path: The file; None writes none.
        status: Status of the run in the store, for a page.

    Raises:
        UserError: No format has the suffix.
        StoreError: The file cannot be written.
    """
    suffix = "" if path is None else path.suffix.removeprefix(".")
    if path is None:
        yield ()
    elif suffix == "jsonl":
        with JsonlSink(path) as sink:
            yield (sink,)
    elif suffix in FORMATS.names():
        render, memory = FORMATS.load(suffix), MemorySink()
        _write(path, "")  # fails before the run if the file is not writable
        try:
            yield (memory,)
        finally:
            _write(path, render(memory.events, status))
    else:
        suffixes = " or ".join(f".{name}" for name in ("jsonl", *FORMATS.names()))
        raise UserError(f"--trace {str(path)!r} does not end in {suffixes}", hint="choose one of these suffixes")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
