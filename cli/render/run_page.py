"""A stored run: a row of the list, or its page."""

from __future__ import annotations

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
from ...core.store.protocol import ListedRun, RunRecord
from ...core.types import Answer
from .answer import source_lines, usage_text
from .claims import print_checked
from .console import age, one_line, out, printable, truncate

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
