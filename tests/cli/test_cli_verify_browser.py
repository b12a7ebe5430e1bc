"""The verification page in a real browser: panels open by click and by keyboard, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium_page import Page
from reason.cli.verify_page import render_verification
from verified_text import verified

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\u2028'\"`${1}"


@pytest.fixture
def shown(browser: Page, tmp_path: Path) -> Iterator[Page]:
    file = tmp_path / "page.html"
    file.write_text(render_verification(verified()), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.show(file)
    yield browser
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]


def open_panels(page: Page) -> object:
    return page.js("[...document.querySelectorAll('.panel')].filter((p) => !p.hidden).map((p) => p.id)")


def test_the_first_refuted_claim_is_shown_first(shown: Page) -> None:
    assert open_panels(shown) == ["claim-2"]


def test_a_click_on_a_claim_opens_its_panel(shown: Page) -> None:
    x, y = shown.js(
        "(() => { const r = document.querySelector('.claim[data-n=\"0\"]').getBoundingClientRect();"
        "return [r.x + 5, r.y + r.height / 2]; })()"
    )
    shown.click(x, y)
    assert open_panels(shown) == ["claim-1"]
    assert shown.js("document.querySelector('.number[aria-current=\"true\"]').id") == "at-1"


def test_the_keyboard_alone_is_enough(shown: Page) -> None:
    shown.js("document.querySelector('#at-1').focus()")
    shown.key("Tab")
    assert shown.js("document.activeElement.id") == "at-2"
    shown.key("Tab")
    shown.key("Enter", "\r")
    assert open_panels(shown) == ["claim-3"]
    assert shown.js("document.activeElement.id") == "claim-3"
    shown.key("ArrowRight")
    assert open_panels(shown) == ["claim-4"]
    shown.key("ArrowLeft")
    assert open_panels(shown) == ["claim-3"]
    shown.key("Escape")
    assert shown.js("document.activeElement.id") == "at-3"


def test_all_panels_can_be_seen_at_once(shown: Page) -> None:
    shown.js("document.querySelector('.steps button[value=all]').click()")
    assert len(open_panels(shown)) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_on_a_phone(browser: Page, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "phone.html"
    file.write_text(render_verification(verified(text=" " + "w" * 300)), encoding="utf-8")
    browser.show(file, width=360, height=740, phone=True, dark=dark)
    browser.js("document.querySelector('.steps button[value=all]').click()")
    assert browser.js("document.documentElement.scrollWidth <= window.innerWidth")


def test_hostile_texts_stay_texts(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "evil.html"
    file.write_text(render_verification(verified(text=EVIL, source=EVIL, question=EVIL, detail=EVIL)), encoding="utf-8")
    browser.complaints.clear()
    browser.requests.clear()
    browser.show(file)
    assert browser.js("window.pwned") is None
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]
