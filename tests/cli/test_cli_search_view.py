"""Search trees on the terminal: what each line says, what is left out, and that the layout_tree is the tree."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.cli.render.search_tree import layout_tree, format_number, count_hidden, select_nodes, print_searches
from reason.core.events import NodesSearched, SearchEnded, SearchNode
from reason.core.search_tree import SearchTree, search_trees
from rich.console import Console
from support.search_tree_strategies import grown_trees, tree_of
from support.step_search_events import search_events


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
    drawn = rows(lines)
    assert len(drawn) == 24
    assert drawn[0] == "✓    0      -      -      -      -    #1       -  ● start"
    assert drawn[1] == (
        "     1   0.88  0.120      0  0.120    #4      16  ├─● Before noon the ferry carries 7 * 18 = 126 cars."
    )
    assert drawn[2] == "     2   0.15  1.580  0.730  0.850     -      15  │ ├─○ After noon it carries 5 * 18 = 80 cars."
    assert drawn[-1] == (
        "✓    4   0.95  0.120  0.070  0.050     -      25  ■ 212 cars at 6 euros make 212 * 6 = 1272 euros. The answer…"
    )
    marked = [line for line in drawn if line.startswith("✓")]
    assert [line.split()[1] for line in marked] == ["0", "1", "2", "3", "4"]  # the chosen path, without any colour
    assert "left out" not in "".join(lines)
    assert all(len(line) <= 110 for line in lines)


def test_colour_says_nothing_that_the_marks_do_not() -> None:
    trees = search_trees(search_events())
    coloured = printed(trees, colour=True)
    assert any("\x1b[" in line for line in coloured)
    plain = "\n".join(printed(trees))
    from rich.text import Text

    assert Text.from_ansi("\n".join(coloured)).plain == plain


def test_what_is_far_from_the_chosen_path_is_left_out_first() -> None:
    lines = printed(search_trees(search_events()), most=3)
    drawn = rows(lines)
    assert len(drawn) == 5 + 3
    assert "16 nodes left out (+n: as many below that node); --all shows them" in lines
    # of the path's neighbours the best three, each with what was found below it
    assert [line.split("├─")[1][:24] for line in drawn if "├─" in line] == [
        "● +6 Before noon the fer",
        "● +3 The last crossing c",
        "○ Each car pays 6 euros,",
    ]
    assert drawn[0].endswith("● +2 start")
    assert len(rows(printed(search_trees(search_events()), most=0))) == 5
    assert len(rows(printed(search_trees(search_events()), most=None))) == 24


def test_whole_trees_that_are_left_out_are_counted() -> None:
    lines = printed([tree_of([None, 0, None, 2, 2, None], chosen=1, score=0.5)], most=0)
    assert "4 nodes left out (+n: as many below that node, 4 under starts that are left out); --all shows them" in lines
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
        "     1      -      -       -  ○ [nothing but white space]",
        "     0      -      -       -  ○ [continues node 9, which was not told] lost",
    ):
        assert line in lines
    assert "none was chosen" in lines[1]
    assert not [line for line in lines if line.startswith("✓") and "chosen path" not in line]


def test_searches_follow_each_other_and_an_empty_one_says_so() -> None:
    trees = search_trees(
        [*search_events("a"), *search_events("b", ended=False), SearchEnded(search="c", stopped="budget", chosen=4)]
    )
    lines = printed(trees)
    heads = [line for line in lines if line.startswith("search ")]
    assert heads == ["search 1: a", "search 2: b", "search 3: c"]
    assert lines[lines.index("search 2: b") + 1].startswith("not ended, 24 nodes")
    facts, what = lines[lines.index("search 3: c") + 1 :][:2]
    assert facts == "stopped: budget, 0 nodes, 0 complete, 0 expanded, the chosen node 4 was not told"
    assert what == "no node of it was told"


def test_values_of_any_name_have_columns_and_give_way_to_the_text() -> None:
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


def test_what_a_model_says_does_not_steer_the_terminal() -> None:
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
def test_figures(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


@given(grown_trees(), st.none() | st.integers(0, 45))
def test_the_drawing_is_the_tree(tree: SearchTree, most: int | None) -> None:
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


def test_a_deep_chain_stays_in_one_column() -> None:
    tree = tree_of([None, *range(4999)], chosen=4999)
    lines = printed([tree], most=60)
    assert len(rows(lines)) == 5000
    assert all(line.startswith("✓") for line in rows(lines))
    assert {line.index("○") for line in rows(lines)} == {rows(lines)[0].index("○")}
