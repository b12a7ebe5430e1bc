"""Search trees on the terminal: lines, hidden nodes, layout, notes; `reason runs show --tree` and `--trace`."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.cli.render.search_tree import (
    NodeNotes,
    count_hidden,
    format_number,
    layout_tree,
    print_searches,
    search_notes,
    select_nodes,
    source_of,
)
from reason.core.events import AssociatedItem, Event, NodesSearched, RunFinished, RunStarted, SearchEnded, SearchNode
from reason.core.run import RunConfig
from reason.core.search_tree import SearchTree, search_trees
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from rich.console import Console
from support.html_page import carried
from support.mcts_events import NOTES, noted_events
from support.scripted_model import ScriptedModel
from support.search_tree_strategies import grown_trees, tree_of
from support.step_search_events import ferry_run, search_events


def printed(trees: list[SearchTree], *, most: int | None = 60, width: int = 110, colour: bool = False) -> list[str]:
    file = io.StringIO()
    colours = "256" if colour else None
    print_searches(trees, Console(file=file, width=width, force_terminal=colour, color_system=colours), most)
    return file.getvalue().splitlines()


def rows(lines: list[str]) -> list[str]:
    """The lines of nodes."""
    return [line for line in lines if any(mark in line for mark in "○●■◆") and "chosen path" not in line]


def test_a_search_is_drawn() -> None:
    lines = printed(search_trees(search_events()))
    assert lines[0] == "search 1: best-first"
    assert lines[1] == "stopped: done, 24 nodes, 3 complete, 7 expanded, 5 discarded, gen tokens 621, prm passes 23"
    assert lines[3].split() == ["step", "score", "f", "g", "h", "turn", "tokens"]
    rendered = rows(lines)
    assert len(rendered) == 24
    assert rendered[0] == "✓    0      -      -      -      -    #1       -  ● start"
    assert rendered[1] == (
        "     1   0.88  0.120      0  0.120    #4      16  ├─● Before noon the ferry carries 7 * 18 = 126 cars."
    )
    assert (
        rendered[2] == "     2   0.15  1.580  0.730  0.850     -      15  │ ├─○ After noon it carries 5 * 18 = 80 cars."
    )
    assert rendered[-1] == (
        "✓    4   0.95  0.120  0.070  0.050     -      25  ■ 212 cars at 6 euros make 212 * 6 = 1272 euros. The answer…"
    )
    marked = [line for line in rendered if line.startswith("✓")]
    assert [line.split()[1] for line in marked] == ["0", "1", "2", "3", "4"]  # the chosen path, without any colour
    assert "hidden" not in "".join(lines)
    assert all(len(line) <= 110 for line in lines)


def test_colours_repeat_the_symbols() -> None:
    trees = search_trees(search_events())
    coloured = printed(trees, colour=True)
    assert any("\x1b[" in line for line in coloured)
    plain = "\n".join(printed(trees))
    from rich.text import Text

    assert Text.from_ansi("\n".join(coloured)).plain == plain


def test_nodes_far_from_the_chosen_path_are_hidden_first() -> None:
    lines = printed(search_trees(search_events()), most=3)
    rendered = rows(lines)
    assert len(rendered) == 5 + 3
    assert "16 nodes hidden (+n: hidden below that node); --all shows them" in lines
    # of the path's neighbours the best three, each with what was found below it
    assert [line.split("├─")[1][:24] for line in rendered if "├─" in line] == [
        "● +6 Before noon the fer",
        "● +3 The last crossing c",
        "○ Each car pays 6 euros,",
    ]
    assert rendered[0].endswith("● +2 start")
    assert len(rows(printed(search_trees(search_events()), most=0))) == 5
    assert len(rows(printed(search_trees(search_events()), most=None))) == 24


def test_hidden_trees_are_counted() -> None:
    lines = printed([tree_of([None, 0, None, 2, 2, None], chosen=1, score=0.5)], most=0)
    assert "4 nodes hidden (+n: hidden below that node, 4 under hidden roots); --all shows them" in lines
    assert len(rows(lines)) == 2


def test_marks() -> None:
    nodes = (
        SearchNode(id=0, parent=None, depth=0),
        SearchNode(id=1, parent=0, depth=1, text="open"),
        SearchNode(id=2, parent=0, depth=1, text="complete", terminal=True, score=1.0),
        SearchNode(id=3, parent=0, depth=1, text="asked for", terminal=True, forced=True, score=0.1),
        SearchNode(id=4, parent=9, depth=4, text="lost"),
        SearchNode(id=5, parent=0, depth=1, text=" \n"),
    )
    events = [NodesSearched(search="m", nodes=nodes, expanded=(0, 0, 7)), SearchEnded(search="m", chosen=None)]
    lines = printed(search_trees(events))
    for line in (
        "     0      -  #1 x2       -  ● start",
        "     1      -      -       -  ├─○ open",
        "     1   1.00      -       -  ├─■ complete",
        "     1   0.10      -       -  ├─◆ asked for",
        "     1      -      -       -  ○ [white space only]",
        "     0      -      -       -  ○ [continues node 9, which was not reported] lost",
    ):
        assert line in lines
    assert "no node was chosen" in lines[1]
    assert not [line for line in lines if line.startswith("✓") and "chosen path" not in line]


def test_searches_are_printed_in_order_including_empty_ones() -> None:
    trees = search_trees(
        [*search_events("a"), *search_events("b", ended=False), SearchEnded(search="c", stopped="budget", chosen=4)]
    )
    lines = printed(trees)
    heads = [line for line in lines if line.startswith("search ")]
    assert heads == ["search 1: a", "search 2: b", "search 3: c"]
    assert lines[lines.index("search 2: b") + 1].startswith("not ended, 24 nodes")
    facts, what = lines[lines.index("search 3: c") + 1 :][:2]
    assert facts == "stopped: budget, 0 nodes, 0 complete, 0 expanded, the chosen node 4 was not reported"
    assert what == "no nodes were reported"


def test_values_have_columns_that_are_dropped_for_the_text() -> None:
    values = {"visits": 12.0, "mean_reward_of_all_rollouts": 0.5, "ucb": math.inf, "prior": math.nan, "fifth": 1e-7}
    nodes = (
        SearchNode(id=0, parent=None, depth=0, values={"visits": 13}),
        SearchNode(id=1, parent=0, depth=1, text="x" * 300, values=values),
    )
    trees = search_trees([NodesSearched(search="mcts", nodes=nodes)])
    lines = printed(trees, width=120)
    assert lines[3].split() == ["step", "score", "visits", "mean_reward…", "ucb", "prior", "turn", "tokens"]
    assert rows(lines)[1].split()[:8] == ["1", "-", "12", "0.500", "inf", "nan", "-", "-"]
    narrow = printed(trees, width=60)
    assert narrow[3].split() == ["step", "score", "turn"]
    assert all(len(line) <= 60 for line in rows(narrow))
    assert rows(narrow)[1].count("x") >= 30


def test_model_text_contains_no_control_characters() -> None:
    evil = "[bold]a[/bold]\x1b[2J\r\n\u2028b\x00\x9b31m"
    nodes = (SearchNode(id=0, parent=None, depth=0, text=evil, values={f"v\x1b{evil}": 1.0}),)
    out = "\n".join(printed(search_trees([NodesSearched(search=evil, nodes=nodes)])))
    assert not set(out) & set("\x1b\r\x00\x9b\u2028")
    assert "○ [bold]a[/bold][2J b31m" in out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (12.0, "12"),
        (1234567.0, "1,234,567"),
        (0.12345, "0.123"),
        (-12.345, "-12.35"),
        (1234.56, "1,234.6"),
        (1e-5, "1.0e-05"),
        (1e12, "1.0e+12"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_number_formats(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


@given(grown_trees(), st.none() | st.integers(0, 45))
def test_layout_contains_every_node_below_its_parent(tree: SearchTree, most: int | None) -> None:
    shown = select_nodes(tree, most)
    assert set(tree.chosen_path) <= shown
    assert len(shown) == min(len(tree.nodes), len(tree.chosen_path) + (len(tree.nodes) if most is None else most))
    lines = list(layout_tree(tree, shown))
    assert sorted(line.node_id for line in lines) == sorted(shown)
    columns: list[int] = []  # the node that is last in each column
    for line in lines:
        column = len(line.indent) // 2 + line.branches
        assert line.indent == "│ " * (len(line.indent) // 2)
        if line.level == 0:
            assert column == 0
            parent = None
        else:
            parent = columns[column - 1] if line.branches else columns[column]
        assert tree.parents[line.node_id] == parent
        columns[column:] = [line.node_id]
        assert column <= math.log2(len(shown)) + 1
    left_out = count_hidden(tree, shown)
    hidden_roots = [root for root in tree.roots if root not in shown]
    below_roots = sum(left_out[root] + 1 for root in hidden_roots)
    assert sum(left_out[i] for i in shown) + below_roots == len(tree.nodes) - len(shown)


def test_deep_chain_stays_in_one_column() -> None:
    tree = tree_of([None, *range(4999)], chosen=4999)
    lines = printed([tree], most=60)
    assert len(rows(lines)) == 5000
    assert all(line.startswith("✓") for line in rows(lines))
    assert {line.index("○") for line in rows(lines)} == {rows(lines)[0].index("○")}


EVIL = "</script></title></svg><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\"`&lt;\u2028]]>"


def notes_of(*events: Event) -> list[NodeNotes]:
    return search_notes(events, search_trees(events))


def begun() -> RunStarted:
    return RunStarted(question=Question(text="?"), strategy="coat", models={}, seed=1)


def test_each_search_has_its_own_notes() -> None:
    other = (AssociatedItem(text="other"),)
    assert notes_of(*noted_events()) == [{1: NOTES}]
    assert notes_of(*search_events()) == [{}]
    follow = [*noted_events(), *search_events(), *noted_events(notes=other)]
    assert notes_of(*follow) == [{1: NOTES}, {}, {1: other}]
    first, second = noted_events("a"), noted_events("b", notes=other)
    overlap = [event for pair in zip(first, second, strict=True) for event in pair]
    assert notes_of(*overlap) == [{1: NOTES}, {1: other}]


def test_resumed_run_repeats_its_notes() -> None:
    other = (AssociatedItem(text="other"),)
    interrupted = noted_events()[:4]
    assert notes_of(begun(), *interrupted, begun(), *noted_events(notes=other)) == [{1: other}]
    # what was not reported again stays as it was
    assert notes_of(begun(), *interrupted, begun(), *noted_events(notes=other)[:2]) == [{1: NOTES}]


def test_notes_of_a_node_are_in_order_and_need_a_tree() -> None:
    events = noted_events()
    assert notes_of(events[1], *events) == [{1: NOTES + NOTES}]
    assert notes_of(*events[:3]) == []


@pytest.mark.parametrize(
    ("item", "source"),
    [
        (AssociatedItem(text="x"), "the model itself"),
        (AssociatedItem(text="x", source_id="a.md:1-2", source_kind="folder"), "a.md:1-2"),
        (AssociatedItem(text="x", source_kind="http"), "http"),
    ],
)
def test_note_sources(item: AssociatedItem, source: str) -> None:
    assert source_of(item) == source


def printed_with_notes(events: list[Event], width: int) -> list[str]:
    file = io.StringIO()
    trees = search_trees(events)
    print_searches(trees, Console(file=file, width=width), 60, search_notes(events, trees))
    return file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "source"), [(40, "[a.md:1…]"), (60, "[a.md:1-2]"), (160, "[a.md:1-2]")])
def test_notes_are_truncated_and_keep_their_sources(width: int, source: str) -> None:
    notes = (
        AssociatedItem(text="n" * 300, source_id="a.md:1-2", source_kind="folder"),
        AssociatedItem(text="m\n\x1b[2J" + "m" * 300, source_id="s" * 300, source_kind="folder"),
    )
    lines = printed_with_notes(noted_events(notes=notes), width)
    (first,) = [line for line in lines if "nnn" in line]
    (second,) = [line for line in lines if "mmm" in line]
    assert first.endswith(f"n… {source}")
    assert second.endswith("s…]")
    assert "+ m [2Jmm" in second
    assert {len(first), len(second)} == {width}
    assert not [line for line in printed_with_notes([*search_events()], width) if line.endswith("+ note")]


Cli = Callable[..., tuple[int, str, str]]
Scripted = Callable[..., ScriptedModel]


@pytest.fixture
def ferry(home: Path) -> str:
    """Name of a stored run that has searched."""

    async def write() -> str:
        events = ferry_run()
        started, ended = events[0], events[-1]
        assert isinstance(started, RunStarted)
        assert isinstance(ended, RunFinished)
        config = RunConfig(
            question=started.question, strategy="astar", parameters={}, models=started.models, seed=started.seed
        )
        store = await SqliteStore.open(load_settings().store)
        await store.create_run(started.run_id, config.model_dump(mode="json"))
        await store.add_events(started.run_id, events)
        await store.end_run(started.run_id, "finished", answer=ended.answer.model_dump(mode="json"))
        await store.aclose()
        return started.run_id

    return asyncio.run(write())


def test_the_tree_of_a_stored_run(cli: Cli, ferry: str) -> None:
    status, out, err = cli("runs", "show", ferry[:-2], "--tree")
    assert (status, err) == (0, "")
    assert out.startswith("search 1: best-first\nstopped: done, 24 nodes")
    assert sum(line.startswith("✓ ") for line in out.splitlines()) == 5 + 1  # and the legend
    assert "\x1b" not in out
    assert "hidden" not in out
    few = cli("runs", "show", ferry, "--tree", "--max-nodes", "2")[1]
    assert "17 nodes hidden" in few
    assert cli("runs", "show", ferry, "--tree", "--max-nodes", "2", "--all")[1] == out


def test_the_tree_as_json(cli: Cli, ferry: str) -> None:
    status, out, err = cli("runs", "show", ferry, "--tree", "--json", "--max-nodes", "0")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert data["run"] == ferry
    (search,) = data["searches"]
    assert set(search) == {
        *("search", "number", "stopped", "chosen", "chosen_path", "expanded", "discarded", "cost", "nodes", "notes"),
    }
    assert search["chosen_path"] == [0, 1, 5, 10, 21]
    assert [SearchNode.model_validate(node).id for node in search["nodes"]] == list(range(24))
    assert search["nodes"][21]["text"].endswith("The answer is 1272.")
    assert search["notes"] == {}


def test_infinite_values_are_json_too(cli: Cli, ferry: str) -> None:
    async def add() -> None:
        store = await SqliteStore.open(load_settings().store)
        node = SearchNode(id=0, parent=None, depth=0, values={"ucb": float("inf")})
        await store.claim_run(ferry)
        await store.add_events(ferry, [NodesSearched(number=900, search="mcts", nodes=(node,))])
        await store.aclose()

    asyncio.run(add())
    data = json.loads(
        cli("runs", "show", ferry, "--tree", "--json")[1], parse_constant=lambda _: pytest.fail("no JSON")
    )
    assert [s["search"] for s in data["searches"]] == ["best-first", "mcts"]
    assert SearchNode.model_validate(data["searches"][1]["nodes"][0]).values == {"ucb": float("inf")}


def test_tree_of_a_run_without_a_search_is_refused(cli: Cli, scripted: Scripted) -> None:
    scripted()
    run = json.loads(cli("ask", "What is 6 * 7?", "--json")[1])["run_id"]
    for flags in ([], ["--json"]):
        status, out, err = cli("runs", "show", run, "--tree", *flags)
        assert (status, out == "") == (2, not flags)
        assert f"the run {run} has no search tree: its strategy is cot" in err


def test_the_page_of_a_stored_run_has_its_tree(cli: Cli, ferry: str, home: Path) -> None:
    assert cli("runs", "show", ferry, "--trace", "page.html") == (0, "", "")
    page = (home / "work" / "page.html").read_text(encoding="utf-8")
    carries = carried(page)
    assert carries["status"] == "finished"
    nodes = {n["id"] for e in carries["events"] if e["type"] == "search.nodes" for n in e["nodes"]}
    assert nodes == set(range(24))
    assert "script-src 'sha256-" in page
    status, out, err = cli("runs", "show", ferry, "--tree", "--trace", "again.html")
    assert (status, err) == (0, "")
    assert out.startswith("search 1")
    assert (home / "work" / "again.html").read_text(encoding="utf-8") == page
