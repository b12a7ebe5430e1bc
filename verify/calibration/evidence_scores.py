"""How well named evidence meets the right evidence: precision, recall, F1, and FEVER's recall of whole sets."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable
from typing import NamedTuple


class Attribution(NamedTuple):
    """Named against right texts.

    Attributes:
        precision: Share of the named texts that are right; 0 if none is named.
        recall: Share of the right texts that are named.
        f1: Their harmonic mean; 0 if none of the named is right.
    """

    precision: float
    recall: float
    f1: float


def attribution(named: Collection[Hashable], right: Collection[Hashable]) -> Attribution | None:
    """Precision, recall and F1 of the named texts.

    Args:
        named: What a verdict rests on.
        right: What it should rest on.

    Returns:
        The three; None if no text is right, as of a claim without evidence: such a row is skipped and is no success.
    """
    given, gold = set(named), set(right)
    if not gold:
        return None
    both = len(given & gold)
    return Attribution(both / len(given) if given else 0.0, both / len(gold), 2 * both / (len(given) + len(gold)))


def evidence_recall(named: Collection[Hashable], sets: Collection[Collection[Hashable]]) -> float | None:
    """1 if one of the sets, each of which alone is enough, is named whole, else 0.

    Source: Thorne et al. 2018, "FEVER: a Large-scale Dataset for Fact Extraction and VERification", section 5.

    Args:
        named: What a verdict rests on.
        sets: The sufficient sets; an empty one is none.

    Returns:
        1 or 0; None if there is no set: such a row is skipped.
    """
    given, enough = set(named), [set(one) for one in sets if one]
    if not enough:
        return None
    return float(any(one <= given for one in enough))


def mean_attribution(rows: Iterable[Attribution | None]) -> tuple[Attribution | None, int]:
    """Means over the rows that are not skipped, and how many those are; None and 0 if all are skipped."""
    kept = [row for row in rows if row is not None]
    if not kept:
        return None, 0
    n = len(kept)
    means = (math.fsum(values) / n for values in zip(*kept, strict=True))
    return Attribution(*means), n
