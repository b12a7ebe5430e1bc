"""The tree in the live view: its lines, truncation, caching, and the screen at the end."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reason.cli.render.growing_tree import GrowingTree
from reason.cli.render.live import LiveView
from reason.cli.render.live_tree import LiveTree
from reason.cli.render.run_progress import Progress
from reason.core.events import AssociatedItem, Event, MemoryAssociated, NodesSearched, RunStarted, SearchNode
from reason.core.types import Question
from rich.console import Console
from support.mcts_events import noted_events
from support.step_search_events import QUESTION, search_events
from support.terminal_screen import Screen


def after(*events: Event) -> Progress:
    progress = Progress()
    for event in (RunStarted(question=Question(text=QUESTION), strategy="s", models={}, seed=1), *events):
        progress.take(event)
    return progress


def drawn(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, height=height).print(LiveTree(progress))
    return file.getvalue().splitlines()


def test_the_tree_of_thoughts_grows() -> None:
    events = noted_events()
    assert drawn(after(*events[:3])) == []  # no node of it was told
    assert drawn(after(*events[:4])) == [
        "",
        "   score     V     N  ▸ expanded last   ★ best so far",
        "▸      -  0.55     2  ● start",
        "    0.30  0.30     1  ├─○ Ida Holm was a painter.",
        " ★  0.80  0.80     1  ○ Ida Holm was born in Ekeby.  +2 notes",
    ]
    assert drawn(after(*events[:6])) == [
        "",
        "   score     V     N  ▸ expanded last   ★ best so far",
        "       -  0.62     4  ● start",
        "    0.30  0.30     1  ├─○ Ida Holm was a painter.",
        "▸   0.80  0.73     3  ● Ida Holm was born in Ekeby.  +2 notes",
        "    0.50  0.50     1  ├─○ Ekeby lies on a lake.",
        " ★  0.90  0.90     1  ■ 1412 · The castle above Ekeby was built in 1412 [1]. Th…",
    ]
    assert drawn(after(*events))[1:] == [
        "   score     V     N  ✓ chosen",
        "       -  0.62     4  ● start",
        "    0.30  0.30     1  ├─○ Ida Holm was a painter.",
        "    0.80  0.73     3  ● Ida Holm was born in Ekeby.  +2 notes",
        "    0.50  0.50     1  ├─○ Ekeby lies on a lake.",
        " ✓  0.90  0.90     1  ■ 1412 · The castle above Ekeby was built in 1412 [1]. Th…",
    ]


def test_without_statistics_only_the_score_is_shown() -> None:
    assert drawn(after(*search_events(ended=False)), height=22) == [
        "",
        "   score  ▸ expanded last   ★ best so far",
        "       -  ● +9 start",
        "    0.93  ● +5 First, count the crossings: 7 before noon and 5 after noon make …",
        "    0.91  ● +1 With 18 cars each time, that would be 12 * 18 = 216 cars.",
        "    0.12  ├─○ On the last crossing 4 places stay empty, so 216 + 4 = 220 cars p…",
        "    0.41  ├─○ Each car pays 6 euros, so the ferry takes 216 * 6 = 1296 euros.",
        "▸   0.86  ● The last crossing has 4 empty places, so 216 - 4 = 212 cars pay.",
        "    0.16  ├─■ 1262 · 212 * 6 = 1262. The answer is 1262.",
        "    0.05  ├─○ Each car pays 6 euros: 212 / 6 is about 35 euros.",
        " ★  0.95  ■ 1272 · 212 cars at 6 euros make 212 * 6 = 1272 euros. The answer is…",
        "          … 15 more",
    ]


@pytest.mark.parametrize(("height", "lines"), [(1, 9), (16, 9), (24, 13), (40, 21), (54, 26)])
def test_tree_takes_half_of_the_terminal_but_at_least_nine_lines(height: int, lines: int) -> None:
    assert len(drawn(after(*search_events()), height=height)) == lines  # with the blank line above


def test_gap_shows_its_number_of_steps() -> None:
    nodes = [SearchNode(id=i, parent=i - 1 if i else None, depth=i, text=f"step {i}", score=0.5) for i in range(30)]
    best = nodes[29].model_copy(update={"score": 0.75})
    lines = drawn(after(NodesSearched(search="s", nodes=(*nodes[:29], best), expanded=(28,))), height=1)
    assert lines[2:] == [
        "    0.50  ○ step 0",
        "    0.50  ○ step 1",
        "    0.50  ○ step 2",
        "          … 25 steps",
        "▸   0.50  ● step 28",
        " ★  0.75  ○ step 29",
        "          … 25 more",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = SearchNode(id=9, parent=1, depth=2, text="漢字" * 200, score=0.99, values={"V": 0.5, "N": 1e6})
    notes = MemoryAssociated(search="mcts", node=9, items=(AssociatedItem(text="x"),) * 12)
    progress = after(*noted_events()[:-1], notes, NodesSearched(search="mcts", nodes=(wide,)))
    lines = drawn(progress, width=width)
    assert len(lines) == 2 + 6
    assert all(len(line) + sum(ord(c) > 0x3000 for c in line) <= width for line in lines)
    assert sum("+2 note" in line for line in lines) == sum("+12 note" in line for line in lines) == 1


def test_value_columns_are_dropped_for_the_text() -> None:
    heads = [drawn(after(*noted_events()), width=width)[1] for width in (60, 56, 50)]
    assert heads == ["   score     V     N  ✓ chosen", "   score     V  ✓ chosen", "   score  ✓ chosen"]


def test_model_text_contains_no_control_characters() -> None:
    evil = "[bold]a[/bold]\x1b[2J\r\n\x00\x9b31m The answer is \x1b[31m7\x07."
    nodes = (
        SearchNode(id=0, parent=None, depth=0),
        SearchNode(id=1, parent=0, depth=1, text=evil, score=0.5, terminal=True),
    )
    lines = drawn(after(NodesSearched(search=evil, nodes=nodes)))
    assert not set("".join(lines)) & set("\x1b\r\x00\x07\x9b")
    assert "[bold]a[/bold][2J 31m The answer is [31m7." in lines[-1]


def test_complete_solution_without_an_answer_shows_its_text() -> None:
    nodes = (SearchNode(id=0, parent=None, depth=0), SearchNode(id=1, parent=0, depth=1, terminal=True, forced=True))
    assert drawn(after(NodesSearched(search="s", nodes=nodes)))[-1] == "       -  ◆ [white space only]"
    long = SearchNode(id=1, parent=0, depth=1, terminal=True, text=f"The answer is \\boxed{{{'x' * 50}}}.")
    assert f"■ {'x' * 23}… · The answer" in drawn(after(NodesSearched(search="s", nodes=(nodes[0], long))))[-1]


def test_most_recent_search_is_drawn() -> None:
    progress = after(*search_events("a", ended=False), *noted_events("b")[:4])
    assert len(drawn(progress)) == 5
    progress.take(search_events("a", ended=False)[-1])
    assert len(drawn(progress, height=60)) == 2 + 24
    progress.take(noted_events("c")[0])
    assert drawn(progress) == []


def test_tree_is_redrawn_only_when_it_or_the_terminal_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []
    excerpt = GrowingTree.excerpt

    def counted(self: GrowingTree, room: int) -> Any:
        rooms.append(room)
        return excerpt(self, room)

    monkeypatch.setattr(GrowingTree, "excerpt", counted)
    events = noted_events()
    progress = after(*events[:4])
    tree = LiveTree(progress)
    console = Console(file=io.StringIO(), width=80, height=24)
    for _ in range(5):
        console.print(tree)
    assert rooms == [10]
    progress.take(events[4])
    for _ in range(5):
        console.print(tree)
    assert rooms == [10, 10]
    Console(file=io.StringIO(), width=80, height=40).print(tree)
    assert rooms == [10, 10, 18]


def test_answer_is_extracted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from reason.reasoning.answers import extraction as answers

    read: list[str] = []
    extract = answers.extract_answer

    def counted(text: str, question: Question) -> Any:
        read.append(text)
        return extract(text, question)

    monkeypatch.setattr(answers, "extract_answer", counted)
    progress, events = Progress(), noted_events()
    tree = LiveTree(progress)
    progress.take(RunStarted(question=Question(text=QUESTION), strategy="s", models={}, seed=1))
    for event in events:
        progress.take(event)
        Console(file=io.StringIO(), width=80, height=24).print(tree)
    assert len(read) == 1


def test_plain_lines_omit_a_search_without_events(capsys: pytest.CaptureFixture[str]) -> None:
    now = [20.0]
    view = LiveView(clock=lambda: now[0])
    now[0] = 40.0
    for event in noted_events()[:4]:
        view(event)
        now[0] += 1000
    message = [line.partition("tokens")[2] for line in capsys.readouterr().err.splitlines()]
    assert message == ["", "", "", "; mcts: 1 expanded, 3 nodes, best 0.80"]


RUN = """
import asyncio, contextlib, sys
sys.path[:0] = [{tests!r}]
from support.mcts_events import noted_answer, noted_run
from reason.cli.terminal_run import Output, answer_in_terminal
from reason.core.events import CallStarted, RunFinished, TextDelta
from reason.core.settings import load_settings

