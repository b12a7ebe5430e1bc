"""Text on standard output as it is generated."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.cli.render import console
from reason.cli.terminal_run import TextStream, starts_with_draft
from reason.core.events import CallStarted, RunStarted, TextDelta
from reason.core.types import Question


def call(number: int, samples: int = 1, operation: str = "generate") -> CallStarted:
    return CallStarted(
        number=number, role="main", model="m", operation=operation, requests=1, samples=samples, replayed=0
    )


def delta(text: str, parent: int = 1) -> TextDelta:
    return TextDelta(parent=parent, request=0, sample=0, text=text, tokens=1)


@given(st.lists(st.text(alphabet="ab \n\t", max_size=4), max_size=12))
def test_printed_text_is_stripped(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr(console, "write", written.append)
        stream = TextStream(lambda: None, lambda: None)
        stream(call(1))
        for piece in pieces:
            stream(delta(piece))
    assert stream.printed == "".join(pieces).strip() == "".join(written)


def test_screen_is_cleared_before_the_first_text(capsys: pytest.CaptureFixture[str]) -> None:
    cleared: list[str] = []
    stream = TextStream(lambda: cleared.append(capsys.readouterr().out), lambda: None)
    stream(call(1))
    stream(delta("\n"))
    assert cleared == []
    stream(delta("Paris"))
    stream(delta("."))
    assert cleared == [""]
    assert capsys.readouterr().out == "Paris."


@pytest.mark.parametrize("first", [call(1, samples=8)])
def test_several_samples_are_not_printed(first: CallStarted, capsys: pytest.CaptureFixture[str]) -> None:
    stream = TextStream(lambda: None, lambda: None)
    stream(first)
    stream(delta("one of eight"))
    stream(call(2))
    stream(delta("a later call", parent=2))
    assert capsys.readouterr().out == ""


def test_scoring_is_not_a_generation(capsys: pytest.CaptureFixture[str]) -> None:
    stream = TextStream(lambda: None, lambda: None)
    stream(call(1, samples=3, operation="score"))
    stream(call(2))
    stream(delta("yes", parent=2))
    assert capsys.readouterr().out == "yes"


@pytest.mark.parametrize(
    ("strategy", "printed"),
    [("cot", "once"), ("of-another-package", "once"), ("beam", "")],
)
def test_search_steps_are_not_streamed(strategy: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    cleared: list[str] = []
    stream = TextStream(lambda: cleared.append("cleared"), lambda: None)
    stream(RunStarted(question=Question(text="?"), strategy=strategy, models={}, seed=1))
    stream(call(1))
    stream(delta("once"))
    assert (capsys.readouterr().out, stream.printed) == (printed, printed)
    assert cleared == ["cleared"] * bool(printed)


def test_strategies_that_start_with_a_draft() -> None:
    from reason.reasoning.strategy import STRATEGIES

    own = {"astar", "beam", "coat", "particle-filter"}
    assert own <= {name for name in STRATEGIES.names() if starts_with_draft(name)}
    assert not [
        name for name in ("cot", "self-consistency", "best-of-n", "adaptive", "nobody") if starts_with_draft(name)
    ]


def test_closed_pipe_stops_the_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(console, "write", broken)
    stopped: list[int] = []
    stream = TextStream(lambda: None, lambda: stopped.append(1))
    stream(call(1))
    stream(delta("a"))
    stream(delta("b"))
    assert stopped == [1]
    assert stream.pipe_closed


def test_streamed_text_contains_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reason.cli.render.console import write

    text = "a\x1b[2Jb\x07c\td\r\ne\x9bf"
    write(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write(text)
    assert capsys.readouterr().out == "a[2Jbc\td\nef"


def test_text_that_a_strategy_releases_is_printed_and_that_of_its_calls_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = TextStream(lambda: None, lambda: None)
    question = Question(text="?")
    stream(RunStarted(question=question, strategy="fusion", models={"main": "m"}, seed=1))
    stream(call(1))
    stream(delta("a draft"))
    stream(call(2))
    stream(delta("the synthesis", parent=2))
    for start, text in ((0, "It is"), (5, " so.")):
        stream(TextDelta(parent=3, request=0, sample=0, text=text, tokens=0, answer_start=start))
    assert stream.printed == capsys.readouterr().out == "It is so."
