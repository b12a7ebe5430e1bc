"""Notes of a search: whose they are, on the terminal, and on the trace page, whatever their texts are."""

from __future__ import annotations

import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from chromium_page import Page
from ferry_search import search_events
from hypothesis import given
from hypothesis import strategies as st
from noted_search import NOTES, noted_events, noted_run
from page_reader import Read
from reason.cli.search_notes import Notes, search_notes, source_of
from reason.cli.search_view import print_searches
from reason.cli.trace_page import render_trace
from reason.core.events import AssociatedItem, EventFields, LeafSelected, MemoryAssociated, RunStarted, SearchEnded
from reason.core.question import Question
from reason.core.search_tree import search_trees
from rich.console import Console

EVIL = "</script></title></svg><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\"`&lt;\u2028]]>"


def notes_of(*events: EventFields) -> list[Notes]:
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


def printed(events: list[EventFields], width: int) -> list[str]:
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


def rows(page: str) -> str:
    """The page's text."""
    return unescape(re.sub(r"<[^>]+>", "", page))


def test_selections_and_notes_are_rows_of_the_page() -> None:
    text = rows(render_trace(noted_run()))
    assert "selected mcts: node 0" in text
    assert "selected mcts: node 1, path 0 → 1 (1.630)" in text
    assert "notes mcts: node 1: 2 notes of 3 snippets; not kept: 1 duplicate" in text
    assert "asked: Ida Holm's town" in text
    assert "notes mcts: node 2: 0 notes of 0 snippets; not kept: 2 too long" in text


def test_a_long_path_names_its_ends_and_a_strange_one_what_it_can() -> None:
    def row(*path: int, attractions: tuple[float, ...] = ()) -> str:
        return rows(render_trace([LeafSelected(search="s", path=path, attractions=attractions)]))

    assert "s: node 9, path 0 → … → 5 (0.500) → 6 (0.600) → 7 (0.700) → 8 (0.800) → 9 (0.900)" in row(
        *range(10), attractions=tuple(i / 10 for i in range(1, 10))
    )
    assert "s: node 2, path 0 → 1 → 2" in row(0, 1, 2, attractions=(0.5,))
    assert "s: no node" in row()
    assert "s: node 7: 0 notes" in rows(render_trace([MemoryAssociated(search="s", node=7)]))


def test_the_drawing_says_which_nodes_have_notes() -> None:
    read = Read(render_trace(noted_run()))
    labels = {dot["data-n"]: dot["aria-label"] for dot in read.of_class("node")}
    assert labels["1"] == "node 1, unfinished, score 0.80, continued as number 2, 2 notes, on the chosen path"
    assert labels["2"] == "node 2, unfinished, score 0.30"
    assert "+2" in read.texts["text"]
    assert "+n notes that came with it" in rows(render_trace(noted_run()))
    without = render_trace(noted_run(notes=()))
    assert "+n notes that came with it" not in without
    assert 'class="sources notes"' not in without


def evil_run(text: str) -> list[EventFields]:
    item = AssociatedItem(text=text, source_id=text, source_kind=text, score=float("nan"))
    return noted_run(name=text, notes=(item,), query=text)


@given(st.text(alphabet="<>&\"'/ab=-!\\\n\u2028\u2029", min_size=1, max_size=40))
def test_whatever_the_notes_the_page_is_whole(text: str) -> None:
    code, data = Read(render_trace(evil_run(text))).scripts()
    assert len(code) == len(data) == 1
    assert json.loads(data[0])[1]["notes"] == [[text, text]]


def test_no_note_becomes_markup() -> None:
    page = render_trace(evil_run(EVIL))
    read = Read(page)
    assert EVIL not in page
    assert not {"img", "a", "form"} & {tag for tag, _ in read.elements}
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]


def show(browser: Page, file: Path, events: list[EventFields]) -> None:
    file.write_text(render_trace(events), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.show(file)


def click(browser: Page, n: int) -> None:
    browser.js(
        f"document.querySelector('.node[data-n=\"{n}\"]').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )


def notes_shown(browser: Page) -> Any:
    """Source and text of each note in the panel; None where it shows none."""
    return browser.js(
        "(() => { const list = document.querySelector('.panel .notes');"
        "if (list === null || list.getBoundingClientRect().height === 0) return null;"
        "return [...list.children].map((row) => [row.firstChild.textContent, row.lastChild.textContent]); })()"
    )


def test_a_clicked_node_shows_its_notes(browser: Page, tmp_path: Path) -> None:
    show(browser, tmp_path / "noted.html", noted_run())
    assert notes_shown(browser) is None  # the chosen node has none
    click(browser, 1)
    assert notes_shown(browser) == [
        ["docs/ekeby.md:0-31", "Ekeby castle was built in 1412."],
        ["the model itself", "Ida Holm painted lakes."],
    ]
    click(browser, 4)
    assert notes_shown(browser) is None
    whole = browser.js("document.querySelector('.panel .whole').textContent")
    assert whole == "Ida Holm was born in Ekeby.\n\nEkeby lies on a lake."
    assert browser.complaints == []


def test_a_tree_without_notes_has_no_place_for_them(browser: Page, tmp_path: Path) -> None:
    show(browser, tmp_path / "plain.html", [*noted_events("a", notes=()), *noted_events("b"), SearchEnded(search="c")])
    assert browser.js("document.querySelectorAll('.panel').length") == 2
    assert browser.js("document.querySelectorAll('.panel .notes').length") == 1
    assert browser.complaints == []


def test_hostile_notes_stay_texts_in_the_browser(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "evil.html"
    show(browser, file, evil_run(EVIL))
    click(browser, 1)
    assert notes_shown(browser) == [[EVIL, EVIL]]
    assert browser.js("window.pwned") is None
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]


def test_notes_on_a_phone_stay_within_it(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "phone.html"
    file.write_text(render_trace(evil_run("x" * 500)), encoding="utf-8")
    browser.complaints.clear()
    browser.show(file, width=390, height=844, phone=True)
    click(browser, 1)
    browser.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints == []
