"""Search trees on the trace page: safe whatever the texts, one script that is allowed by its hash, whole without it."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from any_search import tree_of
from ferry_search import ferry_run, search_events
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Read
from reason.cli.search_section import json_in_html, searches_html
from reason.cli.search_style import DARK_INK, FILLS, FIRST_DARK, LIGHT_INK
from reason.cli.search_svg import SHADES, colour_source, shade
from reason.cli.trace_page import render_trace
from reason.core.events import EventFields, NodesSearched, SearchEnded, SearchNode
from reason.core.search_tree import search_trees

EVIL = "</script></title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&lt;--><!--\u2028\u2029]]>"


def evil_search(text: str) -> list[EventFields]:
    nodes = (
        SearchNode(id=0, parent=None, depth=0, values={text: 0.5}),
        SearchNode(id=1, parent=0, depth=1, text=text, score=0.5, values={text: float("inf")}),
        SearchNode(id=2, parent=7, depth=3, text=text, score=float("nan"), terminal=True, forced=True),
    )
    return [
        NodesSearched(search=text, nodes=nodes, expanded=(0,)),
        SearchEnded(search=text, chosen=1, stopped=text, cost={text: 3}),
    ]


def test_no_text_becomes_markup() -> None:
    page = render_trace(evil_search(EVIL))
    read = Read(page)
    assert {tag for tag, _ in read.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "h5", "div", "span", "p"),
        *("section", "svg", "g", "path", "circle", "rect", "text", "button", "dl", "i", "noscript", "script", "footer"),
    }
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on")]
    code, data = read.scripts()
    assert len(code) == len(data) == 1
    assert json.loads(data[0])[1]["text"] == EVIL
    assert EVIL not in page
    assert "\u2028" not in data[0]


@given(st.text(alphabet="<>&\"'/ab=-!\\\n\u2028\u2029", max_size=40))
def test_whatever_the_texts_the_page_is_whole(text: str) -> None:
    code, data = Read(render_trace(evil_search(text))).scripts()
    assert len(code) == len(data) == 1
    (_, node, _) = json.loads(data[0])
    assert node["text"] == text
    assert [text, "inf"] in node["facts"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_data_is_the_same_behind_the_escapes(value: object) -> None:
    text = json_in_html(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_half_a_character_is_written_all_the_same() -> None:
    text = json_in_html(["a\ud800"]).encode("utf-8", "backslashreplace")  # as the file is written
    assert json.loads(text) == ["a\ud800"]


def policy_of(page: str) -> str:
    (policy,) = [attrs["content"] for tag, attrs in Read(page).elements if "http-equiv" in attrs]
    assert policy is not None
    return policy


def test_the_policy_allows_this_script_alone() -> None:
    page = render_trace(ferry_run())
    (code,), _ = Read(page).scripts()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy_of(page) == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert code.isascii()  # so its hash is that of the file, however it was written
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function|setTimeout|fetch|import", code
    )


def test_a_page_without_a_search_has_no_script() -> None:
    page = render_trace([e for e in ferry_run() if not isinstance(e, (NodesSearched, SearchEnded))])
    assert policy_of(page) == "default-src 'none'; style-src 'unsafe-inline'"
    assert "script" not in {tag for tag, _ in Read(page).elements}
    assert ".stage" not in page


def test_nothing_is_loaded_from_anywhere() -> None:
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", render_trace(ferry_run()))


def test_the_drawing_says_what_there_is() -> None:
    page = render_trace(ferry_run())
    read = Read(page)
    dots = read.of_class("node")
    assert len(dots) == 24
    assert sorted(int(dot["data-n"] or -1) for dot in dots) == list(range(24))
    assert {dot["role"] for dot in dots} == {"treeitem"}
    assert [dot["tabindex"] for dot in dots].count("0") == 1  # one stop for the tabulator
    by_number = {int(dot["data-n"] or -1): dot for dot in dots}
    assert by_number[21]["aria-label"] == "node 21, complete, score 0.95, chosen"
    assert by_number[10]["aria-label"] == "node 10, unfinished, score 0.86, continued as number 7, on the chosen path"
    assert by_number[10]["aria-level"] == "4"
    assert by_number[10]["class"] == "node c8 on"
    assert by_number[3]["class"] == "node c0 open"
    assert [tag for tag, attrs in read.elements if attrs.get("class") == "shape"].count("rect") == 3 + 1  # and the key
    assert len(read.of_class("on")) == 5 + 1  # the nodes of the path, and its line
    assert "With 18 cars each time, that would be 12 * 18 = 216 cars." in read.texts["title"]
    assert any(
        label == "Tree of search 1, best-first: 24 nodes" for _, a in read.elements if (label := a.get("aria-label"))
    )
    # what has a use by the script alone is not there without it
    assert [attrs["class"] for _, attrs in read.elements if "hidden" in attrs] == ["tools", "legend", "panel"]


def test_events_of_a_search_are_in_the_list() -> None:
    text = "".join("".join(t) for t in Read(render_trace(ferry_run())).texts.values())
    assert "best-first: node 10 expanded, 3 nodes told, 2 complete, best score 0.95, 1 discarded" in text
    assert "best-first: done, node 21 chosen" in text


def test_several_searches_and_one_without_nodes() -> None:
    events = [*search_events("a"), *search_events("b"), SearchEnded(search="c")]
    html = searches_html(search_trees(events))
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["a", "2. b", "3. c"]
    assert html.count("<svg viewBox") - html.count('<svg viewBox="0 0 16 16"') == 2
    assert "No node of it was told" in html


def test_nodes_without_scores_are_coloured_by_a_value_that_can_be() -> None:
    tree = tree_of([None, 0], values={"visits": 7, "mean": 0.25})
    assert colour_source(tree) == "mean"
    assert 'class="node c2 open"' in searches_html([tree])
    assert "mean 0 <span>" in searches_html([tree])
    plain = tree_of([None, 0], values={"visits": 7})
    assert colour_source(plain) is None
    assert 'class="node blank open"' in searches_html([plain])
    assert 'class="scale"' not in searches_html([plain])
    assert colour_source(tree_of([None], score=0.0, values={"mean": 0.25})) == "score"


def test_shades() -> None:
    assert [shade(x) for x in (-1, 0, 0.05, 0.1, 0.55, 0.999, 1, 2)] == [0, 0, 0, 1, 5, 9, 9, 9]
    assert len(FILLS) == SHADES


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_told_apart_by_lightness_and_read() -> None:
    lights = [luminance(fill) for fill in FILLS]
    assert lights == sorted(lights)
    for n, light in enumerate(lights):
        darker, lighter = sorted((light, luminance(LIGHT_INK if n < FIRST_DARK else DARK_INK)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, level AA


def test_five_thousand_nodes_in_a_row() -> None:
    page = render_trace([NodesSearched(search="s", nodes=tuple(tree_of([None, *range(4999)]).nodes.values()))])
    assert len(Read(page).of_class("node")) == 5000
