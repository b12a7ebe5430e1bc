"""The key that asks for the answer now, at any time."""

from __future__ import annotations

import asyncio

import pytest
from reason.cli.terminal_run import RunRecorder
from reason.core.events import RunStarted
from reason.core.types import Question


@pytest.mark.parametrize("wants_answer", [False, True])
async def test_wish_before_the_run_starts_reaches_it_when_it_does(wants_answer: bool) -> None:
    wished: list[str] = []
    recorder = RunRecorder()
    recorder.on_start = wished.append if wants_answer else None
    recorder(RunStarted(run_id="r", question=Question(text="?"), strategy="cot", models={}, seed=1, resumed=False))
    assert wished == []  # other sinks are still to get the event
    await asyncio.sleep(0)
    assert wished == (["r"] if wants_answer else [])
