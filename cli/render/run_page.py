"""A stored run: a row of the list, or its page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
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
from .answer import USAGE_COLUMNS, source_lines, usage_cells
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
            Text(_one_line(run.question)) if run.strategy != GIVEN else _verified_question(run.question),
            Text(_one_line(run.answer_text)),
        )
    return table


def _verified_question(question: Any) -> Text:
    """The question of a run that verified an existing text; often empty."""
    shown = _one_line(question)
    return Text(shown) if shown else Text("verification of a text", "dim")


def print_run(record: RunRecord) -> None:
    """Print a run on standard output."""
    console = out()
    try:
        config = RunConfig.model_validate(record.config)
        answer = None if record.answer is None else Answer.model_validate(record.answer)
    except ValidationError:
        console.print_json(data=record.model_dump(mode="json"))  # written by another version
        return
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("run", Text(record.id, "bold"))
    facts.add_row("status", _status(record.status, None if answer is None else answer.stopped, record.error))
    facts.add_row("started", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))}")
    facts.add_row("strategy", _strategy(config))
    for role, model in config.models.items():
        facts.add_row("model" if role == "main" else f"{role} model", Text(model))
    for name in config.verify:
        facts.add_row("verifier", _verifier(name, config))
    if config.effort is not None:
        facts.add_row("effort", config.effort)
    if config.thinking_tokens is not None:
        facts.add_row("thinking", f"{config.thinking_tokens:,} tokens a thought")
    if config.verify_thoughts:
        facts.add_row("verified", "the answer and its thought")
    if config.evidence:
        facts.add_row("evidence", Text("\n".join(map(printable, config.evidence))))
    facts.add_row("seed", str(config.seed))
    limits = config.budget.model_dump(exclude_none=True)
    if limits:
        facts.add_row("budget", ", ".join(f"{limit:g} {kind.replace('_', ' ')}" for kind, limit in limits.items()))
    if record.error:
        facts.add_row("error", Text(str(record.error.get("message", record.error)), "red"))
    console.print(facts)
    if config.question.text.strip():
        _section("question", config.question.text)
    for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", config.question.choices, strict=False):
        out().print(Padding(Text(f"{letter}. {printable(choice)}"), (0, 0, 0, 2)))
    if config.question.documents:
        _section("documents", "\n".join(f"{d.name} ({len(d.text):,} characters)" for d in config.question.documents))
    if answer is not None:
        _print_answer(answer)


def _print_answer(answer: Answer) -> None:
    console = out()
    if answer.thought:
        tokens = f" ({thinking:,} tokens)" if (thinking := _thinking_tokens(answer)) else ""
        _section(f"thought{tokens}", truncate(answer.thought.strip(), MAX_THOUGHT_CHARS), "dim")
    if answer.text:
        _section("text", answer.text.strip())
    calibrated = answer.calibrated_confidence
    suffix = "" if calibrated is None else f", calibrated {calibrated:.2f} by {answer.calibration}"
    confidence = "" if answer.confidence is None else f"   (confidence {answer.confidence:.2f}{suffix})"
    _section("answer", (answer.shown_answer or "none") + confidence)
    if answer.based_on:
        console.print(Padding(Text(f"answered early; it rests on {answer.based_on}", "yellow"), (0, 0, 0, 2)))
    for sentence in answer.degraded:
        console.print(Padding(Text(f"note: {sentence}", "yellow"), (0, 0, 0, 2)))
    if answer.citations:
        _heading("sources")
        for line in source_lines(answer.citations, console.width - 2):
            console.print(Padding(Text(line), (0, 0, 0, 2)))
    if answer.verification is not None and answer.verification.claims:
        _heading("claims")
        print_checked(console, answer.verification)
    if len(answer.candidates) > 1:
        is_terminal = sys.stdout.isatty()  # where the text column takes the remaining width
        table = Table(box=None, pad_edge=False, header_style="bold", expand=is_terminal)
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("answer", no_wrap=True, overflow="ellipsis", max_width=24 if is_terminal else None)
        for head in ("score", "logprob", "tokens", "thinking"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
        for i, c in enumerate(answer.candidates, 1):
            extracted = Text("-", "dim") if c.answer is None else Text(_one_line(c.answer), "bold")
            table.add_row(
                str(i),
                extracted,
                _number(c.score),
                _number(c.logprob),
                f"{c.tokens:,}",
                f"{c.thinking_tokens:,}",
                Text(_one_line(c.text), "dim"),
            )
        _heading("candidates")
        console.print(Padding(table, (0, 0, 0, 2)))
    _heading("usage")
    console.print(Padding(_usage(answer), (0, 0, 0, 2)))


def _usage(answer: Answer) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("role")
    table.add_column("model", overflow="fold")
    for head in USAGE_COLUMNS:
        table.add_column(head, justify="right")
    total = answer.usage
    for key, row in total.by_role.items():
        table.add_row(key.partition(":")[0], Text(row.model), *usage_cells(row))
    table.add_row(Text("all", "bold"), "", *usage_cells(total))
    return table


def _verifier(name: str, config: RunConfig) -> Text:
    parameters = config.verify_parameters.get(name, {})
    shown = ", ".join(f"{key}={value}" for key, value in parameters.items() if value not in (None, "", []))
    return Text.assemble(name, (f"  {printable(shown)}", "dim"))


def _strategy(config: RunConfig) -> Text:
    if config.strategy == GIVEN:  # its only parameter is the text, which is printed below
        return Text(f"none: the answer was {GIVEN}")
    parameters = ", ".join(f"{name}={value}" for name, value in config.parameters.items() if value not in (None, ""))
    return Text.assemble(config.strategy, (f"  {parameters}", "dim"))


def _thinking_tokens(answer: Answer) -> int:
    """Tokens of the thought of the chosen candidate; 0 if they are unknown."""
    return next((c.thinking_tokens for c in answer.candidates if c.thought == answer.thought), 0)


def _section(title: str, text: str, style: str = "") -> None:
    _heading(title)
    out().print(Padding(Text(printable(text), style), (0, 0, 0, 2)))


def _heading(title: str) -> None:
    console = out()
    console.print()
    console.print(Text(title, "bold"))


def _status(status: str, stopped: str | None, error: dict[str, Any] | None) -> Text:
    text = Text(status, STATUS_STYLES.get(status, ""))
    if stopped in ("budget", "user"):
        text.append(" (budget exhausted)" if stopped == "budget" else " (answered early)", "yellow")
    if error is not None and error.get("code") == RunQuarantined.code:
        text.append(" (quarantined)", "red")
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _one_line(text: Any) -> str:
    return "" if text is None else one_line(str(text))
