"""`concordance`: how far each reviewer may be trusted, by how often the others order the same pairs alike.

A reviewer that turns orders round, so that its own side gains, is contradicted by all others and counts for next to
nothing. Who marks everybody alike says nothing, and counts for as little.

What this cannot see: own answers are not reviewed, so two jurors' answers are compared by the others alone. Of four
reviewers those are two, and where they differ on nothing but this one pair, nothing tells which of them is right.

Source: the weight is that of an independent voter who is right with probability c, ln(c / (1 - c)): Nitzan, Paroush,
"Optimal Decision Rules in Uncertain Dichotomous Choice Situations" (International Economic Review 23, 1982). Taking the
agreement of others for being right is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Final

from .opinions import Review
from .ranking import CRITERIA, marks_of

LEAST: Final = 0.05
"""What a review counts for at least, so that a jury in which nobody agrees is one of equals."""


def concordance(
    reviews: Sequence[Review], *, criteria: tuple[float, float, float] = CRITERIA, exclude_self: bool = True
) -> dict[int, float]:
    """The weight of each reviewer.

    c = (agreed + 1) / (compared + 2) over all pairs of candidates and all other reviewers that order the pair, too;
    ties are left out. The weight is ln(c / (1 - c)), and 0.05 where that is less.

    Args:
        reviews: The reviews; one by a reviewer.
        criteria: Weights of the three criteria (see `ranking.rank`).
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Weights by reviewer, of the reviews that are ok. None depends on the order of the reviews.
    """
    marks = {review.reviewer: marks_of(review, criteria, exclude_self=exclude_self) for review in reviews if review.ok}
    orders = {reviewer: _ordered(own) for reviewer, own in marks.items()}
    weights: dict[int, float] = {}
    for reviewer, own in orders.items():
        shared = [
            first == theirs[pair]
            for other, theirs in orders.items()
            if other != reviewer
            for pair, first in own.items()
            if pair in theirs
        ]
        agreed = (sum(shared) + 1) / (len(shared) + 2)
        weights[reviewer] = max(LEAST, math.log(agreed / (1 - agreed)))
    return weights


def _ordered(marks: Mapping[int, Fraction]) -> dict[tuple[int, int], int]:
    """Which of every two candidates is the better one, for those that are not equal."""
    return {(a, b): a if marks[a] > marks[b] else b for a, b in combinations(sorted(marks), 2) if marks[a] != marks[b]}
