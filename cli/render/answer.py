"""Printing of answers and of stored runs: results on standard output, notes and a summary on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any

from pydantic import ValidationError
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...agents.planner import GIVEN
from ...core.errors import RunQuarantined
from ...core.run import RunConfig
from ...core.store.records import ListedRun, RunRecord
from ...core.types import Answer, Evidence, Question, RoleUsage, RunUsage
from ...core.verdicts import verdict_name
from ...reasoning.answers.extraction import has_value_answer
from .claims import print_checked
from .console import (
    TextWriter,
    age,
    err,
    one_line,
    out,
    plural,
    print_line,
    printable,
    say,
    truncate,
    write_line,
)
from .run_status import RunStatus

MAX_ANSWER_CHARS = 200
"""Maximum length of the extracted answer in the summary."""
MIN_PASSAGE_WIDTH = 20
"""Minimum width of a citation's passage."""


def print_json(answer: Answer, status: RunStatus) -> None:
    """Print the answer as one JSON object, with the question and the limits."""
    question = status.question
    record = {
        "question": None if question is None else question.text,
        "choices": [] if question is None else list(question.choices),
        "limits": status.set_limits,
    }
    fields = json.loads(answer.model_dump_json())
    absent = {name: None for name in ("calibration", "selected_strategy") if not fields[name]}
    write_line(json.dumps({**record, **fields, **absent}, indent=2, ensure_ascii=False))


def answer_value(answer: Answer, question: Question | None) -> str | None:
    """The answer without the text around it, where it says everything by itself: `391`, `21 (A)`; else None."""
    shown = answer.shown_answer
    if question is None or shown is None or answer.tool_calls or not has_value_answer(question):
        return None
    return shown.strip()


def print_answer(
    answer: Answer | None,
    question: Question | None = None,
    *,
    show_reasoning: bool = False,
    printed: str = "",
    writer: TextWriter | None = None,
) -> str | None:
    """Print the answer and its citations on standard output, and its verified claims on standard error.

    Args:
        answer: The answer; None if there is none.
        question: Its question, which decides whether a value is the complete answer; None prints the text.
        show_reasoning: Whether thought and text are printed, too, before the value.
        printed: Text that was already streamed.
        writer: The writer of that text.

    Returns:
        The value, if it was printed alone; else None.
    """
    writer = writer or TextWriter()
    text = "" if answer is None else answer.text.strip()
    has_text = bool(printed) and not show_reasoning
    value = None if answer is None or has_text else answer_value(answer, question)
    parts = [text]
    if answer is not None and show_reasoning:
        parts.insert(0, answer.thought.strip())
    if value is not None:
        parts = [*(parts if show_reasoning else []), value]
    elif answer is not None and answer.answer and one_line(answer.answer).lower() not in one_line(text).lower():
        parts.append(answer.answer.strip())  # the text alone would not have the answer
    left = parts
    if printed and text.startswith(printed) and text in parts:
        writer.write_line(text.removeprefix(printed))
        left = parts[parts.index(text) + 1 :]
    elif printed:
        writer.write_line("")  # the streamed text is not the final one
    is_first = not printed
    for part in filter(None, left):
        writer.write_line(part if is_first else "\n" + part)
        is_first = False
    if answer is not None and answer.citations:
        write_line("\n".join(["", "Sources", *source_lines(answer.citations, out().width)]))
    if answer is not None and answer.verification is not None and answer.verification.claims:
        is_result = answer.strategy == GIVEN  # of a run that verified a text
        print_checked(out() if is_result else err(), answer.verification)
    return parts[0] if parts == [value] else None


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


