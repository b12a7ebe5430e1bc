"""Votes over pools of paths: answers that are equal are put together, then counted."""

from __future__ import annotations

from collections.abc import Sequence

from ..equivalence import Equivalence
from .reading import Pool
from .voting import Method, Vote, VoteOptions, vote


async def count_pools(pools: Sequence[Pool], method: Method, options: VoteOptions) -> list[Vote]:
    """One vote for each question.

    Raises:
        UnknownName: There is no such method.
    """
    votes = []
    async with Equivalence() as equivalence:
        for pool in pools:
            classes = await equivalence.group([path.answer for path in pool.paths], pool.kind)
            votes.append(vote(pool.paths, classes, method, options))
    return votes
