"""Single-file pages: safe for any text, complete, without external resources, and with a CSP."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.events import Degraded, NodesSearched, RunFailed, RunFinished, RunStarted, SearchEnded, SearchNode
from reason.core.types import Question
from reason.sidecar.viewer.page import asset, json_in_html, trace_html, verification_html
from support.html_page import Read, carried
from support.step_search_events import ferry_run
from support.verified_text import verified
from support.viewer_runs import EVIL, answer_of, evil_run

TAGS = {"html", "head", "meta", "title", "style", "body", "div", "noscript", "main", "h1", "p", "script"}


@pytest.mark.parametrize("page", [trace_html(evil_run(EVIL)), verification_html(verified(text=EVIL, question=EVIL))])
def test_no_text_becomes_markup(page: str) -> None:
    read = Read(page)
    assert {tag for tag, _ in read.elements} == TAGS
    assert not [name for _, attrs in read.elements for name in attrs if name.startswith("on") or name == "style"]
    code, data = read.scripts()
    assert code == [asset("app.js")]
    assert len(data) == 1
    assert page.count(EVIL) == 0
    assert json.dumps(json.loads(data[0])).count("window.pwned") >= 3


@given(st.text(alphabet="<>&\"'/ab=-!\\\n\u2028\u2029\u202e", min_size=1, max_size=40))
def test_whatever_the_texts_the_page_is_whole(text: str) -> None:
    page = trace_html(evil_run(text))
    events = carried(page)["events"]
    assert events[0]["question"]["text"] == text
    assert Read(page).scripts()[0] == [asset("app.js")]


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
    page = trace_html([Degraded(number=1, what="a\ud800")]).encode("utf-8", "backslashreplace").decode()
    assert carried(page)["events"][0]["what"] == "a\ud800"


def test_what_is_no_number_is_there() -> None:
    node = SearchNode(id=0, parent=None, depth=0, score=float("nan"), values={"f": float("inf"), "g": -float("inf")})
    told = carried(trace_html([NodesSearched(search="s", nodes=(node,))]))["events"][0]["nodes"][0]
    assert (told["score"], told["values"]) == ("NaN", {"f": "Infinity", "g": "-Infinity"})


@pytest.mark.parametrize("page", [trace_html(ferry_run()), verification_html(verified())])
def test_the_policy_allows_the_viewers_own_script_and_style_alone(page: str) -> None:
    read = Read(page)
    (policy,) = [a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    (script,) = read.scripts()[0]
    (style,) = read.texts["style"]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; style-src 'sha256-{digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    places = [tag for tag, _ in read.elements]
    assert places.index("meta") < places.index("style") < places.index("script")  # the CSP precedes all content


def test_pages_load_nothing_from_anywhere() -> None:
    page = trace_html(ferry_run()).replace(asset("app.js"), "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", page)
    assert not re.search(r"url\(|@import", asset("app.css"))
    hosts = set(re.findall(r"https?://[^\"'`)\s]+", asset("app.js")))
    assert hosts <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xhtml",
        "http://www.w3.org/1998/Math/MathML",
        "https://github.com/markedjs/marked.",  # in an error message
    }


def test_without_scripts_question_and_outcome_are_there() -> None:
    asked = RunStarted(number=1, question=Question(text="<b>Why?"), strategy="cot", models={}, seed=1)
    failed = RunFailed(number=2, code="backend", message="it <i>broke")
    for events, outcome in (
        (ferry_run(), "1272"),
        ([asked], "The run was not finished."),
        ([asked, failed], "The run failed: it <i>broke"),
        ([asked, RunFinished(number=2, answer=answer_of("The first.", "A", option="<b>one"))], "<b>one (A)"),
        ([], "The run was not finished."),
    ):
        texts = Read(trace_html(events)).texts
        assert texts["p"][0] == outcome
    assert Read(trace_html([asked])).texts["h1"] == ["<b>Why?"]
    assert Read(trace_html([asked])).texts["title"] == ["<b>Why? · reason"]
    assert Read(trace_html([asked.model_copy(update={"question": Question(text=" ")})])).texts["h1"] == [
        "An answer that was given"
    ]
    assert Read(verification_html(verified())).texts["h1"] == ["What is weather?"]


def test_how_the_store_has_the_run_is_carried() -> None:
    assert carried(trace_html([SearchEnded(search="s")], "interrupted"))["status"] == "interrupted"
    assert carried(trace_html([]))["status"] is None
