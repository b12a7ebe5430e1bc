"""Browser fixtures of the viewer tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.viewer_browser import Looking, chromium, find_chromium

Look = Callable[..., Looking]


@pytest.fixture(scope="module")
def chromium_browser() -> Iterator[Any]:
    """A browser; tests are skipped if none is installed."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here: the viewer was not tried in a browser")
    with chromium(path) as browser:
        yield browser


@pytest.fixture(scope="module")
def desk_tab(chromium_browser: Any) -> Iterator[Looking]:
    """One tab at desktop width, reused between tests because opening a tab takes longer than a test."""
    tab = Looking(chromium_browser)
    yield tab
    tab.close()


@pytest.fixture
def look(chromium_browser: Any, desk_tab: Looking) -> Iterator[Look]:
    """Return the shared tab, or a new one if options are given."""
    opened: list[Looking] = []

    def open_tab(**options: Any) -> Looking:
        if not options:
            desk_tab.page.goto("about:blank")
            desk_tab.complaints.clear()
            desk_tab.requests.clear()
            return desk_tab
        opened.append(Looking(chromium_browser, **options))
        return opened[-1]

    yield open_tab
    for tab in opened:
        tab.close()
