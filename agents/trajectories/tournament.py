"""`PivotTournament`: the best of n candidates by O(n) comparisons of two.

    pivot      every candidate is compared with one, the pivot
    knockout   while more than `LEADERS` candidates have beaten the pivot, the weakest are paired, and losers drop out
    leaders    the leaders are compared with each other

A candidate that beats every other one in a comparison (a Condorcet winner) is the best for any judge whose comparisons
are consistent: it loses to nobody, so it leaves none of the three stages. Pure: no model, no clock.

Source: ours. That judging all pairs is not needed to find a best one: a knockout finds a Condorcet winner in n - 1
comparisons; the pivot makes most of them one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from ...core.errors import UserError

LEADERS: Final = 3
"""Candidates that are compared with each other at the end."""

Pair = tuple[int, int]


class PivotTournament:
    """A tournament of candidates 0 to n - 1, of which candidate 0 is the pivot.

    Ask for pairs, tell the margin of each, until `ask` returns none. Of candidates that are equal, or of which nothing
    is known, the lower one is better, so the pivot should be the best guess.

    Args:
        count: Number of candidates, at least 1.

    Raises:
        UserError: There are no candidates.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise UserError(f"a tournament needs at least one candidate, got {count}", hint="give answers to compare")
        self._count = count
        self._margins: dict[Pair, float] = {}
        self._asked: set[Pair] = set()
        self._dropped: set[int] = set()

    def ask(self) -> list[Pair]:
        """The pairs to compare next, none of them twice; empty at the end."""
        if pairs := self._open([(candidate, 0) for candidate in range(1, self._count)]):
            return pairs
        while len(self._standing) > LEADERS:
            order = self._standing
            num_pairs = min(len(order) // 2, len(order) - LEADERS)
            weakest = order[len(order) - 2 * num_pairs :]
            matches = [(weakest[i], weakest[-1 - i]) for i in range(num_pairs)]
            if pairs := self._open(matches):
                return pairs
            self._dropped |= {a if self.margin(a, b) < 0 else b for a, b in matches}
        return self._open(list(combinations(self.leaders, 2)))

    def tell(self, pair: Pair, margin: float | None) -> None:
        """Add the result of a comparison.

        Args:
            pair: The candidates.
            margin: Probability that the first is better, less 1/2; None if the comparison has no result.
        """
        a, b = pair
        self._asked |= {(a, b), (b, a)}
        if margin is not None:
            self._margins[a, b], self._margins[b, a] = margin, -margin

    def margin(self, a: int, b: int) -> float:
        """Probability that a is better than b, less 1/2; 0 if they are not compared."""
        return self._margins.get((a, b), 0.0)

    @property
    def comparisons(self) -> int:
        """Number of comparisons with a result."""
        return len(self._margins) // 2

    @property
    def leaders(self) -> list[int]:
        """The candidates that are left for the last stage, best first by what is known before it."""
        return self._standing[:LEADERS]

    @property
    def ranking(self) -> list[int]:
        """All candidates, best first, by what is known so far.

        Leaders come first: by the number of others whom they beat, a tie counting half, and then by their mean win.
        """
        leaders = self.leaders
        order = sorted(leaders, key=lambda c: (-self._beaten(c, leaders), -self._mean_margin(c, leaders), c))
        dropped = [c for c in range(self._count) if c not in leaders]
        return order + sorted(dropped, key=lambda c: (-self.margin(c, 0), c))

    @property
    def _standing(self) -> list[int]:
        """The candidates that have not dropped out, best first by their comparison with the pivot.

        If someone beats the pivot, who does not beat it stands only if it is needed to fill the leaders.
        """
        order = sorted((c for c in range(self._count) if c not in self._dropped), key=lambda c: (-self.margin(c, 0), c))
        num_winners = sum(self.margin(c, 0) > 0 for c in order)
        return order[: max(num_winners, LEADERS)]

    def _open(self, pairs: Sequence[Pair]) -> list[Pair]:
        return [pair for pair in pairs if pair not in self._asked]

    def _beaten(self, candidate: int, others: Sequence[int]) -> float:
        margins = [self.margin(candidate, other) for other in others if other != candidate]
        return sum(1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins)

    def _mean_margin(self, candidate: int, others: Sequence[int]) -> float:
        return math.fsum(self.margin(candidate, other) for other in others if other != candidate)
