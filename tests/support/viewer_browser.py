"""Pages of the viewer in a real, headless Chromium, driven by Playwright; what they complain of is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT_MS = 20_000.0
expect.set_options(timeout=TIMEOUT_MS)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => {
  window.violations.push(`${e.violatedDirective} ${e.blockedURI}`);
});
"""


def find_chromium() -> str | None:
    """The browser's path; `CHROMIUM` in the environment names another one."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A browser without a profile, which ends with the block."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Looking:
    """One tab.

    Attributes:
        page: Playwright's page.
        complaints: Errors and warnings of the console, exceptions, dialogs.
        requests: Addresses that were asked for, the page's own among them.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        defaults: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        self._context = browser.new_context(**{**defaults, **options})
        self._context.add_init_script(WATCH)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: (self.complaints.append(f"dialog: {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))

    def show(self, html: str, folder: Path) -> Page:
        """Show a page from disk."""
        file = folder / "page.html"
        file.write_text(html, encoding="utf-8", errors="backslashreplace")
        self.page.goto(file.as_uri())
        return self.page

    def js(self, expression: str) -> Any:
        """The value of an expression."""
        return self.page.evaluate(expression)

    def texts(self, selector: str) -> list[str]:
        """The texts of the elements, in order, as the document has them."""
        found: list[str] = self.page.locator(selector).evaluate_all("(all) => all.map((e) => e.textContent ?? '')")
        return found

    def text(self, selector: str) -> str:
        """The text of the first such element."""
        return self.texts(selector)[0]

    def check(self) -> None:
        """Nothing was complained of, and the policy was never broken."""
        assert self.complaints == [], self.complaints
        assert self.js("window.violations") == []
        assert self.js("window.pwned") is None

    def close(self) -> None:
        """Close the tab."""
        self._context.close()
