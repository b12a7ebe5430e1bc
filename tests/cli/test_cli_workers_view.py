"""Workers' texts side by side on the live view, and in plain lines."""

from __future__ import annotations

import io

import pytest
from pydantic import JsonValue
from reason.cli.render.live import MIN_WORKER_LINES, LiveView
from reason.cli.render.text_stream import TextStream
from reason.core.events import BudgetCharged, CallStarted, Event, RunStarted, StrategyNote, TextDelta
from reason.core.types import Question
from rich.console import Console

STARTED = RunStarted(number=1, question=Question(text="?"), strategy="hogwild", models={"main": "m"}, seed=1)
CALL = CallStarted(number=2, role="main", model="m", operation="workers", requests=2, samples=2, replayed=0)


def note(name: str, **data: JsonValue) -> StrategyNote:
    return StrategyNote(number=3, strategy="hogwild", name=f"workers.{name}", data=data)


def says(worker: int, text: str) -> TextDelta:
    return TextDelta(number=4, parent=2, request=worker, sample=0, text=text, tokens=1)


BEGUN = (STARTED, note("begin", names=["Ada", "Ben"], writing=["**Ada, step 1:** ", "**Ben, step 1:** "]), CALL)


def picture(*events: Event, width: int = 80, height: int = 24) -> list[str]:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    file = io.StringIO()
    # The spinner turns by the console's clock.
    Console(file=file, width=width, height=height, force_terminal=False, get_time=lambda: 0.0).print(view.render())
    return [line.rstrip() for line in file.getvalue().splitlines()]


def columns(lines: list[str], width: int = 80) -> tuple[list[str], list[str]]:
    """What stands on the left and on the right below the names."""
    head = next(i for i, line in enumerate(lines) if line.startswith("Ada"))
    half = (width + 2) // 2
    return [line[:half].rstrip() for line in lines[head:]], [line[half:].rstrip() for line in lines[head:]]


def test_texts_grow_side_by_side() -> None:
    left, right = columns(picture(*BEGUN, says(0, "I "), says(1, "You add."), says(0, "add.")))
    assert (left[0], right[0]) == ("Ada", "Ben")
    assert (left[1], right[1]) == ("**Ada, step 1:** I add.", "**Ben, step 1:** You add.")


def test_texts_go_on_behind_what_is_booked() -> None:
    booked = BudgetCharged(
        number=5, parent=2, role="main", model="m", tokens=2, calls=1, total_tokens=2, total_calls=1, total_usd=0.0
    )
    lines = picture(*BEGUN, says(0, "I "), says(1, "You"), booked, says(0, "add."), says(1, " look."))
    left, right = columns(lines)
    assert (left[1], right[1]) == ("**Ada, step 1:** I add.", "**Ben, step 1:** You look.")
    assert any("workers" in line and "4 tokens" in line for line in lines)


def test_finished_steps_stay_and_what_is_asked_is_shown() -> None:
    step = note("step", worker=0, number=1, text="**Ada, step 1:** I add.", next="**Ada, step 2:** ")
    asked = note("asked", worker=0, text="Twice? ")
    left, _ = columns(picture(*BEGUN, says(0, "I add."), says(0, "\n\n"), step, asked, says(0, "no")))
    assert left[1:3] == ["**Ada, step 1:** I add.", "**Ada, step 2:** Twice? no"]


def test_long_texts_show_their_end_and_no_control_characters() -> None:
    long = " ".join(f"word{i}" for i in range(400)) + "\x1b[2J"
    lines = picture(*BEGUN, says(0, long), height=12)
    left, right = columns(lines)
    assert "word399" in left[-1] + left[-2]
    assert "word0 " not in "".join(left)
    assert len(left) == 1 + max(MIN_WORKER_LINES, 6)
    assert "\x1b" not in "".join(lines)
    assert right[1] == "**Ben, step 1:**"


def test_a_narrow_terminal_shows_as_many_as_fit() -> None:
    names = [f"W{i}" for i in range(8)]
    lines = picture(STARTED, note("begin", names=names, writing=[f"{n} text" for n in names]), width=80)
    assert "W2 text" in "\n".join(lines)
    assert "W3 text" not in "\n".join(lines)
    assert lines[-1] == "… 5 more"


@pytest.mark.parametrize(
    "broken",
    [note("begin", names="Ada", writing=[]), note("step", worker=9, text="x"), note("step", worker="a"), note("asked")],
)
def test_notes_that_do_not_fit_change_nothing(broken: StrategyNote) -> None:
    assert picture(*BEGUN, broken) == picture(*BEGUN)


def test_plain_lines_count_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        for event in BEGUN:
            view(event)
        now[0] = 20.0
        view(note("step", worker=1, number=1, text="x", next=""))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("0 tokens; Ada 0 steps, Ben 1 step")


def test_what_ends_a_transcript_is_not_streamed_as_the_answer() -> None:
    stream = TextStream(lambda: None, lambda: None)
    after = CALL.model_copy(update={"number": 9, "operation": "generate", "samples": 1})
    for event in (*BEGUN, after, says(0, "4}").model_copy(update={"parent": 9})):
        stream(event)
    assert stream.printed == ""
