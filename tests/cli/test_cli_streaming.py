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

STARTED = {"question": Question(text="?"), "models": {"main": "m"}, "seed": 1}


def call(number: int, samples: int = 1, operation: str = "generate") -> CallStarted:
    return CallStarted(
        number=number, role="main", model="m", operation=operation, requests=1, samples=samples, replayed=0
    )


def delta(text: str, parent: int = 1) -> TextDelta:
    return TextDelta(parent=parent, request=0, sample=0, text=text, tokens=1)


@given(st.lists(st.text(alphabet="ab \n\t", max_size=4), max_size=12))
def test_printed_text_is_stripped(pieces):
    with pytest.MonkeyPatch.context() as patch:
        written = []
        patch.setattr(console, "write", written.append)
        stream = TextStream(lambda: None, lambda: None)
        stream(call(1))
        for piece in pieces:
            stream(delta(piece))
    assert stream.printed == "".join(pieces).strip() == "".join(written)


def test_screen_is_cleared_before_the_first_text(capsys):
    cleared = []
    stream = TextStream(lambda: cleared.append(capsys.readouterr().out), lambda: None)
    stream(call(1))
    stream(delta("\n"))
    assert cleared == []
    stream(delta("Paris"))
    stream(delta("."))
    assert cleared == [""]
    assert capsys.readouterr().out == "Paris."


@pytest.mark.parametrize(
    ("events", "printed"),
    [
        ([call(1, samples=8), delta("one of eight"), call(2), delta("a later call", parent=2)], ""),
        ([call(1, samples=3, operation="score"), call(2), delta("yes", parent=2)], "yes"),
        ([RunStarted(**STARTED, strategy="cot", may_be_repaired=True), call(1), delta("not verified")], ""),
        (
            [
                RunStarted(**STARTED, strategy="fusion"),
                call(1),
                delta("a draft"),
                call(2),
                delta("the synthesis", parent=2),
                *(
                    TextDelta(parent=3, request=0, sample=0, text=text, tokens=0, answer_start=start)
                    for start, text in ((0, "It is"), (5, " so."))
                ),
            ],
            "It is so.",
        ),
    ],
    ids=[
        "several samples are not printed",
        "scoring is no generation",
        "text that may be repaired",
        "text that the strategy releases",
    ],
)
def test_only_the_first_generation_or_released_text_is_printed(events, printed, capsys):
    stream = TextStream(lambda: None, lambda: None)
    for event in events:
        stream(event)
    assert stream.printed == capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("strategy", "printed"),
    [("cot", "once"), ("of-another-package", "once"), ("beam", "")],
)
def test_search_steps_are_not_streamed(strategy, printed, capsys):
    cleared = []
    stream = TextStream(lambda: cleared.append("cleared"), lambda: None)
    stream(RunStarted(question=Question(text="?"), strategy=strategy, models={}, seed=1))
    stream(call(1))
    stream(delta("once"))
    assert (capsys.readouterr().out, stream.printed) == (printed, printed)
    assert cleared == ["cleared"] * bool(printed)


def test_strategies_that_start_with_a_draft():
    from reason.reasoning.strategy import STRATEGIES

    own = {"astar", "beam", "coat", "particle-filter"}
    assert own <= {name for name in STRATEGIES.names() if starts_with_draft(name)}
    assert not [
        name for name in ("cot", "self-consistency", "best-of-n", "adaptive", "nobody") if starts_with_draft(name)
    ]


def test_closed_pipe_stops_the_run_once(monkeypatch):
    def broken(_text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(console, "write", broken)
    stopped = []
    stream = TextStream(lambda: None, lambda: stopped.append(1))
    stream(call(1))
    stream(delta("a"))
    stream(delta("b"))
    assert stopped == [1]
    assert stream.pipe_closed


def test_streamed_text_contains_no_control_characters(monkeypatch, capsys):
    text = "a\x1b[2Jb\x07c\td\r\ne\x9bf"
    console.write(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.write(text)
    assert capsys.readouterr().out == "a[2Jbc\td\nef"
