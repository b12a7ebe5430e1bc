"""`fuse_rankings`: reciprocal-rank fusion.

Source: Cormack, Clarke, Buettcher (2009), "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
methods", section 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)

K = 60
"""The constant of the paper: the larger, the less the first ranks weigh against later ones."""


def fuse_rankings(rankings: Sequence[Sequence[ItemT]], k: float = K) -> list[tuple[ItemT, float]]:
    """(item, score) by the sum over rankings of 1 / (k + rank), best first.

    Ranks count from 1, a ranking without an item adds nothing, and of an item that occurs twice in one the better rank
    counts. Ties are broken by the best single rank, then by the earlier ranking.
    """
    scores: dict[ItemT, float] = {}
    best_rank: dict[ItemT, int] = {}
    for ranking in rankings:
        for rank, item in enumerate(dict.fromkeys(ranking), 1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
            best_rank[item] = min(rank, best_rank.get(item, rank))
    # the sort is stable, and `scores` is in order of appearance
    return sorted(scores.items(), key=lambda pair: (-pair[1], best_rank[pair[0]]))