def print_notes(answer: Answer, exhausted: str | None, *, value: str | None = None, with_summary: bool = True) -> None:
    """Print degradations, why the run ended early or without an answer, and the summary, on standard error.

    Args:
        answer: The answer.
        exhausted: The kind of the limit that stopped the run; None if it is unknown.
        value: The value that was printed instead of the text.
        with_summary: Whether a last line summarizes the answer.
    """
    for sentence in answer.degraded:
        say(sentence, label="note", style="cyan")
    if answer.usage.lost_tokens:
        say(
            f"{answer.usage.lost_tokens:,} tokens that were generated before an interruption are lost with their "
            "unfinished calls",
            label="note",
            style="cyan",
        )
    if answer.stopped == "budget":
        kind = answer.stopped_by or exhausted
        limit = f"the limit of {kind.replace('_', ' ')}" if kind else "a limit"
        has_answer = answer.answer is not None
        result = "the answer is the best one so far" if has_answer else f"there is no answer yet (run {answer.run_id})"
        say(f"{limit} stopped the run; {result}", label="budget exhausted", style="yellow")
    elif answer.answer is None and answer.stopped in ("done", "user"):
        say("the run ended without an answer", label="no answer", style="yellow")
    elif answer.based_on and not any(answer.based_on in sentence for sentence in answer.degraded):
        say(f"it rests on {answer.based_on}", label="answered early", style="cyan")
    if with_summary and (_differs(answer) or sys.stderr.isatty()):
        print_line(err(), summary(answer, value))


def _differs(answer: Answer) -> bool:
    """Whether the extracted answer is not the text itself."""
    return answer.answer is not None and one_line(answer.answer).rstrip(".!?") != one_line(answer.text).rstrip(".!?")


def summary(answer: Answer, value: str | None = None) -> Text:
    """The last line: the extracted answer if a longer text was printed, strategy, confidence, usage, run ID.

    Args:
        value: The value that was printed instead of the text.
    """
    line = Text()
    shown = answer.shown_answer
    if shown is not None and value is None and _differs(answer):
        line.append("answer: ", "green")
        line.append(f"{truncate(one_line(shown), MAX_ANSWER_CHARS)}  ", "bold")
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
    has_more = value is not None and answer.text.strip() != value
    facts.append(f"reasoning: reason runs show {answer.run_id}" if has_more else f"run {answer.run_id}")
    line.append("  ".join(facts), "dim")
    return line


def usage_text(row: RoleUsage | RunUsage) -> str:
    """The usage of a role, or of the run: `4 calls, 13,000 prompt tokens (12,400 cached), 80 generated, …`."""
    details = ((row.thinking_tokens, "thinking"), (row.replayed_tokens, "from the store"))
    parts = ", ".join(f"{count:,} {what}" for count, what in details if count)
    cached = f" ({row.cached_tokens:,} cached)" if row.cached_tokens else ""
    cost = "unknown cost" if row.cost_usd is None else f"{row.cost_usd:.4f} USD" if row.cost_usd else ""
    amounts = (
        plural(row.model_calls, "call"),
        f"{row.prompt_tokens:,} prompt tokens{cached}",
        f"{row.completion_tokens:,} generated" + (f" ({parts})" if parts else ""),
        cost,
        f"{row.working_s if isinstance(row, RoleUsage) else row.wall_seconds:.1f} s",
    )
    return ", ".join(filter(None, amounts))


# -- stored runs

MAX_THOUGHT_CHARS = 2000
"""Maximum length of a thought on the page of a run."""
STATUS_STYLES = {"finished": "green", "queued": "blue", "running": "cyan", "interrupted": "yellow", "failed": "red"}


def run_row(run: ListedRun) -> dict[str, Any]:
    """A row of the list, as JSON; question and answer are cut."""
    return {
        "id": run.id,
        "created": run.created,
        "updated": run.updated,
        "status": run.status,
        "strategy": run.strategy,
        "model": run.models.get("main"),
        "question": run.question,
        "answer": run.answer_text,
        "stopped": run.stopped,
        "tokens": run.tokens,
        "cost_usd": run.cost_usd,
        "error": run.error,
    }


