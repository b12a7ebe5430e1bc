"""Steps that two models write: on the live view's line, and on plain lines."""

from __future__ import annotations

import io
import re

import pytest
from reason.cli.render.live import MAX_WRITERS, LiveView
from reason.cli.render.run_progress import Progress
from reason.core.events import EVENT_ADAPTER, Event, RunStarted, StepRouted
from reason.core.types import Question
from rich.console import Console

STARTED = RunStarted(number=1, question=Question(text="?"), strategy="glimprouter", models={"main": "m"}, seed=1)


def wrote(index: int, role: str = "small", **how: object) -> StepRouted:
    return StepRouted.model_validate(
        {
            "number": index + 2,
            "index": index,
            "role": role,
            "model": f"the-{role}",
            "tokens": 45,
            "why": "entropy",
            **how,
        }
    )


def picture(*events: Event) -> str:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    screen = Console(file=io.StringIO(), width=120, force_terminal=False)
    screen.print(view.render())
    shown: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_the_writers_are_counted_and_a_chain_begun_anew_is_counted_anew() -> None:
    progress = Progress()
    for event in (wrote(0), wrote(1, "main"), wrote(2)):
        progress.take(event)
    assert progress.writers == ["S", "L", "S"]
    progress.take(wrote(0, "main"))
    assert progress.writers == ["L"]


def test_the_live_view_shows_them_in_a_line() -> None:
    assert "steps" not in picture(STARTED)
    few = picture(STARTED, wrote(0), wrote(1, "main"), wrote(2))
    assert re.search("steps 3, 1 by the large model +SLS *$", few, re.MULTILINE)
    many = picture(STARTED, *(wrote(i) for i in range(MAX_WRITERS + 3)))
    assert re.search(f"steps {MAX_WRITERS + 3}, 0 by the large model +…S{{{MAX_WRITERS}}} *$", many, re.MULTILINE)


def test_so_do_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(wrote(0, "main"))
        now[0] = 20.0
        view(wrote(1))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "20 s: starting, samples 0/0, 0 tokens; steps 2, 1 by the large model: LS"


def test_the_event_survives_its_json() -> None:
    event = wrote(3, entropy=0.5, threshold=1.0, kind="top_k")
    assert EVENT_ADAPTER.validate_json(event.model_dump_json()) == event
