"""`trace_html` and `verification_html`: a run, or a verification, as one page that loads nothing from anywhere.

The page carries the viewer's script and style and the data as JSON. Its policy allows that one script and that one
style by their hashes. Texts reach the page as text nodes only; without scripts, question and answer are still there.
Nothing here needs the sidecar's extra.

The viewer's built script and style, read from the package once.
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
from ...core.store.protocol import RunStatus
from ...core.version import __version__


@cache
def asset(name: str) -> str:
    """The text of a built file: `app.js`, `app.css` or `THIRD_PARTY.txt`."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


MAX_TITLE_CHARS = 80


def trace_html(events: Sequence[Event], status: RunStatus | None = None) -> str:
    """A run's page.

    Args:
        events: The run's events, in order; with text deltas, tokens are shaded within the text.
        status: How the run is, as the store has it; None where only the events are known.

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
    """A verification's page: the text with its claims marked, and the evidence for each.

    Args:
        verification: The verification of a text.

    Returns:
        A complete HTML document.
    """
    carried = {"kind": "verification", "version": __version__, "found": verification.model_dump(mode="json")}
    return _html_page(verification.question or "A text, verified", verification.answer, carried)


def json_in_html(value: Any) -> str:
    """JSON that may are in a script element whatever its texts are: nothing in it ends the element or the line."""
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
        '<p class="soft">Scripts are off: this page needs its own to show more.</p></main></noscript>\n'
        f'<script type="application/json" id="data">{json_in_html(_finite(carried))}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _outcome_of(events: Sequence[Event]) -> str:
    """How the run ended, in a line for who sees no more."""
    for event in reversed(events):
        if isinstance(event, RunFinished):
            answer = event.answer.answer
            return "No answer was found in the text." if answer is None else answer
        if isinstance(event, RunFailed):
            return f"The run failed: {event.message}"
    return "The run was not finished."


def _finite(value: Any) -> Any:
    """The same with infinities and what is no number as strings, which JSON can hold."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case _:
            return value
