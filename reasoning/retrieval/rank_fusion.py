"""`fuse`: one ranking out of several, by reciprocal rank.

Source: Cormack, Clarke, Buettcher (2009), "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
methods", section 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)

K = 60
"""The constant of the paper: how little the first places weigh against the later ones."""


def fuse_rankings(rankings: Sequence[Sequence[ItemT]], k: float = K) -> list[tuple[ItemT, float]]:
    """Items by the sum over rankings of 1 / (k + rank), ranks from 1; a ranking without an item adds nothing to it.

    Args:
        rankings: Each with the best first. Of an item that one ranking has twice, the better place counts.
        k: At least 0.

    Returns:
        (item, score), the best first. Equal scores: the one with the best single place, then the one that an earlier
        ranking has.
    """
    scores: dict[ItemT, float] = {}
    best: dict[ItemT, int] = {}
    for ranking in rankings:
        for rank, item in enumerate(dict.fromkeys(ranking), 1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
            best[item] = min(rank, best.get(item, rank))
    # the sort is stable, and `scores` is in order of appearance
    return sorted(scores.items(), key=lambda pair: (-pair[1], best[pair[0]]))
