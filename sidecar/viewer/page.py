"""`trace_html` and `verification_html`: a run or a verification as a self-contained HTML page.

The page embeds the viewer's script and style, and the data as JSON; it loads nothing else. Its content security policy
allows only this script and style, by their hashes. Texts are inserted as text nodes only. With scripts disabled, the
page still shows question and answer. This module works without the sidecar's optional dependencies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from ...agents.verification import TextVerification
from ...core.events import Event, RunFailed, RunFinished, RunStarted
from ...core.store.records import RunStatus
from ...core.version import __version__


@cache
def asset(name: str) -> str:
    """Return the text of a built asset: `app.js`, `app.css` or `THIRD_PARTY.txt`."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


MAX_TITLE_CHARS = 80


def trace_html(events: Sequence[Event], status: RunStatus | None = None) -> str:
    """Render a run as a page.

    Args:
        events: The run's events, in order; if they include text deltas, tokens are shaded within the text.
        status: The run's stored status; None if only the events are known.

    Returns:
        A complete HTML document.
    """
    started = next((e for e in reversed(events) if isinstance(e, RunStarted)), None)
    question = "A run that did not begin" if started is None else started.question.text
    carried = {
        "kind": "trace",
        "status": status,
        "version": __version__,
        "events": [event.model_dump(mode="json") for event in events],
    }
    return _html_page(question if question.strip() else "An answer that was given", _outcome_of(events), carried)


def verification_html(verification: TextVerification) -> str:
    """Render a verification as a page: the text with its claims marked, and the evidence for each claim.

    Returns:
        A complete HTML document.
    """
    carried = {"kind": "verification", "version": __version__, "found": verification.model_dump(mode="json")}
    return _html_page(verification.question or "A text, verified", verification.answer, carried)


def json_in_html(value: Any) -> str:
    """Encode a value as JSON that is safe inside a script element: `<`, `>`, `&` and line separators are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _html_page(title: str, outcome: str, carried: dict[str, Any]) -> str:
    script, style = asset("app.js"), asset("app.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    short = title if len(title) <= MAX_TITLE_CHARS else title[: MAX_TITLE_CHARS - 1] + "…"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(short)} · reason</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<div id="app"></div>\n<noscript><main><h1>{escape(title)}</h1><p class="text">{escape(outcome)}</p>'
        '<p class="soft">Scripts are disabled: this page needs JavaScript to show more.</p></main></noscript>\n'
        f'<script type="application/json" id="data">{json_in_html(_finite(carried))}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _outcome_of(events: Sequence[Event]) -> str:
    """The outcome of the run in one line, shown if scripts are disabled."""
    for event in reversed(events):
        if isinstance(event, RunFinished):
            answer = event.answer.shown_answer
            return "No answer was found in the text." if answer is None else answer
        if isinstance(event, RunFailed):
            return f"The run failed: {event.message}"
    return "The run was not finished."


def _finite(value: Any) -> Any:
    """Replace infinities and NaN by strings, since JSON has no such numbers."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case _:
            return value
