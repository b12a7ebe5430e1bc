"""`Pace`: what a step costs by the number of tokens that it computes, and so how many guesses are worth it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Sizes of a step, in tokens, whose times are kept apart."""
FIRST_SLOPE = 0.12
"""Cost of a further token before any was timed, as a share of a step of one: what was measured for bf16 on two cores
(docs/results/engine.md: 37.3 ms with one row, 68.9 with eight)."""
MARGIN = 1.03
"""Guesses must promise this much more than none: below it, looking them up and walking through them eats the gain."""
NEW = 0.2
"""Weight of a new time in the running mean."""
RECOVERY = 0.002
"""How far trust returns to 1 at each step without guesses: texts change, and what was mistrusted is tried again."""


class Pace:
    """Times of steps, and how far the guesses' odds can be trusted.

    Source: the expected number of tokens a pass is 1 plus the sum of the guesses' path probabilities, and the gain that
    times t(1) / t(1 + n) (specification of lookahead decoding, b.6; derived there, not from the paper).
    """

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._trust = 1.0
        self._promised = 0.0
        self._kept = 0.0

    @property
    def trust(self) -> float:
        """Accepted guesses for each that was promised, over the last steps."""
        return self._trust

    def observe(self, tokens: int, seconds: float) -> None:
        """Take the time of a step that computed `tokens` tokens and prefilled nothing."""
        size = _size(tokens)
        known = self._times.get(size)
        if known is None:
            self._times[size] = seconds
        else:  # a step during which something else had the processor says little
            self._times[size] = (1 - NEW) * known + NEW * min(seconds, 2 * known)

    def judge(self, promised: float, accepted: int) -> None:
        """Take how many guesses were accepted of those whose odds add up to `promised`."""
        if promised > 0:
            self._promised = 0.98 * self._promised + promised
            self._kept = 0.98 * self._kept + accepted
            # two guesses of each kind beforehand: the first steps decide nothing
            self._trust = min(1.5, (self._kept + 2) / (self._promised + 2))
        else:
            self._trust += RECOVERY * max(0.0, 1 - self._trust)

    def seconds(self, tokens: int) -> float | None:
        """Estimated time of a step; None while no step was timed.

        Between two sizes it is interpolated. Beyond the largest one it rises as between the last two, or as far as one
        alone was timed, by `FIRST_SLOPE` of it.
        """
        known = sorted(self._times)
        if not known:
            return None
        at = bisect_left(known, tokens)
        if at < len(known) and known[at] == tokens:
            return self._times[tokens]
        if at == 0:
            return self._times[known[0]]
        low = known[at - 1]
        if at < len(known):
            high = known[at]
            share = (tokens - low) / (high - low)
            return (1 - share) * self._times[low] + share * self._times[high]
        single = self._times[known[0]] / (1 + FIRST_SLOPE * (known[0] - 1))
        return self._times[low] + FIRST_SLOPE * single * (tokens - low)

    def worth(self, rows: int, odds: Sequence[float]) -> int:
        """How many guesses to compute beside `rows` rows.

        Args:
            rows: Rows that take a token each anyway.
            odds: Of all guesses, descending.

        Returns:
            The number for which tokens for each second are most; 0 where none is worth its time, or before any step
            was timed.
        """
        alone = self.seconds(rows)
        if alone is None:
            return 0
        best, count, expected = MARGIN * rows / alone, 0, float(rows)
        for i, chance in enumerate(odds, 1):
            expected += self._trust * chance
            time = self.seconds(rows + i)
            if time is not None and expected / time > best:
                best, count = expected / time, i
        return count


def _size(tokens: int) -> int:
    at = bisect_left(SIZES, tokens)
    return SIZES[min(at, len(SIZES) - 1)]
