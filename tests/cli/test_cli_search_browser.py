"""The trace page of a search in a real browser: the script moves, enlarges, shows; and nothing else happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium_page import Page
from ferry_search import ferry_run, search_events
from reason.cli.trace_page import render_trace
from reason.core.events import NodesSearched, SearchEnded, SearchNode

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\u2028'\"`${1}"
STEP = "With 18 cars each time, that would be 12 * 18 = 216 cars.\n\n"


@pytest.fixture
def ferry(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The page of the ferry's search, at the width of a desk."""
    file = tmp_path / "ferry.html"
    file.write_text(render_trace(ferry_run()), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.show(file)
    yield browser
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]  # the page itself


def centre(page: Page, n: int) -> tuple[float, float]:
    """Where node n is on the screen."""
    x, y = page.js(
        f"(() => {{ const r = document.querySelector('.node[data-n=\"{n}\"] .shape').getBoundingClientRect();"
        "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    return x, y


def view(page: Page) -> tuple[float, float, float]:
    """The drawing's shift and scale."""
    text = page.js("document.querySelector('.view').getAttribute('transform')")
    found = re.fullmatch(r"translate\((\S+) (\S+)\) scale\((\S+)\)", text)
    assert found is not None
    x, y, k = map(float, found.groups())
    return x, y, k


def focused(page: Page) -> Any:
    return page.js("Number(document.activeElement.dataset.n)")


def shown(page: Page, selector: str) -> Any:
    return page.js(f"document.querySelector('.panel {selector}').textContent")


def scroll_to_tree(page: Page) -> None:
    page.js("document.querySelector('.stage').scrollIntoView({block: 'start'})")


def test_the_chosen_node_is_shown_first(ferry: Page) -> None:
    assert shown(ferry, "h4") == "node 21, step 4, complete, chosen"
    assert view(ferry) == (0, 0, 1)
    assert ferry.js("[...document.querySelectorAll('[hidden]')].length") == 0


def test_a_click_shows_a_node(ferry: Page) -> None:
    scroll_to_tree(ferry)
    ferry.click(*centre(ferry, 5))
    assert shown(ferry, "h4") == "node 5, step 2, unfinished"
    assert shown(ferry, ".step") == STEP
    first = "First, count the crossings: 7 before noon and 5 after noon make 7 + 5 = 12 crossings.\n\n"
    assert shown(ferry, ".whole") == first + STEP
    facts = "[...document.querySelectorAll('.panel dl div')].map((row) => [...row.children].map((e) => e.textContent))"
    assert ferry.js(facts) == [
        ["score", "0.910"],
        ["f", "0.110"],
        ["g", "0.020"],
        ["h", "0.090"],
        ["tokens", "22"],
        ["continued", "#3"],
    ]
    selected = "[...document.querySelectorAll('.node[aria-selected=\"true\"]')].map((dot) => Number(dot.dataset.n))"
    assert ferry.js(selected) == [5]
    assert focused(ferry) == 5
    ferry.click(*centre(ferry, 0))  # the root has no text
    assert ferry.js("[...document.querySelectorAll('.panel [hidden]')].length") == 2


def test_the_wheel_enlarges_what_is_under_it(ferry: Page) -> None:
    scroll_to_tree(ferry)
    before = centre(ferry, 7)
    scrolled = ferry.js("window.scrollY")
    ferry.mouse("mouseWheel", *before, deltaX=0, deltaY=-400)
    k = view(ferry)[2]
    assert k == pytest.approx(2.718281828**0.6, rel=1e-3)
    assert centre(ferry, 7) == pytest.approx(before, abs=1)
    assert ferry.js("window.scrollY") == scrolled
    ferry.mouse("mouseWheel", *before, deltaX=0, deltaY=4000)
    assert view(ferry)[2] == 1  # never smaller than whole


def test_dragging_moves_the_tree_and_is_no_click(ferry: Page) -> None:
    scroll_to_tree(ferry)
    x, y = centre(ferry, 5)
    ferry.mouse("mousePressed", x, y, button="left", clickCount=1, buttons=1)
    for by in (10, 30, 60):
        ferry.mouse("mouseMoved", x + by, y + by / 2, button="left", buttons=1)
    ferry.mouse("mouseReleased", x + 60, y + 30, button="left", clickCount=1)
    assert centre(ferry, 5) == pytest.approx((x + 60, y + 30), abs=1)
    assert shown(ferry, "h4").startswith("node 21")
    ferry.mouse("mouseMoved", x + 300, y)  # let go of
    assert centre(ferry, 5) == pytest.approx((x + 60, y + 30), abs=1)
    ferry.click(*centre(ferry, 5))
    assert shown(ferry, "h4").startswith("node 5")


def test_a_button_let_go_of_outside_drags_nothing(ferry: Page) -> None:
    x, y = centre(ferry, 5)
    ferry.mouse("mousePressed", x, y, button="left", clickCount=1, buttons=1)
    ferry.mouse("mouseReleased", 5, 5, button="left", clickCount=1)
    ferry.mouse("mouseMoved", x + 50, y + 50)
    ferry.mouse("mouseMoved", x + 90, y + 50)
    assert view(ferry) == (0, 0, 1)


def test_the_keyboard_alone_is_enough(ferry: Page) -> None:
    ferry.js("document.querySelector('.tools button:last-child').focus()")
    ferry.key("Tab")
    assert focused(ferry) == 21
    assert ferry.js("getComputedStyle(document.querySelector('.node[data-n=\"21\"] .shape')).strokeWidth") == "7px"
    places = []
    for name in ("ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "ArrowUp"):
        ferry.key(name)
        places.append(focused(ferry))
    # up the path, two to the right and one back on its layer, down to the first continuation, up again
    assert places == [10, 5, 6, 7, 6, 6, 1, 0]
    ferry.key("ArrowDown")
    ferry.key("ArrowDown")
    assert focused(ferry) == 5  # down along the chosen path
    assert shown(ferry, "h4").startswith("node 21")  # going past shows nothing
    ferry.key("Enter", "\r")
    assert shown(ferry, ".step") == STEP
    ferry.key("+", "+")
    assert view(ferry)[2] == pytest.approx(1.3)
    ferry.key("-", "-")
    assert view(ferry)[2] == pytest.approx(1)
    ferry.key("+", "+")
    ferry.key("0", "0")
    assert view(ferry) == (0, 0, 1)


def test_the_node_in_focus_comes_into_sight(ferry: Page) -> None:
    scroll_to_tree(ferry)
    ferry.click(*centre(ferry, 0))
    for _ in range(6):
        ferry.key("+", "+")
    inside = (
        "(() => { const s = document.querySelector('.stage svg').getBoundingClientRect(),"
        "r = document.activeElement.getBoundingClientRect();"
        "return s.left <= r.left && r.right <= s.right && s.top <= r.top && r.bottom <= s.bottom; })()"
    )
    for name in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowUp", "ArrowUp"):
        ferry.key(name)
        assert ferry.js(inside), name


def test_the_buttons(ferry: Page) -> None:
    press = "document.querySelector('.tools button[value=\"%s\"]').click()"
    ferry.js(press % "nearer")
    assert view(ferry)[2] == pytest.approx(1.3)
    ferry.js(press % "farther")
    assert view(ferry)[2] == pytest.approx(1)
    ferry.js(press % "nearer")
    ferry.js(press % "fit")
    assert view(ferry) == (0, 0, 1)
    ferry.key("Tab")
    ferry.js("document.querySelector('.node[data-n=\"3\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert shown(ferry, "h4").startswith("node 3")
    ferry.js(press % "chosen")
    assert shown(ferry, "h4").startswith("node 21")
    assert focused(ferry) == 21


def test_two_fingers_enlarge(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "phone.html"
    file.write_text(render_trace(ferry_run()), encoding="utf-8")
    browser.complaints.clear()
    browser.show(file, width=390, height=844, phone=True)
    scroll_to_tree(browser)
    assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")  # nothing sticks out
    x, y = centre(browser, 5)
    for kind, apart in (("touchStart", 20), ("touchMove", 25), ("touchMove", 40), ("touchEnd", None)):
        points = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert view(browser)[2] == pytest.approx(2, rel=0.05)
    assert centre(browser, 5) == pytest.approx((x, y), abs=4)
    assert browser.complaints == []


def test_hostile_texts_stay_texts(browser: Page, tmp_path: Path) -> None:
    nodes = (
        SearchNode(id=0, parent=None, depth=0, values={EVIL: 0.5}),
        SearchNode(id=1, parent=0, depth=1, text=EVIL, values={EVIL: 0.5}),
    )
    events = [NodesSearched(search=EVIL, nodes=nodes), SearchEnded(search=EVIL, chosen=1, stopped=EVIL)]
    file = tmp_path / "evil.html"
    file.write_text(render_trace(events), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.show(file)
    assert shown(browser, ".step") == EVIL
    assert shown(browser, "dt") == EVIL
    assert browser.js("window.pwned") is None
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]


def test_another_script_is_refused(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "changed.html"
    file.write_text(render_trace(ferry_run()).replace("</main>", "</main><script>window.pwned = 1</script>"))
    browser.complaints.clear()
    browser.show(file)
    assert browser.js("window.pwned") is None
    assert any("Content Security Policy" in text for text in browser.complaints)


def test_each_of_several_trees_moves_alone(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "two.html"
    file.write_text(render_trace([*search_events("a"), *search_events("b"), SearchEnded(search="c")]), encoding="utf-8")
    browser.complaints.clear()
    browser.show(file)
    browser.js("document.querySelectorAll('.tools button[value=nearer]')[1].click()")
    scales = browser.js(
        "[...document.querySelectorAll('.view')].map((g) => /scale.([^)]+)/.exec(g.getAttribute('transform'))[1])"
    )
    assert [float(k) for k in scales] == [1, pytest.approx(1.3)]
    assert browser.complaints == []


def test_five_thousand_nodes_begin_at_the_root(browser: Page, tmp_path: Path) -> None:
    nodes = [SearchNode(id=i, parent=i - 1 if i else None, depth=i, text=f"{i} ", score=0.5) for i in range(5000)]
    file = tmp_path / "chain.html"
    events = [NodesSearched(search="s", nodes=tuple(nodes)), SearchEnded(search="s", chosen=4999)]
    file.write_text(render_trace(events), encoding="utf-8")
    browser.complaints.clear()
    browser.show(file)
    assert shown(browser, ".whole") == "".join(f"{i} " for i in range(5000))
    size = "document.querySelector('.node[data-n=\"0\"] .shape').getBoundingClientRect()"
    assert browser.js(f"{size}.width") > 10
    assert browser.js(f"{size}.top >= document.querySelector('.stage').getBoundingClientRect().top")
    assert browser.complaints == []


def test_the_tree_is_there_without_scripts(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "still.html"
    file.write_text(render_trace(ferry_run()), encoding="utf-8")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(file)
        document = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]

        def box(selector: str) -> list[float] | None:
            node = browser.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
            try:
                quad: list[float] = browser.call("DOM.getBoxModel", nodeId=node)["model"]["content"]
            except AssertionError:
                return None  # it is not drawn
            return quad

        drawing = box(".stage svg")
        assert drawing is not None
        assert drawing[2] - drawing[0] > 400
        assert box('.node[data-n="21"]') is not None
        assert box(".tools") is box(".panel") is None
        assert box("noscript p") is not None
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
