"""Blocks of a chain of thought: on the live view's line."""

from __future__ import annotations

import io

import pytest
from pydantic import JsonValue
from reason.cli.render.live import MAX_CHAINS, LiveView
from reason.cli.render.run_progress import Progress
from reason.core.events import Event, RunStarted, StrategyNote
from reason.core.types import Question
from rich.console import Console

STARTED = RunStarted(number=1, question=Question(text="?"), strategy="rlot", models={"main": "m"}, seed=1)


def ran(letter: JsonValue, vote: JsonValue = 0, number: int = 2) -> StrategyNote:
    data: dict[str, JsonValue] = {"block": "reason", "letter": letter, "state": [3, 2, 0], "q": None, "vote": vote}
    return StrategyNote(number=number, strategy="rlot", name="block.run", data=data)


def picture(*events: Event) -> str:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    shown: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_the_blocks_of_each_attempt_are_counted() -> None:
    progress = Progress()
    for event in (ran("R"), ran("D", 1), ran("Rf"), ran(None), ran("Db", "x")):
        progress.take(event)
    assert progress.chains == {0: ["R", "Rf"], 1: ["D"]}


def test_the_live_view_shows_them_in_a_line() -> None:
    assert "blocks" not in picture(STARTED)
    assert "blocks R Rf | D" in picture(STARTED, ran("D", 1), ran("R"), ran("Rf"))
    many = picture(STARTED, *(ran("R", vote) for vote in range(MAX_CHAINS + 3)))
    assert " | ".join(["R"] * MAX_CHAINS + ["…"]) in many


def test_so_do_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(ran("R"))
        now[0] = 20.0
        view(ran("\x1b[31mGa"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("20 s: starting, samples 0/0, 0 tokens; blocks R ")
    assert "\x1b" not in line
