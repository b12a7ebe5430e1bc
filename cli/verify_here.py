"""One verification on the terminal: a live view while it goes on, what was found after."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from ..agents.verify_text import TextVerification
from ..core.budget import Budget
from ..core.errors import ReasonError
from ..core.events import Sink
from ..serving.model_files.downloads import Progress
from .answering import Heard
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.claims import answer_with_marks, print_claims, summary_line
from .render.console import out, say, write_line
from .render.live import LiveView
from .tracing import open_trace

Work = Callable[[Progress, Sequence[Sink]], Awaitable[TextVerification]]
"""Verifies; is given whom to tell how far documents and files are, and who hears of events."""


@dataclass(frozen=True)
class Wanted:
    """How the findings are wanted.

    Attributes:
        as_json: One JSON object instead of the text.
        trace: Where to write everything that happens; None is nowhere.
        resume_flags: Flags that going on with the run would need again.
    """

    as_json: bool = False
    trace: Path | None = None
    resume_flags: tuple[str, ...] = ()

    def resume_command(self, run_id: str) -> str:
        """The command that goes on with a run."""
        return shlex.join(["reason", "runs", "resume", run_id, *self.resume_flags])


def verify_here(work: Work, wanted: Wanted, budget: Budget) -> TextVerification:
    """Have a text verified and print what was found.

    Args:
        work: Verifies it.
        wanted: How the findings are wanted.
        budget: The limits, for the live view.

    Raises:
        typer.Exit: It was interrupted; the run is saved.
        ReasonError: Nothing could be verified at all.
    """
    heard = Heard()
    view = LiveView(budget.model_dump(exclude_none=True))
    view.note("reading")

    async def go() -> TextVerification:
        return await work(view.pulled, [heard, view, *traces])

    with open_trace(wanted.trace) as traces:
        try:
            with view:
                found = run_interruptible(go(), on_first=lambda: view.note("stopping"))
        except asyncio.CancelledError:
            saved = "" if heard.run_id is None else f"; the run is saved: {wanted.resume_command(heard.run_id)}"
            say(f"interrupted{saved}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except ReasonError:
            if heard.run_id is not None:
                say(f"what was done is saved: {wanted.resume_command(heard.run_id)}", label="note", style="cyan")
            raise
    if wanted.as_json:
        write_line(found.model_dump_json(indent=2))
    else:
        print_verification(found)
    for what in found.degraded:
        say(what, label="note", style="cyan")
    return found


def print_verification(found: TextVerification) -> None:
    """Print a verification on standard output: the text with its claims marked, the claims, and the verdict."""
    console, claims = out(), found.verification.claims
    console.print(answer_with_marks(found.answer, claims), soft_wrap=True)
    console.print()
    if claims:
        print_claims(console, claims)
        console.print()
    line = summary_line(found.verification)
    if found.usage.reward_calls:
        line.append(f"; {found.usage.reward_calls:,} passes", "dim")
    if found.usage.completion_tokens:
        line.append(f"; {found.usage.completion_tokens:,} tokens", "dim")
    line.append(f"; run {found.run_id}", "dim")
    console.print(line, soft_wrap=True)
