"""Where a search stands, in the live view and in its plain lines."""

from __future__ import annotations

import io

import pytest
from reason.cli.render.live import LiveView
from reason.cli.render.run_progress import Progress
from reason.core.events import Event, NodesSearched, RunStarted, SearchEnded, SearchNode, StageStarted
from reason.core.types import Question
from rich.console import Console
from support.step_search_events import search_events


def after(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress.take(event)
    return progress


def lines(progress: Progress) -> list[str]:
    return [search.line(name) for name, search in progress.searches.items()]


def test_a_search_grows() -> None:
    events = search_events()
    assert lines(after(events[0])) == ["best-first: 1 expanded, 5 nodes, best 0.93"]
    assert lines(after(*events[:-1])) == ["best-first: 7 expanded, 24 nodes, 3 complete, best 0.95"]
    assert lines(after(*events)) == ["best-first: 7 expanded, 24 nodes, 3 complete, best 0.95, ended"]


def test_a_node_told_again_counts_once() -> None:
    root = SearchNode(id=0, parent=None, depth=0)
    told = NodesSearched(search="mcts", nodes=(root,), expanded=(0,))
    assert lines(after(told, told)) == ["mcts: 2 expanded, 1 node"]


def test_the_next_search_of_a_name_begins_anew_and_others_stay() -> None:
    first, end = search_events("a")[0], SearchEnded(search="a", stopped="budget")
    assert lines(after(first, end)) == ["a: 1 expanded, 5 nodes, best 0.93, ended: budget"]
    other = NodesSearched(search="b", expanded=(0, 1))
    progress = after(first, other, end, first)
    assert lines(progress) == ["b: 2 expanded, 0 nodes", "a: 1 expanded, 5 nodes, best 0.93"]


def test_the_view_has_a_line_a_search(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    now = [0.0]
    view = LiveView(clock=lambda: now[0])
    view(RunStarted(question=Question(text="?"), strategy="astar", models={"main": "m"}, seed=1))
    view(StageStarted(stage="solve"))
    now[0] = 20.0
    for event in [*search_events("[b]a\x1b[2J"), *search_events("c", ended=False)]:
        view(event)
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    assert isinstance(screen.file, io.StringIO)
    shown = [line.rstrip() for line in screen.file.getvalue().splitlines()]
    assert shown[1:3] == [
        "   search [b]a[2J: 7 expanded, 24 nodes, 3 complete, best 0.95, ended",
        "   search c: 7 expanded, 24 nodes, 3 complete, best 0.95",
    ]
    assert shown[4].startswith("   score  ")  # the tree of the last one
    said = capsys.readouterr().err.splitlines()
    assert said == ["20 s: solve, samples 0/0, 0 tokens; [b]a[2J: 1 expanded, 5 nodes, best 0.93"]
    view.close()
