"""Scores of aspects in JSON: plain, in objects with a reason, below one another, or as a list of named scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .aspects import NAMED
from .scores_in_text import score_at

_MOST_ATTEMPTS = 64  # to find JSON: each may read to the text's end
_DEEPEST = 8
_SCORE_KEYS = ("score", "value", "rating")


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs: names may come twice."""


def scores_in_json(text: str) -> dict[str, int | None]:
    """The scores by aspect.

    Returns:
        One entry for each aspect that the text's JSON names: its last score, None where it has none that is valid. An
        empty dictionary where there is no JSON, or none that names an aspect.
    """
    found: dict[str, int | None] = {}
    for value in _values(text):
        for aspect, score in _named(value, _DEEPEST):
            if score is not None or aspect not in found:
                found[aspect] = score
    return found


def _values(text: str) -> Iterator[Any]:
    """The objects and lists in JSON that stand in a text, outermost ones only."""
    decoder = json.JSONDecoder(object_pairs_hook=_Object)
    position = 0
    for _ in range(_MOST_ATTEMPTS):
        starts = [at for at in (text.find("{", position), text.find("[", position)) if at >= 0]
        if not starts:
            return
        try:
            value, position = decoder.raw_decode(text, min(starts))
        except (ValueError, RecursionError):
            position = min(starts) + 1
        else:
            yield value


def _named(value: Any, depth: int) -> Iterator[tuple[str, int | None]]:
    """Aspects with their scores, in the order in which they stand."""
    if depth == 0 or not isinstance(value, list):
        return
    if not isinstance(value, _Object):
        for item in value:
            yield from _named(item, depth - 1)
        return
    aspects = [_aspect(key) for key, _ in value]
    if not any(aspects):
        said = [aspect for _, text in value if isinstance(text, str) and (aspect := _aspect(text))]
        score = _score_of_keys(value)
        if len(said) == 1 and score is not None:  # {"aspect": "A1", "score": 2}
            yield said[0], score
            return
    for (key, inner), aspect in zip(value, aspects, strict=True):
        if aspect is None:
            yield from _named(inner, depth - 1)
        else:
            yield aspect, _score(inner, plain=key.strip().upper() == aspect)


def _aspect(key: str) -> str | None:
    """The aspect that a key begins with, as in "A1", "**A1**" and "A1: correctness"."""
    found = NAMED.search(key[:12])
    return found[1].upper() if found and not any(c.isalnum() for c in key[: found.start()]) else None


def _score(value: Any, *, plain: bool) -> int | None:
    """The score that a value is or holds.

    Args:
        value: A JSON value.
        plain: Whether its key is the aspect's name and no more: only then may a text begin with a score and go on.
    """
    if isinstance(value, _Object):
        by_key = _score_of_keys(value)
        return by_key if by_key is not None else _only(inner for _, inner in value)
    if isinstance(value, list):
        return _only(value)
    if isinstance(value, str) and plain:
        return score_at(value.strip())
    return _scalar(value)


def _score_of_keys(pairs: _Object) -> int | None:
    scores = [_scalar(inner) for key, inner in pairs if key.strip().lower() in _SCORE_KEYS]
    return next((score for score in reversed(scores) if score is not None), None)


def _only(values: Iterator[Any] | list[Any]) -> int | None:
    scores = [score for value in values if (score := _scalar(value)) is not None]
    return scores[0] if len(scores) == 1 else None


def _scalar(value: Any) -> int | None:
    """A number or a text that is a score and nothing else; truth values are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if value in (0, 1, 2, 3) else None
    if isinstance(value, str) and len(value) <= 12 and not any(c.isalpha() for c in value):
        return score_at(value.strip())
    return None
