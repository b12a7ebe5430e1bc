"""How an answer is printed: its text alone on standard output, what else there is to know on standard error.

What a run spent, as the cells of a table; the viewer has the same columns.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.text import Text

from ...core.types import Answer, Evidence, RoleUsage, RunUsage
from .claims import print_checked
from .console import err, out, printable, say, write_line

LONGEST_ANSWER = 200
"""Characters of an extracted answer shown in the last line."""
LEAST_PASSAGE = 20
"""Columns that the passage of a source has at least."""


def print_json(answer: Answer) -> None:
    """Print the whole answer as one JSON object."""
    write_line(answer.model_dump_json(indent=2))


def print_answer(answer: Answer | None, printed: str = "") -> None:
    """Print the answer's text, and below it what it cites, and what was found of its claims.

    Args:
        answer: The answer; None if there is none.
        printed: Text that was printed while it was generated.
    """
    text = "" if answer is None else answer.text.strip()
    if printed:
        write_line("")
    if text and text != printed:
        if printed:
            write_line("")  # what was streamed is not what was chosen in the end
        write_line(text)
    if answer is not None and answer.citations:
        write_line("\n".join(["", "Sources", *source_lines(answer.citations, out().width)]))
    if answer is not None and answer.verification is not None and answer.verification.claims:
        write_line("\nClaims")
        print_checked(out(), answer.verification)


def source_lines(citations: Sequence[Evidence], width: int) -> list[str]:
    """What a text cites, a line each, under the numbers that it has in the text: `[1] source: the passage`.

    Args:
        citations: The passages, in order.
        width: Columns of a line; the source is never cut.
    """
    lines = []
    for number, evidence in enumerate(citations, 1):
        head = f"[{number}] {_line_of(evidence.source)}: "
        line = Text(head + _line_of(evidence.text))
        line.truncate(max(width, len(head) + LEAST_PASSAGE), overflow="ellipsis")
        lines.append(line.plain.rstrip().removesuffix(":"))
    return lines


def print_notes(answer: Answer, exhausted: str | None, *, with_summary: bool = True) -> None:
    """Say on standard error what the text does not.

    Args:
        answer: The answer.
        exhausted: The limit that stopped the run, if one is known.
        with_summary: Whether a last line summarizes the answer.
    """
    for what in answer.degraded:
        say(what, label="note", style="cyan")
    if answer.stopped == "budget":
        limit = f"the limit of {exhausted}" if exhausted else "a limit"
        found = "the answer is what there was by then" if answer.text else "there is no answer yet"
        say(f"{limit} stopped the run; {found}", label="budget spent", style="yellow")
    differs = answer.answer is not None and answer.answer.strip() != answer.text.strip()
    if with_summary and (differs or sys.stderr.isatty()):
        err().print(summary(answer), soft_wrap=True)


def summary(answer: Answer) -> Text:
    """The last line: the extracted answer if it is not the text itself, who gave it, confidence, cost, the run."""
    line = Text()
    if answer.answer is not None and answer.answer.strip() != answer.text.strip():
        shown = _line_of(answer.answer)
        shown = shown if len(shown) <= LONGEST_ANSWER else shown[: LONGEST_ANSWER - 1] + "…"
        line.append("answer: ", "green")
        line.append(f"{shown}  ", "bold")
    facts = [f"by {_line_of(answer.ran)}"] if answer.ran else []
    if answer.confidence is not None:
        calibrated = answer.calibrated_confidence
        beside = "" if calibrated is None else f" (calibrated {calibrated:.2f})"
        facts.append(f"confidence {answer.confidence:.2f}{beside}")
    if answer.verification is not None and answer.verification.verdict != "unchecked":
        facts.append(answer.verification.verdict.replace("_", " "))
    usage = answer.usage
    facts.append(f"tokens {usage.completion_tokens:,}")
    if usage.replayed_tokens:
        facts.append(f"of them from the store {usage.replayed_tokens:,}")
    if usage.cost_usd:
        facts.append(f"{usage.cost_usd:.4f} USD")
    facts.append(f"{usage.wall_seconds:.1f} s")
    facts.append(f"run {answer.run_id}")
    line.append("  ".join(facts), "dim")
    return line


def _line_of(text: str) -> str:
    return printable(" ".join(text.split()))


USAGE_HEADS = ("calls", "prompt", "cached", "generated", "from store", "USD", "working")
"""Headings of the cells. "cached" are the prompt tokens whose keys and values were reused."""


def usage_cells(row: RoleUsage | RunUsage) -> tuple[str, ...]:
    """A role's usage, or the whole run's, under `USAGE_HEADS`; the run's time is that of the clock."""
    return (
        f"{row.model_calls:,}",
        f"{row.prompt_tokens:,}",
        f"{row.cached_tokens:,}",
        f"{row.completion_tokens:,}",
        f"{row.replayed_tokens:,}",
        "?" if row.cost_usd is None else f"{row.cost_usd:.4f}",
        f"{row.working_s:.1f} s" if isinstance(row, RoleUsage) else f"{row.wall_seconds:.1f} s wall",
    )
