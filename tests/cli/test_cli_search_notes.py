"""NodeNotes of a search: whose they are, and on the terminal, whatever their texts are."""

from __future__ import annotations

import io

import pytest
from reason.cli.render.search_tree import NodeNotes, print_searches, search_notes, source_of
from reason.core.events import AssociatedItem, Event, RunStarted
from reason.core.search_tree import search_trees
from reason.core.types import Question
from rich.console import Console
from support.mcts_events import NOTES, noted_events
from support.step_search_events import search_events

EVIL = "</script></title></svg><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\"`&lt;\u2028]]>"


def notes_of(*events: Event) -> list[NodeNotes]:
    return search_notes(events, search_trees(events))


def begun() -> RunStarted:
    return RunStarted(question=Question(text="?"), strategy="coat", models={}, seed=1)


def test_each_search_has_its_own() -> None:
    other = (AssociatedItem(text="other"),)
    assert notes_of(*noted_events()) == [{1: NOTES}]
    assert notes_of(*search_events()) == [{}]
    follow = [*noted_events(), *search_events(), *noted_events(notes=other)]
    assert notes_of(*follow) == [{1: NOTES}, {}, {1: other}]
    first, second = noted_events("a"), noted_events("b", notes=other)
    overlap = [event for pair in zip(first, second, strict=True) for event in pair]
    assert notes_of(*overlap) == [{1: NOTES}, {1: other}]


def test_a_run_that_goes_on_tells_them_again() -> None:
    other = (AssociatedItem(text="other"),)
    interrupted = noted_events()[:4]
    assert notes_of(begun(), *interrupted, begun(), *noted_events(notes=other)) == [{1: other}]
    # what was not told again stays as it was
    assert notes_of(begun(), *interrupted, begun(), *noted_events(notes=other)[:2]) == [{1: NOTES}]


def test_notes_of_one_node_follow_each_other_and_without_a_tree_there_are_none() -> None:
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
def test_sources(item: AssociatedItem, source: str) -> None:
    assert source_of(item) == source


def printed(events: list[Event], width: int) -> list[str]:
    file = io.StringIO()
    trees = search_trees(events)
    print_searches(trees, Console(file=file, width=width), 60, search_notes(events, trees))
    return file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "source"), [(40, "[a.md:1…]"), (60, "[a.md:1-2]"), (160, "[a.md:1-2]")])
def test_notes_are_cut_to_the_terminal_and_keep_their_sources(width: int, source: str) -> None:
    notes = (
        AssociatedItem(text="n" * 300, source_id="a.md:1-2", source_kind="folder"),
        AssociatedItem(text="m\n\x1b[2J" + "m" * 300, source_id="s" * 300, source_kind="folder"),
    )
    lines = printed(noted_events(notes=notes), width)
    (first,) = [line for line in lines if "nnn" in line]
    (second,) = [line for line in lines if "mmm" in line]
    assert first.endswith(f"n… {source}")
    assert second.endswith("s…]")
    assert "+ m [2Jmm" in second
    assert {len(first), len(second)} == {width}
    assert not [line for line in printed([*search_events()], width) if line.endswith("+ note")]
