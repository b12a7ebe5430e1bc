"""How untrusted text is quoted in a prompt: as data between fences that it cannot close.

All text of knowledge sources and memory passes through here before it becomes part of a prompt:

- invisible characters are removed: control characters, direction marks, and tag characters, which can hide text from
  people but not from models;
- whatever a tokenizer may read as a control token, such as `<|im_start|>`, `</s>`, `[INST]` or `<<SYS>>`, is broken up
  by a space, by its form and not by a list; likewise the fences;
- every line of a snippet begins with `> `, so that none can look like the beginning of a turn or an instruction;
- the text is cut at a number of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .knowledge import Snippet

MAX_CHARS = 1200
"""Characters of a text that are shown by default."""

MAX_SOURCE_CHARS = 160

OPENING, CLOSING = "<snippets>", "</snippets>"

_ELLIPSIS = " …"
_INPUT_FACTOR = 8
"""Characters read for each character shown: removal may leave few."""

# fmt: off
_LOOKALIKES = str.maketrans({
    "\uff1c": "<", "\ufe64": "<", "\uff1e": ">", "\ufe65": ">", "\uff3b": "[", "\uff3d": "]", "\ufe47": "[",
    "\ufe48": "]", "\uff5c": "|", "\uff0f": "/",
})
# fmt: on
"""Characters that some tokenizers normalise to the brackets of a control token."""

_JOINERS = "\u200c\u200d"
"""Invisible, but part of the spelling of several scripts; removed elsewhere."""

_STRAY_JOINER = re.compile(f"(?<![^\\x00-\\x7f\\s])[{_JOINERS}]+|[{_JOINERS}]+(?![^\\x00-\\x7f\\s])")
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_CONTROL_TOKEN_SPLIT = re.compile(
    r"(?<=<)(?=[^\s=])"  # <|im_start|>, </s>, <unk>, <start_of_turn>, <<SYS>>
    r"|(?<=\[)(?=/?\w{0,60}[A-Z]\w{0,60}\])"  # [INST], [/INST], [TOOL_CALLS], [gMASK]
    r"|(?<=[\]~])(?=~|!|b[\[\]])|(?<=~)(?=[\[\]])|(?<=\[)(?=e~)"  # ]~b], ]~!b[, [e~[
    r"|(?<=>)(?=>)|(?<=\|)(?=>)"  # >>QUESTION<<, and the end of <|...|>
)
"""Positions where a space is inserted: between two characters, so that matches cannot overlap."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_LINE_ENDS = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def quote_snippets(snippets: Sequence[Snippet], *, max_chars: int = MAX_CHARS) -> str:
    """Snippets as numbered data for a prompt, between the fences `<snippets>` and `</snippets>`.

    Each snippet has a line with its number, from 1, and its source, and then lines that begin with `> `. A text longer
    than `max_chars` is cut and ends with an ellipsis. No snippets give the empty string.
    """
    if not snippets:
        return ""
    lines = [OPENING]
    for number, snippet in enumerate(snippets, 1):
        lines.append(f"[{number}] source: {quote_line(snippet.source_id, MAX_SOURCE_CHARS) or 'unknown'}")
        lines.append(quote_lines(snippet.text, max_chars))
    lines.append(CLOSING)
    return "\n".join(lines)


def quote_lines(text: str, max_chars: int = MAX_CHARS) -> str:
    """An untrusted text with its lines kept, each after `> `; for callers with their own fences."""
    quoted = _truncate(_neutralize(text, max_chars, keep_lines=True), max_chars)
    return "\n".join(f"> {line}" for line in quoted.split("\n"))


def quote_line(text: str, max_chars: int = MAX_CHARS) -> str:
    """An untrusted text on one line; idempotent."""
    return _truncate(_neutralize(text, max_chars, keep_lines=False), max_chars)


def find_quotation(text: str, quotation: str, after: int = 0) -> tuple[int, int] | None:
    """Start and end of a quotation in a text: of complete words, with any whitespace, or a quoted line's mark, between.

    Args:
        quotation: A quotation by a model; one longer than the text is not in it.
        after: Where to search first; the text before it is searched only if there is no match.
    """
    words = quotation.split()
    if not words or len(quotation) > 2 * len(text) + 100:
        return None
    first = r"(?<!\w)" if words[0][0].isalnum() else ""
    last = r"(?!\w)" if words[-1][-1].isalnum() else ""
    pattern = re.compile(first + r"(?:\s+>)?\s+".join(map(re.escape, words)) + last)
    match = pattern.search(text, after) or pattern.search(text)
    return match.span() if match else None


def remove_invisible(text: str) -> str:
    """A text without invisible characters, with lookalike brackets and line ends normalised."""
    text = _LINE_ENDS.sub("\n", text.translate(_LOOKALIKES))
    text = "".join(c for c in text if c in "\n\t" or c in _JOINERS or unicodedata.category(c) not in _INVISIBLE)
    return _STRAY_JOINER.sub("", _VARIATION.sub("", text))


def _neutralize(text: str, max_chars: int, *, keep_lines: bool) -> str:
    text = remove_invisible(text[: _INPUT_FACTOR * max_chars + 1])
    lines = [" ".join(line.split()) if not keep_lines else line.rstrip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    text = "\n".join(lines) if keep_lines else " ".join(lines)
    return _CONTROL_TOKEN_SPLIT.sub(" ", text)


def _truncate(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    return (text[: max(0, max_chars - len(_ELLIPSIS))].rstrip().rstrip(_JOINERS) + _ELLIPSIS).lstrip()[:max_chars]