def runs_table(runs: Sequence[ListedRun]) -> Table:
    """The list of runs."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=sys.stdout.isatty())
    table.add_column("run", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("strategy", no_wrap=True)
    table.add_column("question", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("answer", no_wrap=True, overflow="ellipsis", ratio=1)
    now = time.time()
    for run in runs:
        table.add_row(
            Text(run.id, "bold"),
            Text(age(now - run.created), "dim"),
            _status(run.status, run.stopped, run.error),
            Text(run.strategy),
            Text(_one_line(run.question)) if run.question else Text("verification of a text", "dim"),
            Text(_one_line(run.answer_text)),
        )
    return table


def print_run(record: RunRecord) -> None:
    """Print a run on standard output."""
    try:
        config = RunConfig.model_validate(record.config)
        answer = None if record.answer is None else Answer.model_validate(record.answer)
    except ValidationError:
        out().print_json(data=record.model_dump(mode="json"))  # written by another version
        return
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("run", Text(record.id, "bold"))
    facts.add_row("status", _status(record.status, None if answer is None else answer.stopped, record.error))
    for name, value in _facts(record, config, answer):
        facts.add_row(name, Text(printable(value)))
    out().print(facts)
    question = config.question
    options = (f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, question.choices, strict=False))
    _section("question", "\n".join((question.text.strip(), *options)))
    _section("documents", "\n".join(f"{d.name} ({len(d.text):,} characters)" for d in question.documents))
    if answer is not None:
        _print_answer(answer)


def _facts(record: RunRecord, config: RunConfig, answer: Answer | None) -> Iterator[tuple[str, str]]:
    yield "started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    if config.strategy == GIVEN:  # its only parameter is the text, which is printed below
        yield "strategy", f"none: the answer was {GIVEN}"
    else:
        yield "strategy", _with_parameters(config.strategy, config.parameters)
    for role, model in config.models.items():
        yield "model" if role == "main" else f"{role} model", model
    for name in config.verify:
        yield "verifier", _with_parameters(name, config.verify_parameters.get(name, {}))
    if config.evidence:
        yield "evidence", "\n".join(config.evidence)
    if config.effort is not None:
        yield "effort", config.effort
    if config.thinking_tokens is not None:
        yield "thinking", f"up to {config.thinking_tokens:,} tokens"
    yield "seed", str(config.seed)
    limits = config.budget.model_dump(exclude_none=True)
    if limits:
        yield "budget", ", ".join(f"{limit:g} {kind.replace('_', ' ')}" for kind, limit in limits.items())
    if record.error:
        yield "error", str(record.error.get("message", record.error))
    if answer is not None:
        roles = answer.usage.by_role
        if len(roles) > 1:
            yield from ((f"  {key.partition(':')[0]}", f"{row.model}: {usage_text(row)}") for key, row in roles.items())
        yield "usage", usage_text(answer.usage)


def _print_answer(answer: Answer) -> None:
    console = out()
    _section("thought", truncate(answer.thought.strip(), MAX_THOUGHT_CHARS), "dim")
    _section("text", answer.text.strip())
    calibrated = answer.calibrated_confidence
    suffix = "" if calibrated is None else f", calibrated {calibrated:.2f} by {answer.calibration}"
    confidence = "" if answer.confidence is None else f"   (confidence {answer.confidence:.2f}{suffix})"
    _section("answer", (answer.shown_answer or "none") + confidence)
    early = (f"answered early, from {answer.based_on}",) if answer.based_on else ()
    _section("notes", "\n".join((*early, *answer.degraded)), "yellow")
    _section("sources", "\n".join(source_lines(answer.citations, console.width - 2)))
    if answer.verification is not None and answer.verification.claims:
        console.print(Text("\nclaims", "bold"))
        print_checked(console, answer.verification)
    if len(answer.candidates) > 1:
        console.print(Text("\ncandidates", "bold"))
        for number, c in enumerate(answer.candidates, 1):
            score = "" if c.score is None else f"score {c.score:.2f}  "
            line = Text.assemble(
                f"  {number}  ", (_one_line(c.answer) or "-", "bold"), f"  {score}{c.tokens:,} tokens  "
            )
            line.append(_one_line(c.text), "dim")
            line.truncate(console.width, overflow="ellipsis")
            console.print(line, soft_wrap=True)


def _with_parameters(name: str, parameters: dict[str, Any]) -> str:
    return "  ".join((name, *(f"{key}={value}" for key, value in parameters.items() if value not in (None, "", []))))


def _section(title: str, text: str, style: str = "") -> None:
    if text:
        out().print(Text(f"\n{title}", "bold"))
        out().print(Padding(Text(printable(text), style), (0, 0, 0, 2)))


def _status(status: str, stopped: str | None, error: dict[str, Any] | None) -> Text:
    text = Text(status, STATUS_STYLES.get(status, ""))
    if stopped in ("budget", "user"):
        text.append(" (budget exhausted)" if stopped == "budget" else " (answered early)", "yellow")
    if error is not None and error.get("code") == RunQuarantined.code:
        text.append(" (quarantined)", "red")
    return text


def _one_line(text: Any) -> str:
    return "" if text is None else one_line(str(text))
