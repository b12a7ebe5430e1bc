"""The live view's figures, read off events; and its picture."""

from __future__ import annotations

import io
import sys

import pytest
from reason.cli.render.live import LiveView
from reason.cli.render.run_progress import Progress
from reason.core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    RunStarted,
    SampleFinished,
    StageStarted,
    TextDelta,
    VoteUpdated,
)
from reason.core.messages import Completion, Usage
from reason.core.types import Question
from rich.console import Console


def completion(tokens: int) -> Completion:
    return Completion(text="x", finish_reason="stop", usage=Usage(completion_tokens=tokens))


def call(number: int, samples: int, replayed: int = 0) -> CallStarted:
    return CallStarted(
        number=number, role="main", model="m", operation="generate", requests=1, samples=samples, replayed=replayed
    )


def charged(parent: int, total: int, calls: int = 1, **limits: float) -> BudgetCharged:
    return BudgetCharged(
        parent=parent,
        role="main",
        model="m",
        tokens=0,
        calls=1,
        total_tokens=total,
        total_calls=calls,
        total_usd=0.0,
        limits=limits,
    )


def delta(sample: int, tokens: int, at_s: float = 0.0, parent: int = 5) -> TextDelta:
    return TextDelta(parent=parent, request=0, sample=sample, text="x", tokens=tokens, at_s=at_s)


def sample(index: int, tokens: int, parent: int = 5, at_s: float = 0.0, replayed: bool = False) -> SampleFinished:
    return SampleFinished(
        parent=parent, request=0, sample=index, completion=completion(tokens), at_s=at_s, replayed=replayed
    )


def after(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress.take(event)
    return progress


def test_tokens_count_once_from_delta_to_charge() -> None:
    progress = after(call(5, 2), delta(0, 3), delta(1, 2))
    assert progress.tokens == 5
    progress.take(sample(0, 4))  # the last token showed no text
    assert progress.tokens == 6
    progress.take(sample(1, 2))
    progress.take(CallFinished(parent=5, role="main", model="m", seconds=1, tokens=6))
    assert progress.tokens == 6
    progress.take(charged(5, 6, tokens=50))
    assert progress.tokens == 6
    assert progress.limits == {"tokens": 50}
    assert (progress.samples_done, progress.samples_requested) == (2, 2)
    progress.take(call(9, 1))
    progress.take(delta(0, 1, parent=9))
    assert progress.tokens == 7


def test_rate_is_over_the_last_seconds() -> None:
    progress = after(call(5, 1), *(delta(0, 10, at_s=t) for t in (0.0, 1.0, 9.0, 9.5, 10.0)))
    assert progress.rate(10.0) == pytest.approx(30.0)
    assert progress.rate(20.0) is None


def test_replayed_samples_are_no_speed() -> None:
    progress = after(call(5, 1, replayed=1), sample(0, 100, replayed=True, at_s=0.1))
    assert progress.tokens == 100
    assert not progress.rate(0.2)


def test_votes_and_limit() -> None:
    progress = after(
        StageStarted(stage="solve"),
        VoteUpdated(votes={"4": 3, "5": 1}, total=4),
        BudgetExhausted(kind="tokens", used=50, limit=50),
    )
    assert progress.stage == "solve"
    assert progress.votes == {"4": 3, "5": 1}
    assert progress.exhausted == "tokens"


def test_view_shows_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    view = LiveView({"tokens": 1000.0, "seconds": 60.0}, clock=lambda: now[0])
    started = RunStarted(
        question=Question(text="?"), strategy="self-consistency", models={"main": "local/tiny"}, seed=1
    )
    for event in (started, StageStarted(stage="solve"), call(5, 8), delta(0, 7), sample(0, 7)):
        view(event)
    view(VoteUpdated(votes={"[bold]4": 3, "\x1b[31m5": 1}, total=4))
    now[0] = 12.0
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for part in ("self-consistency", "local/tiny", "solve", "12.0 s", "1/8", "7/1,000", "12.0/60 s", "[bold]4 x3"):
        assert part in shown
    assert "\x1b" not in shown


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(call(5, 8))
        for second in range(14):
            now[0] = float(second)
            view(delta(0, 10))
        assert capsys.readouterr().err == ""
        for second in range(14, 3600):
            now[0] = float(second)
            view(delta(0, 10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "15 s: starting, samples 0/8, 160 tokens"
    assert len(lines) < 12


def test_nothing_moves_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from reason.cli.render.console import can_animate

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not can_animate()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert can_animate()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not can_animate()


def test_what_is_scored_is_no_sample() -> None:
    progress = Progress()
    progress.take(call(1, 4))
    progress.take(call(2, 10).model_copy(update={"operation": "next_token"}))
    assert progress.samples_requested == 4
    progress.take(charged(2, 0))
    assert list(progress.calls) == [1]


@pytest.mark.parametrize(
    ("stage", "shown"),
    [("downloading", "model 2 MB of 8 MB"), ("reading", "context 2,000,000 files of 8,000,000 files")],
)
def test_documents_are_counted_and_files_of_models_weighed(stage: str, shown: str) -> None:
    view = LiveView()
    view.pulled(stage, 2_000_000, 8_000_000)
    screen = Console(width=100, file=io.StringIO())
    screen.print(view.render())
    words = " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]
    label, _, amount = shown.partition(" ")
    assert label in words
    assert f"{stage} {amount}" in words
