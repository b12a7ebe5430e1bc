"""Printing of answers: the text on standard output, notes and a summary on standard error; and tables of usage."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.text import Text

from ...core.types import Answer, Evidence, RoleUsage, RunUsage
from ...core.verdicts import verdict_name
from .claims import print_checked
from .console import err, one_line, out, say, truncate, write_line

MAX_ANSWER_CHARS = 200
"""Maximum length of the extracted answer in the summary."""
MIN_PASSAGE_WIDTH = 20
"""Minimum width of a citation's passage."""


def print_json(answer: Answer) -> None:
    """Print the answer as one JSON object."""
    write_line(answer.model_dump_json(indent=2))


def print_answer(answer: Answer | None, printed: str = "") -> None:
    """Print the answer's text, its citations and its verified claims.

    Args:
        answer: The answer; None if there is none.
        printed: Text that was already streamed.
    """
    text = "" if answer is None else answer.text.strip()
    if printed and text.startswith(printed):
        write_line(text.removeprefix(printed))
    else:
        if printed:
            write_line("")
        if text:
            if printed:
                write_line("")  # the streamed text is not the final one
            write_line(text)
    if answer is not None and answer.citations:
        write_line("\n".join(["", "Sources", *source_lines(answer.citations, out().width)]))
    if answer is not None and answer.verification is not None and answer.verification.claims:
        write_line("\nClaims")
        print_checked(out(), answer.verification)


def source_lines(citations: Sequence[Evidence], width: int) -> list[str]:
    """The cited passages, one line each, numbered as in the text: `[1] source: the passage`.

    Args:
        citations: The passages, in order.
        width: Columns of a line; the source is never truncated.
    """
    lines = []
    for number, evidence in enumerate(citations, 1):
        head = f"[{number}] {one_line(evidence.source)}: "
        line = Text(head + one_line(evidence.text))
        line.truncate(max(width, len(head) + MIN_PASSAGE_WIDTH), overflow="ellipsis")
        lines.append(line.plain.rstrip().removesuffix(":"))
    return lines


def print_notes(answer: Answer, exhausted: str | None, *, with_summary: bool = True) -> None:
    """Print degradations, why the run ended early or without an answer, and the summary, on standard error.

    Args:
        answer: The answer.
        exhausted: The kind of the limit that stopped the run; None if it is unknown.
        with_summary: Whether a last line summarizes the answer.
    """
    for sentence in answer.degraded:
        say(sentence, label="note", style="cyan")
    if answer.stopped == "budget":
        limit = f"the limit of {exhausted.replace('_', ' ')}" if exhausted else "a limit"
        result = "the answer is the best one so far" if answer.text else "there is no answer yet"
        say(f"{limit} stopped the run; {result}", label="budget exhausted", style="yellow")
    elif answer.answer is None and answer.stopped in ("done", "user"):
        say("the run ended without an answer", label="no answer", style="yellow")
    elif answer.based_on and not any(answer.based_on in sentence for sentence in answer.degraded):
        say(f"it rests on {answer.based_on}", label="answered early", style="cyan")
    differs = answer.answer is not None and answer.answer.strip() != answer.text.strip()
    if with_summary and (differs or sys.stderr.isatty()):
        err().print(summary(answer), soft_wrap=True)


def summary(answer: Answer) -> Text:
    """The last line: the extracted answer if it differs from the text, strategy, confidence, usage, run ID."""
    line = Text()
    if answer.answer is not None and answer.answer.strip() != answer.text.strip():
        shown = truncate(one_line(answer.answer), MAX_ANSWER_CHARS)
        line.append("answer: ", "green")
        line.append(f"{shown}  ", "bold")
    facts = [f"by {one_line(answer.selected_strategy)}"] if answer.selected_strategy else []
    if answer.confidence is not None:
        calibrated = answer.calibrated_confidence
        suffix = "" if calibrated is None else f" (calibrated {calibrated:.2f})"
        facts.append(f"confidence {answer.confidence:.2f}{suffix}")
    if answer.verification is not None and answer.verification.verdict != "unchecked":
        facts.append(verdict_name(answer.verification.verdict))
    usage = answer.usage
    stored = f" ({usage.replayed_tokens:,} from the store)" if usage.replayed_tokens else ""
    thinking = f", {usage.thinking_tokens:,} of them thinking" if usage.thinking_tokens else ""
    facts.append(f"tokens {usage.completion_tokens:,}{thinking}{stored}")
    if usage.cost_usd:
        facts.append(f"{usage.cost_usd:.4f} USD")
    facts.append(f"{usage.wall_seconds:.1f} s")
    facts.append(f"run {answer.run_id}")
    line.append("  ".join(facts), "dim")
    return line


USAGE_COLUMNS = ("calls", "prompt", "cached", "generated", "thinking", "from store", "USD", "working")
"""Columns of a usage table; "cached" are prompt tokens whose KV cache was reused, "thinking" is part of "generated"."""


def usage_cells(row: RoleUsage | RunUsage) -> tuple[str, ...]:
    """The usage of a role, or of the run, under `USAGE_COLUMNS`; the run's time is wall-clock time."""
    return (
        f"{row.model_calls:,}",
        f"{row.prompt_tokens:,}",
        f"{row.cached_tokens:,}",
        f"{row.completion_tokens:,}",
        f"{row.thinking_tokens:,}",
        f"{row.replayed_tokens:,}",
        "?" if row.cost_usd is None else f"{row.cost_usd:.4f}",
        f"{row.working_s:.1f} s" if isinstance(row, RoleUsage) else f"{row.wall_seconds:.1f} s wall",
    )
