"""The search tree on the page: drawing, panning, zooming, folding and keyboard navigation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import NodesSearched, SearchEnded, SearchNode
from reason.sidecar.viewer.page import trace_html
from support.step_search_events import ferry_run

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
STEP = "With 18 cars each time, that would be 12 * 18 = 216 cars.\n\n"


@pytest.fixture
def ferry(look: Look, tmp_path: Path) -> Iterator[Any]:
    """The page of the ferry search at desktop width, with nodes as dots."""
    tab = look()
    tab.show(trace_html(ferry_run()), tmp_path)
    tab.page.click("button[value=style]")
    yield tab
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]  # the page itself


def view(tab: Any) -> tuple[float, float, float]:
    """Pan offset and zoom of the drawing."""
    found = re.fullmatch(r"translate\((\S+) (\S+)\) scale\((\S+)\)", tab.page.get_attribute(".view", "transform"))
    assert found is not None
    x, y, k = map(float, found.groups())
    return x, y, k


def focused(tab: Any) -> int:
    return int(tab.js("document.activeElement.dataset.node ?? -1"))


def head(tab: Any) -> str:
    text: str = tab.text(".panel h4")
    return text


def test_the_drawing_says_what_there_is(ferry: Any) -> None:
    attributes = "(all) => all.map((e) => Object.fromEntries([...e.attributes].map((a) => [a.name, a.value])))"
    dots = ferry.page.locator(".node").evaluate_all(attributes)
    by_id = {int(dot["data-node"]): dot for dot in dots}
    assert sorted(by_id) == list(range(24))
    assert {dot["role"] for dot in dots} == {"treeitem"}
    assert [dot["tabindex"] for dot in dots].count("0") == 1  # one tab stop
    assert by_id[21]["aria-label"] == "node 21, complete, score 0.95, chosen"
    assert by_id[10]["aria-label"] == "node 10, unfinished, score 0.86, continued as number 7, on the chosen path"
    assert (by_id[10]["aria-level"], by_id[10]["aria-expanded"]) == ("4", "true")
    assert "aria-expanded" not in by_id[21]
    assert (by_id[2]["aria-posinset"], by_id[2]["aria-setsize"]) == ("2", "4")
    assert by_id[10]["class"] == "node dots c8 on"
    assert by_id[3]["class"] == "node dots c0 open"
    assert ferry.page.locator(".node rect.shape").count() == 3
    assert ferry.page.locator(".node.on").count() == 5
    assert STEP.strip() in ferry.texts(".node title")
    assert ferry.page.get_attribute(".stage svg", "aria-label") == "Tree of search 1, best-first: 24 nodes"
    assert ferry.text(".node.picked .figure") == ".95"
    assert ferry.texts(".node .tick") == ["✓"]
    facts = "stopped: done, 24 nodes, 3 complete, 7 expanded, 5 discarded, gen tokens 621, prm passes 23"
    assert ferry.text(".search > .soft") == facts
    assert "#n continued as number n" in ferry.text(".key")
    assert "notes that came with it" not in ferry.text(".key")


def test_the_chosen_node_is_shown_first(ferry: Any) -> None:
    assert head(ferry) == "node 21, step 4, complete, chosen"


def test_a_click_shows_a_node(ferry: Any) -> None:
    ferry.page.click("[data-node='5'] .shape")
    assert head(ferry) == "node 5, step 2, unfinished"
    assert ferry.text(".panel .step") == STEP
    first = "First, count the crossings: 7 before noon and 5 after noon make 7 + 5 = 12 crossings.\n\n"
    assert ferry.text(".panel .whole") == first + STEP
    rows = "(all) => all.map((row) => [...row.children].map((e) => e.textContent))"
    assert ferry.page.locator(".panel dl div").evaluate_all(rows) == [
        ["score", "0.910"],
        ["f", "0.110"],
        ["g", "0.020"],
        ["h", "0.090"],
        ["tokens", "22"],
        ["continued", "#3"],
    ]
    assert ferry.page.locator(".node[aria-selected='true']").get_attribute("data-node") == "5"
    assert focused(ferry) == 5
    ferry.page.click("[data-node='0'] .shape")  # the root has no text
    assert ferry.texts(".panel h5") == []


def test_the_keyboard_alone_is_enough(ferry: Any) -> None:
    keyboard = ferry.page.keyboard
    ferry.page.focus("button[value=fit]")
    keyboard.press("Tab")
    assert focused(ferry) == 21
    outline = "getComputedStyle(document.querySelector('[data-node=\"21\"] .shape')).strokeWidth"
    assert ferry.js(outline) == "6px"
    places = []
    for name in ("ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "ArrowUp"):
        keyboard.press(name)
        places.append(focused(ferry))
    # up the path, two to the right and one back on its layer, down to the first continuation, up again
    assert places == [10, 5, 6, 7, 6, 6, 1, 0]
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    assert focused(ferry) == 5  # down along the chosen path
    assert head(ferry).startswith("node 21")  # hovering shows nothing
    keyboard.press("Enter")
    assert ferry.text(".panel .step") == STEP
    keyboard.press("End")
    assert focused(ferry) == 21
    keyboard.press("Home")
    assert focused(ferry) == 0
    before = view(ferry)[2]
    keyboard.press("+")
    assert view(ferry)[2] == pytest.approx(1.3 * before)
    keyboard.press("-")
    assert view(ferry)[2] == pytest.approx(before)


def test_branches_are_folded_and_opened(ferry: Any) -> None:
    ferry.page.click("[data-node='1'] .shape")
    ferry.page.keyboard.press("Space")
    assert ferry.page.get_attribute("[data-node='1']", "aria-expanded") == "false"
    assert ferry.text("[data-node='1'] .more") == "13 more"
    assert "13 nodes folded away below" in ferry.page.get_attribute("[data-node='1']", "aria-label")
    assert ferry.page.locator(".node").count() == 24 - 13
    assert focused(ferry) == 1
    ferry.page.keyboard.press("Space")
    assert ferry.page.locator(".node").count() == 24


def test_thousands_of_nodes_stay_usable(look: Look, tmp_path: Path) -> None:
    tab = look()
    chain = [SearchNode(id=i, parent=i - 1 if i else None, depth=i, text=f"{i} ", score=0.5) for i in range(5000)]
    told = NodesSearched(search="s", nodes=tuple(chain))
    tab.show(trace_html([told, SearchEnded(search="s", chosen=4999)]), tmp_path)
    assert tab.text(".panel .whole") == "".join(f"{i} " for i in range(5000))
    assert tab.page.locator(".node").count() < 100  # only visible nodes and the selected one
    root = tab.page.locator("[data-node='0'] .shape").bounding_box()
    stage = tab.page.locator(".stage svg").bounding_box()
    assert root["width"] > 10  # the view starts at the root at a readable size
    assert stage["y"] <= root["y"] <= stage["y"] + stage["height"]
    bush = [SearchNode(id=0, parent=None, depth=0)]
    bush += [SearchNode(id=i, parent=(i - 1) // 5, depth=1, text="t", score=i / 6000) for i in range(1, 6000)]
    tab.show(trace_html([NodesSearched(search="s", nodes=tuple(bush)), SearchEnded(search="s", chosen=5999)]), tmp_path)
    assert "nodes of 6,000 folded away" in tab.text(".desk .hint")
    assert tab.page.locator("[data-node='5999']").count() == 1
    tab.page.click("button[value=all]")
    tab.page.wait_for_selector(".desk .hint", state="detached")
    assert tab.page.locator(".node").count() < 6000
    tab.check()


def test_a_broken_trace_is_drawn_too(look: Look, tmp_path: Path) -> None:
    tab = look()
    nodes = [SearchNode(id=i, parent=p, depth=0, text="t") for i, p in enumerate((1, 0, 99, 3, None, 4))]
    tab.show(trace_html([NodesSearched(search="s", nodes=tuple(nodes))]), tmp_path)
    assert tab.page.locator(".node").count() == 6
    tab.page.click("[data-node='2']")
    assert "node 99, which was not told" in tab.text(".panel dl")
    tab.check()
