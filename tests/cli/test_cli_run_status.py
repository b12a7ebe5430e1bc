"""The progress line of a run, on a terminal and in a pipe."""

from __future__ import annotations

import io
import sys

import pytest
from reason.cli.render.console import can_animate
from reason.cli.render.run_status import RunStatus
from reason.core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    RunStarted,
    SampleFinished,
    StageStarted,
    StrategyNote,
    TextDelta,
    ToolStarted,
)
from reason.core.messages import Completion, Usage
from reason.core.types import Question
from rich.console import Console

STARTED = RunStarted(
    run_id="r", question=Question(text="?"), strategy="self-consistency", models={"main": "local/tiny"}, seed=1
)


def call(number: int, samples: int, operation: str = "generate") -> CallStarted:
    return CallStarted(
        number=number, role="main", model="m", operation=operation, requests=1, samples=samples, replayed=0
    )


def delta(sample: int, tokens: int, parent: int = 5) -> TextDelta:
    return TextDelta(parent=parent, request=0, sample=sample, text="x", tokens=tokens)


def sample(index: int, tokens: int) -> SampleFinished:
    completion = Completion(text="x", finish_reason="stop", usage=Usage(completion_tokens=tokens))
    return SampleFinished(parent=5, request=0, sample=index, completion=completion)


def charged(parent: int, total: int, thinking: int = 0, usd: float | None = 0.0, **limits: float) -> BudgetCharged:
    totals = {"total_tokens": total, "total_thinking_tokens": thinking, "total_calls": 1, "total_usd": usd}
    return BudgetCharged(parent=parent, role="main", model="m", tokens=0, calls=1, limits=limits, **totals)


def status_after(*events: Event, **options: object) -> RunStatus:
    status = RunStatus(clock=lambda: 0.0, **options)
    for event in events:
        status(event)
    return status


def on_terminal(status: RunStatus, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(status.render())
    (line,) = console.file.getvalue().splitlines()
    return line[2:].rstrip()


def test_several_trajectories_have_a_row_each():
    first = StageStarted(number=2, stage="trajectory 1 · turn 1", trajectory=1)
    second = StageStarted(number=3, stage="trajectory 2 · turn 1", trajectory=2)
    done = CallFinished(number=5, parent=2, role="main", model="m", seconds=0.1, tokens=40)
    looks = ToolStarted(parent=3, call="c", tool="look", arguments='{"at": 1}', effect="read", turn=0, trajectory=2)
    started = STARTED.model_copy(update={"trajectories": 2})
    status = status_after(started, first, second, done, looks)
    console = Console(file=io.StringIO(), width=80)
    console.print(status.render())
    assert [line.split() for line in console.file.getvalue().splitlines()[1:]] == [
        ["turns", "tokens", "state", "last", "call"],
        ["1", "1", "40", "thinking"],
        ["2", "1", "0", "calling", "look(at=1)"],
    ]


RUN = (STARTED, StageStarted(stage="solve"), call(5, 8))


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ((), "loading local/tiny"),
        # a finished sample replaces what was counted of its deltas, a charge what was counted of its call
        (
            (*RUN, delta(0, 3), delta(1, 2), sample(0, 4)),
            "self-consistency local/tiny · solve · 1/8 samples · 6 tokens",
        ),
        (
            (*RUN, delta(0, 3), sample(0, 4), charged(5, 1504, thinking=1200, usd=0.0123, tokens=2000)),
            "self-consistency local/tiny · solve · 1/8 samples · 1,504/2,000 tokens · 1,200 of them thinking · 1 call"
            " · 0.0123 USD",
        ),
        ((STARTED, call(5, 1), call(6, 10, "next_token"), delta(0, 1)), "self-consistency local/tiny · 1 token"),
        (
            (STARTED, StrategyNote(strategy="auto", name="auto.chosen", data={"selected_strategy": "cot"})),
            "self-consistency local/tiny → cot",
        ),
    ],
)
def test_the_line_names_the_work_and_its_cost(events, line):
    assert status_after(*events, note="loading local/tiny").line() == line


def test_a_terminal_also_shows_seconds_and_keys_in_one_line():
    status = status_after(*RUN, limits={"seconds": 60.0})
    status.hint = "a: answer now"
    assert on_terminal(status) == "self-consistency local/tiny · solve · 0/8 samples · 0.0/60 s · a: answer now"
    assert on_terminal(status, width=30) == "self-consistency local/tiny…"
    status.note("stopping\x1b[2J")
    assert "stopping" in on_terminal(status)


def test_files_are_loaded_in_the_same_line():
    status = status_after(note="loading local/tiny")
    status.pulled("downloading", 2_000_000, 8_000_000)
    assert status.line() == "downloading 2.0 MB of 8.0 MB"
    status.pulled("downloading", 8_000_000, 8_000_000)
    assert status.line() == "loading local/tiny"


def test_plain_lines_without_a_terminal_at_growing_intervals(capsys):
    now = [0.0]
    with RunStatus(clock=lambda: now[0]) as status:
        for event in RUN:
            status(event)
        for second in range(3600):
            now[0] = float(second)
            status(delta(0, 10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "15 s: self-consistency local/tiny · solve · 0/8 samples · 160 tokens"
    assert [line.partition(" ")[0] for line in lines] == ["15", "45", "105", "225", "465", "945", "1905"]


def test_the_status_keeps_what_a_command_prints_at_the_end():
    started = []
    status = RunStatus()
    status.on_start = started.append
    assert (status.run_id, status.question, status.has_stored) == (None, None, False)
    for event in (STARTED, charged(5, 6, tokens=50, calls=0), BudgetExhausted(kind="tokens", used=50, limit=50)):
        status(event)
    assert (status.run_id, status.question, status.has_stored) == ("r", STARTED.question, True)
    assert (status.exhausted, status.set_limits, started) == ("tokens", {"tokens": 50}, ["r"])


def test_no_animation_without_a_terminal_or_colour(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not can_animate()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert can_animate()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not can_animate()


def test_the_line_of_a_given_text_says_verify_once():
    started = RunStarted(run_id="r", question=Question(text="?"), strategy="given", models={}, seed=1)
    assert status_after(started, StageStarted(stage="verify")).line() == "verify"
