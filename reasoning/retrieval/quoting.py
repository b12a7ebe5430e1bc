"""How text of somebody else's is put before a model: as data, between fences that it cannot close.

All that brains and memory hold goes through here before it is part of a prompt. What is done to a text:

- characters that are not seen (control characters, marks of writing direction, tag characters, which have been used to
  hide words from people and not from models) are taken out;
- whatever a tokenizer may read as one of its control tokens, such as `<|im_start|>`, `</s>`, `[INST]` or `<<SYS>>`, is
  broken up by a blank, by its form and not by a list of known ones; likewise the fences;
- every line of a snippet begins with `> `, so that none can look like the beginning of a turn or of an instruction;
- it is cut at a number of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .sources.protocol import Snippet

MAX_CHARS = 1200
"""Characters of one text that are shown, unless told otherwise."""

MAX_SOURCE_CHARS = 160
"""Characters of the name of a source that are shown."""

OPENING, CLOSING = "<snippets>", "</snippets>"

_CUT = " …"
_LOOKED_AT = 8
"""How many times the characters that are shown are looked at: what is taken out may leave few."""

# fmt: off
_LOOKALIKES = str.maketrans({
    "\uff1c": "<", "\ufe64": "<", "\uff1e": ">", "\ufe65": ">", "\uff3b": "[", "\uff3d": "]", "\ufe47": "[",
    "\ufe48": "]", "\uff5c": "|", "\uff0f": "/",
})
# fmt: on
"""Characters that some tokenizers turn into the brackets of a control token before they look for one."""

_JOINERS = "\u200c\u200d"
"""Not seen, but part of how words of several scripts are written; elsewhere they are taken out."""

_STRAY_JOINER = re.compile(f"(?<![^\\x00-\\x7f\\s])[{_JOINERS}]+|[{_JOINERS}]+(?![^\\x00-\\x7f\\s])")
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_SEAM = re.compile(
    r"(?<=<)(?=[^\s=])"  # <|im_start|>, </s>, <unk>, <start_of_turn>, <<SYS>>
    r"|(?<=\[)(?=/?\w{0,60}[A-Z]\w{0,60}\])"  # [INST], [/INST], [TOOL_CALLS], [gMASK]
    r"|(?<=[\]~])(?=~|!|b[\[\]])|(?<=~)(?=[\[\]])|(?<=\[)(?=e~)"  # ]~b], ]~!b[, [e~[
    r"|(?<=>)(?=>)|(?<=\|)(?=>)"  # >>QUESTION<<, and the end of <|...|>
)
"""Where a blank goes: places between two characters, so that one never hides another."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_LINE_ENDS = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def quote_snippets(snippets: Sequence[Snippet], *, most_chars: int = MAX_CHARS) -> str:
    """Snippets as numbered, delimited data for a prompt.

    Args:
        snippets: What to show, in order; they are numbered from 1.
        most_chars: Most characters of each text; what is longer is cut and ends with an ellipsis.

    Returns:
        Lines; between the fences `<snippets>` and `</snippets>` each snippet has a line with its number and source, and
        lines that begin with `> `. The empty string if there are no snippets.
    """
    if not snippets:
        return ""
    lines = [OPENING]
    for number, snippet in enumerate(snippets, 1):
        lines.append(f"[{number}] source: {quote_line(snippet.source_id, MAX_SOURCE_CHARS) or 'unknown'}")
        lines.append(quote_lines(snippet.text, most_chars))
    lines.append(CLOSING)
    return "\n".join(lines)


def quote_lines(text: str, most_chars: int = MAX_CHARS) -> str:
    """One text of somebody else's for a prompt, its lines kept, each behind `> `; for whoever sets fences of his own.

    Args:
        text: The text.
        most_chars: Most characters; what is longer is cut and ends with an ellipsis.
    """
    shown = _cut(_broken_up(text, most_chars, keep_lines=True), most_chars)
    return "\n".join(f"> {line}" for line in shown.split("\n"))


def quote_line(text: str, most_chars: int = MAX_CHARS) -> str:
    """One text of somebody else's for a prompt, on one line; doing it twice changes nothing more.

    Args:
        text: The text.
        most_chars: Most characters; what is longer is cut and ends with an ellipsis.
    """
    return _cut(_broken_up(text, most_chars, keep_lines=False), most_chars)


def visible_text(text: str) -> str:
    """A text without the characters that are not seen, brackets that look like others made plain, line ends alike."""
    text = _LINE_ENDS.sub("\n", text.translate(_LOOKALIKES))
    text = "".join(c for c in text if c in "\n\t" or c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    return _STRAY_JOINER.sub("", _VARIATION.sub("", text))


def _broken_up(text: str, most_chars: int, *, keep_lines: bool) -> str:
    """The text without anything that could be taken for more than text."""
    text = visible_text(text[: _LOOKED_AT * most_chars + 1])
    lines = [" ".join(line.split()) if not keep_lines else line.rstrip() for line in text.split("\n")]
    lines = [line for line in lines if line]  # blank lines say nothing here
    text = "\n".join(lines) if keep_lines else " ".join(lines)
    return _SEAM.sub(" ", text)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return (text[: max(0, most - len(_CUT))].rstrip().rstrip(_JOINERS) + _CUT).lstrip()[:most]
