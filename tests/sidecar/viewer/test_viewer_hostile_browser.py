"""Hostile texts of models, users and files are shown verbatim: no script runs, nothing loads, the CSP holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import StrategyNote
from reason.sidecar.viewer.page import asset, trace_html, verification_html
from support.step_search_events import ferry_run
from support.verified_text import verified
from support.viewer_runs import EVIL, evil_run

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
OPEN_ALL = "document.querySelectorAll('details:not([open])').forEach((d) => { d.open = true; })"


def open_everything(tab: Any) -> None:
    for _ in range(4):  # opened elements contain further ones
        tab.js(OPEN_ALL)
        tab.page.wait_for_timeout(50)


@pytest.mark.parametrize("status", [None, "running"])
def test_a_run_that_says_evil_in_every_place(look: Look, tmp_path: Path, status: Any) -> None:
    events = evil_run(EVIL) if status is None else evil_run(EVIL)[:-4]
    tab = look()
    tab.show(trace_html(events, status), tmp_path)
    open_everything(tab)
    for button in ("button[value=style]", ".ribbon button", ".block", ".rows summary"):
        tab.page.locator(button).first.click()
    tab.page.click("[data-node='2']")
    for place in (
        "h1",
        ".choices",
        "#conversation",
        ".panel .step",
        ".worker",
        "#jury",
        "#votes",
        "#candidates",
        "#samples",
        "#events",
    ):
        assert EVIL in tab.text(place), place
    elements = tab.js("[...new Set([...document.querySelectorAll('#app *')].map((e) => e.localName))]")
    assert not {"script", "img", "iframe", "object", "form", "base", "style", "link", "meta"} & set(elements)
    links = tab.js("[...document.querySelectorAll('#app a')].map((a) => a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)
    names = tab.js(
        "[...document.querySelectorAll('#app *')].flatMap((e) => [...e.attributes].map((a) => a.name))"
        ".filter((name) => name.startsWith('on') || name === 'src' || name === 'srcdoc')"
    )
    assert names == []
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]


def test_a_verification_that_says_evil_in_every_place(look: Look, tmp_path: Path) -> None:
    tab = look()
    tab.show(verification_html(verified(text=EVIL, source=EVIL, question=EVIL, detail=EVIL)), tmp_path)
    tab.page.click(".steps button[value=all]")
    open_everything(tab)
    assert tab.text("h1") == EVIL
    assert tab.text("mark") == "Rain is wet." + EVIL
    assert tab.page.locator("#app img, #app script, #app iframe").count() == 0
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]


def test_text_from_right_to_left_turns_nothing_else_around(look: Look, tmp_path: Path) -> None:
    tab = look()
    turned = "\u202e" + "abc" * 20  # an unterminated bidi override
    tab.show(trace_html([StrategyNote(number=1, strategy="s", name=turned, data={"a": [1]})]), tmp_path)
    stamp = tab.page.locator("#events .when").bounding_box()
    box = tab.page.locator("#events summary").bounding_box()
    assert stamp["x"] > box["x"] + box["width"] / 2  # its usual position
    tab.check()


def test_another_script_or_style_is_refused(look: Look, tmp_path: Path) -> None:
    tab = look()
    page = trace_html(ferry_run())
    added = '<script>window.pwned = 1</script><style>body { display: none }</style><b style="color: red"></b>'
    tab.show(page.replace("</noscript>", f"</noscript>{added}", 1), tmp_path)
    assert tab.js("window.pwned") is None
    assert tab.page.locator("h1").is_visible()
    assert len(tab.js("window.violations")) == 3
    tab.show(page.replace(asset("app.js"), asset("app.js") + " "), tmp_path)  # one additional byte
    assert tab.texts("h1") == []


def test_the_page_works_without_a_network_and_without_scripts(look: Look, tmp_path: Path) -> None:
    tab = look(offline=True)
    tab.show(trace_html(ferry_run()), tmp_path)
    assert tab.text("#answer .answer") == "1272"
    assert tab.page.locator(".node").count() == 24
    tab.check()
    still = look(java_script_enabled=False)
    still.page.goto((tmp_path / "page.html").as_uri())
    assert "How many euros does the ferry take that day?" in still.page.inner_text("noscript")
    assert "1272" in still.page.inner_text("noscript")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out(look: Look, tmp_path: Path, width: int) -> None:
    tab = look(viewport={"width": width, "height": 800})
    tab.show(trace_html(evil_run("x" * 500)), tmp_path)
    open_everything(tab)
    assert tab.js("document.documentElement.scrollWidth <= window.innerWidth")
    tab.check()
