"""What two steps have in common: their normal form, and the part of a reply that a model says again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# "Step 3:", "**Step 3.1**", "## Step 3 -", "- 3. ", "(3) "; a bare number needs a blank behind it, so that "3.5 kg" and
# "(2)(3) = 6" stay
_LABEL = re.compile(
    r"(?:[#>*_ ]|-(?= )){0,8}(?:step ?[0-9]{1,3}(?:\.[0-9]{1,3}){0,2}\b"
    r"(?:[*_ ]{0,4}(?:[:.)]|[-\u2013\u2014](?= )))?[*_ ]{0,4}"
    r"|\(?[0-9]{1,3}[.)]{1,2}[*_]{0,3}(?: |$))",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s+")


def normal_step(text: str) -> str:
    """The form by which siblings are compared: NFKC, blanks collapsed, a label such as "Step 3:" gone.

    Source: A*-decoding (Chatziveroglou 2025, arXiv:2505.13672) leaves this open; the form is ours.
    """
    form = _BLANKS.sub(" ", unicodedata.normalize("NFKC", text)).strip()
    label = _LABEL.match(form)
    return form[label.end() :] if label else form


def without_repeated(steps: Sequence[str], text: str) -> str:
    """A text without the steps that it says again before it goes on.

    A model that cannot be given the beginning of its reply is asked to go on from it, and may repeat all of it or its
    end. Blanks do not count in the comparison.

    Args:
        steps: The steps before.
        text: What the model said.

    Returns:
        What follows the longest run of last steps that the text begins with, or of first ones if that is all it says;
        the text itself if it repeats nothing.
    """
    for first in range(len(steps)):
        end = _after(steps[first:], text)
        if end is not None:
            return text[end:].lstrip()
    for last in range(len(steps) - 1, 0, -1):
        end = _after(steps[:last], text)
        if end is not None and not text[end:].strip():
            return ""
    return text


def _after(steps: Sequence[str], text: str) -> int | None:
    """Where the text stands after saying these steps; None if it does not."""
    at = 0
    for word in " ".join(steps).split():
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(word, at):
            return None
        at += len(word)
    return at or None
