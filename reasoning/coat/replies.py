"""Reading what the model replied about knowledge and scores: JSON where it is JSON, else whatever can be made out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.messages import NextToken

MOST_ITEMS = 32
_OBJECT = re.compile(r"\{[^{}]*\}")
_TEXT = re.compile(r'"text"\s*:\s*"((?:[^"\\]|\\.){1,2000})"')
_SOURCE = re.compile(r'"source(?:_id)?"\s*:\s*"?\[?\s*(\d{1,3})')
_LINE = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|\[(?P<source>\d{1,3})\])\s+(?P<text>\S.*)$")
_NUMBER = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,4})?(?![\d.]*\d)")
_NOTHING = re.compile(r'\W*(?:none|nothing(?: to add)?|n/?a|\{\s*"items"\s*:\s*\[\s*\]\s*\}|\[\s*\])\W*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """An item as the model proposed it.

    Attributes:
        text: The knowledge.
        source: Number of the snippet that it names, from 1; None if it names none.
    """

    text: str
    source: int | None = None


def read_items(reply: str) -> tuple[list[Said], bool]:
    """The items of a reply.

    A reply that was cut short gives those that are whole.

    Returns:
        The items in order, and whether the reply could be read: an empty list of items can.
    """
    if _NOTHING.fullmatch(reply):
        return [], True
    found = _json_items(reply)
    if found is not None:
        return found[:MOST_ITEMS], True
    objects = [_item_of(piece) for piece in _OBJECT.findall(reply)]
    said = [item for item in objects if item is not None]
    if not said:
        said = [
            Said(m["text"].strip(), int(m["source"]) if m["source"] else None)
            for m in map(_LINE.match, reply.splitlines())
            if m is not None
        ]
    return said[:MOST_ITEMS], bool(said)


def read_scores(reply: str, aspects: Sequence[str]) -> list[float | None]:
    """Scores from 0 to 10 as numbers in [0, 1]; clipped.

    Args:
        reply: The reply, JSON or not.
        aspects: What was asked for, in order.

    Returns:
        One for each aspect: what stands behind its name, else the number at its place among all numbers; None where
        there is none.
    """
    named = [_named(reply, aspect) for aspect in aspects]
    if all(score is not None for score in named):
        return named
    numbers = [
        _scaled(float(n)) for n in _NUMBER.findall(re.sub(r"\s*/\s*10\b|\bout of 10\b|\b0\s*-\s*10\b", " ", reply))
    ]
    if any(score is not None for score in named):
        return named
    return [numbers[i] if i < len(numbers) else None for i in range(len(aspects))]


def expected_digit(told: NextToken) -> float | None:
    """The mean of the digit that comes next, over 9: in [0, 1]; None if digits have less than half of the mass."""
    mass: dict[int, float] = {}
    for token, logprob in zip(told.tokens, told.logprobs, strict=True):
        digit = token.strip(" \t\n\u2581\u0120")
        if len(digit) == 1 and digit in "0123456789":
            mass[int(digit)] = mass.get(int(digit), 0.0) + math.exp(logprob)
    whole = math.fsum(mass.values())
    if whole < 0.5:
        return None
    return math.fsum(digit * p for digit, p in mass.items()) / whole / 9


def _named(reply: str, aspect: str) -> float | None:
    found = re.search(rf'"?\b{re.escape(aspect)}\b"?\s*[:=]\s*"?(\d{{1,3}}(?:\.\d{{1,4}})?)', reply, re.IGNORECASE)
    return None if found is None else _scaled(float(found[1]))


def _scaled(score: float) -> float:
    return min(1.0, score / 10)


def _json_items(reply: str) -> list[Said] | None:
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        data = json.loads(reply[start : end + 1])
    except (ValueError, RecursionError):
        return None
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        return None
    said = [_item(item) for item in items]
    return [item for item in said if item is not None]


def _item(item: Any) -> Said | None:
    if isinstance(item, str):
        return Said(item.strip()) if item.strip() else None
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not item["text"].strip():
        return None
    source = item.get("source", item.get("source_id"))
    number = re.search(r"\d{1,3}", str(source)) if isinstance(source, int | str) else None
    return Said(item["text"].strip(), None if number is None else int(number[0]))


def _item_of(piece: str) -> Said | None:
    """One item out of a piece of text that looks like its JSON."""
    text, source = _TEXT.search(piece), _SOURCE.search(piece)
    if text is None:
        return None
    try:
        said = str(json.loads(f'"{text[1]}"'))
    except ValueError:
        said = text[1]
    return Said(said.strip(), None if source is None else int(source[1])) if said.strip() else None
