"""Reading what the model replied: yes or no, a list, the number of a choice, a step."""

from __future__ import annotations

import re

from ...core.messages import Completion
from ..candidates import whole_sentences
from ..reading import read

MOST_ITEM_CHARS = 400
"""Longest item of a list, in characters; what is longer is cut."""
_WRAPPING = r"[\s*_`\"'“”‘’(\[#>-]{0,8}"  # noqa: RUF001 (typographic quotes are meant)
_YES_NO = re.compile(rf"{_WRAPPING}(yes|no)(?![\w-]|['’]\w)", re.IGNORECASE)  # noqa: RUF001
_LABEL = re.compile(
    r"[\s#*_>]{0,8}(?:step|(?:result\sof\s)?subtask)\s{1,2}\d{1,3}(?:,?\s(?:improved|again))?[\s*_]{0,4}"
    r"(?:[:.)–—-][\s*_]{0,4}|\n)",  # noqa: RUF001 (dashes are meant)
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"[\s#*_>(]{0,8}(?:(?:sub-?task|plan|task|option)\s{1,2}\(?\d{1,2}[\s*_]{0,4}(?:[:.)–—-]|$)"  # noqa: RUF001
    r"|\d{1,2}\s?[.):](?!\d))",
    re.IGNORECASE,
)
_HEADED = re.compile(r"[\s*_]{0,4}(?:sub-?task|plan|task|option)\s{1,2}\d{1,2}[\s*_]{0,4}[:.)–—-]", re.IGNORECASE)  # noqa: RUF001
_BULLET = re.compile(r"\s{0,8}[-*•+]\s")
_DECORATION = " \t\r\n*_#`"
_ALONE = r"(?![\d.,]?\d)"
_FIRST = re.compile(
    rf"{_WRAPPING}(?:(?:plan|option|number|choice)\s{{0,2}}[#:]?\s{{0,2}})?{_WRAPPING}(\d{{1,2}}){_ALONE}"
    r"(?!\s{0,2}(?:,|/|&|and|or|vs\.?)\s{0,2}(?:plan\s{0,2})?\d)",
    re.IGNORECASE,
)
_PRAISED = re.compile(
    r"(?:best|promising|choose|chose|chosen|pick|prefer|preferred|select|selected)\b[^\d\n]{0,40}?(\d{1,2})(?![\d.,]?\d)"
    r"|plan\s{0,2}#?(\d{1,2})\b[^\d\n.]{0,40}?\b(?:best|most promising)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\bplan\s{0,2}#?(\d{1,2})\b", re.IGNORECASE)


def read_yes_no(reply: str) -> bool | None:
    """Whether a reply says yes; None if it says neither.

    Its first word decides, and nothing else: a "yes" further on, or as part of another word, is none.
    """
    found = _YES_NO.match(read(reply).text)
    return None if found is None else found[1].lower() == "yes"


def read_list(reply: str, most: int) -> list[str]:
    """The items of a list, without their numbers; empty if there is no list.

    Items are lines that begin with a number or a heading such as "Subtask 2:"; where there are none, with a bullet.
    What stands on lines directly below belongs to the item; an item that only repeats another is left out.

    Args:
        reply: The reply.
        most: Most items; the others are dropped.
    """
    lines = read(reply).text.splitlines()
    marker = _NUMBERED if any(_NUMBERED.match(line) for line in lines) else _BULLET
    items: list[list[str]] = []
    takes = False
    for line in lines:
        mark = marker.match(line)
        if mark is not None:
            again = _HEADED.match(line, mark.end())  # "1. Plan 1: …"
            items.append([line[again.end() if again else mark.end() :]])
            takes = True
        elif takes and line.strip():
            items[-1].append(line)
        elif takes:
            takes = not "".join(items[-1]).strip(_DECORATION)  # below a heading there may be a blank line
    texts = [" ".join(" ".join(line.strip(_DECORATION) for line in item).split()) for item in items]
    texts = [text.replace("**", "").strip(_DECORATION + ":")[:MOST_ITEM_CHARS].rstrip() for text in texts]
    different: dict[str, str] = {}
    for text in texts:
        if text:
            different.setdefault(text.casefold(), text)
    return list(different.values())[:most]


def read_number(reply: str, most: int) -> int | None:
    """The number, from 1 to `most`, of what a reply chooses; None if it cannot be told.

    It is what the reply begins with, else what it calls the best, else the only plan that it names.
    """
    text = read(reply).text
    first = _FIRST.match(text)
    if first is not None and 1 <= int(first[1]) <= most:
        return int(first[1])
    praised = [int(m[1] or m[2]) for m in _PRAISED.finditer(text)]
    named = {number for number in praised if 1 <= number <= most}
    if not named:
        named = {int(m[1]) for m in _NAMED.finditer(text)}
    return named.pop() if len(named) == 1 and 1 <= min(named) <= most else None


def read_step(reply: Completion) -> str:
    """The step in a reply, without thoughts and without its number; cut short, up to its last whole sentence."""
    text = read(reply.text).text
    label = _LABEL.match(text)
    text = text[label.end() :] if label else text
    if reply.finish_reason != "stop":
        text = whole_sentences(text).strip() or text
    return text.strip().rstrip(_DECORATION).rstrip()