async def work(reasoner, sinks, stream_text):
    for event in noted_run():
        if isinstance(event, RunFinished):
            await asyncio.to_thread(sys.stdin.readline)  # until the tree was seen
        for sink in sinks:
            sink(event)
        if event.number == 2:  # a single sample, as with k=1: a thought, and no answer
            of = dict(role="main", model="m", operation="generate", requests=1, samples=1, replayed=0)
            for sink in sinks:
                sink(CallStarted(number=90, **of))
                sink(TextDelta(parent=90, request=0, sample=0, text="a thought", tokens=2))
    return noted_answer()

class Idle(contextlib.AsyncExitStack):
    settings = load_settings(model="local/tiny")

answer_in_terminal(lambda progress: Idle(), work, Output())
"""


@pytest.fixture
def terminal(home: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Our side of a terminal, and the process that runs on it."""
    ours, theirs = pty.openpty()
    how = termios.tcgetattr(theirs)
    how[3] &= ~termios.ECHO  # what is typed does not move the picture
    termios.tcsetattr(theirs, termios.TCSANOW, how)
    code = RUN.format(tests=str(Path(__file__).parents[1]))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", "LINES": "30", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    yield ours, child
    if child.poll() is None:
        child.kill()
    child.wait()
    os.close(ours)


def test_terminal_shows_the_tree_and_finally_only_the_answer(
    terminal: tuple[int, subprocess.Popen[bytes]],
) -> None:
    ours, child = terminal
    screen, seen = Screen(), False
    while True:
        try:
            received = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not received:
            break
        screen.show(received)
        if not seen and any("■ 1412 · The castle above Ekeby" in line for line in screen.lines):
            seen = True
            assert any(line.startswith(" ✓  0.90  0.90     1  ■ 1412") for line in screen.lines)
            assert any("● Ida Holm was born in Ekeby.  +2 notes" in line for line in screen.lines)
            assert not any("a thought" in line for line in screen.lines)
            os.write(ours, b"\n")
    assert child.wait() == 0
    assert seen
    lines = [line.rstrip() for line in screen.lines]
    assert lines[: lines.index("Sources") + 2] == [
        "Ida Holm was born in Ekeby.",
        "",
        "The castle above Ekeby was built in 1412 [1]. The answer is 1412.",
        "",
        "Sources",
        "[1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.",
    ]
    assert lines[lines.index("Sources") + 2].startswith("answer: 1412  confidence 0.90")
    assert not [line for line in lines[lines.index("Sources") + 3 :] if line]
