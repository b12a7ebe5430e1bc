"""A verification in the terminal: progress line while it lasts, then the text with its claims and the verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import typer

from ..agents.verification import TextVerification
from ..core.budget import Budget
from ..core.errors import ReasonError
from ..core.events import Sink
from ..core.files import Progress
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.claims import answer_with_marks, print_claims, summary_line
from .render.console import out, print_line, say, write_line
from .render.run_status import RunStatus
from .terminal_run import Output, open_trace, say_interrupted, say_saved

Verifying = Callable[[Progress, Sequence[Sink]], Awaitable[TextVerification]]
"""Verifies a text; takes the progress callback of loading, and the sinks."""


def verify_in_terminal(work: Verifying, output: Output, budget: Budget) -> TextVerification:
    """Verify a text and print the verification.

    Args:
        work: Verifies the text.
        output: Where and how the verification is written.
        budget: Limits shown in the progress line.

    Raises:
        typer.Exit: Interrupted; the run is saved.
        ReasonError: Nothing could be verified.
    """
    status = RunStatus(budget.model_dump(exclude_none=True), "reading")

    async def run() -> TextVerification:
        return await work(status.pulled, [status, *traces])

    with open_trace(output.trace) as traces:
        try:
            with status:
                verified = run_interruptible(run(), on_first=lambda: status.note("stopping"))
        except asyncio.CancelledError:
            say_interrupted(status, output, "the run is saved")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except ReasonError as e:
            say_saved(status, output, e)
            raise
    if output.as_json:
        record = {"limits": status.set_limits, "stopped_by": status.exhausted}
        record |= json.loads(verified.model_dump_json())
        record["question"] = record["question"] or None
        write_line(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print_verification(verified)
    for sentence in verified.degraded:
        say(sentence, label="note", style="cyan")
    return verified


def print_verification(verified: TextVerification) -> None:
    """Print a verified text with its claims marked, the claims, and the verdict."""
    console, claims = out(), verified.verification.claims
    print_line(console, answer_with_marks(verified.answer, claims))
    console.print()
    if claims:
        print_claims(console, claims)
        console.print()
    line = summary_line(verified.verification)
    if verified.usage.reward_calls:
        line.append(f"; {verified.usage.reward_calls:,} passes", "dim")
    if verified.usage.completion_tokens:
        line.append(f"; {verified.usage.completion_tokens:,} tokens", "dim")
    line.append(f"; run {verified.run_id}", "dim")
    print_line(console, line)
