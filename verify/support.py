"""`Support`: what a text says of a claim, as probabilities over supports, refutes and says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

Label = Literal["supports", "refutes", "neutral"]

_TIES: tuple[Label, ...] = ("neutral", "refutes", "supports")
"""Who wins among equals: the more careful one."""


class Support(NamedTuple):
    """Probabilities of the three relations of a text to a claim; they sum to 1."""

    supports: float
    refutes: float
    neutral: float

    @property
    def label(self) -> Label:
        """The likeliest; among equals neutral, then refutes."""
        return max(_TIES, key=lambda label: getattr(self, label))

    @property
    def confidence(self) -> float:
        """Probability of the likeliest."""
        return max(self)


NOTHING = Support(0.0, 0.0, 1.0)
"""What no evidence says."""


def support(weights: Iterable[float]) -> Support:
    """Three non-negative weights (supports, refutes, neutral), normalised.

    Raises:
        ValueError: There are not three, one is negative or no number, or all are 0.
    """
    three = tuple(weights)
    if len(three) != 3 or not all(math.isfinite(w) and w >= 0 for w in three) or sum(three) == 0:
        raise ValueError(f"{three} are no weights of three labels")
    total = math.fsum(three)
    return Support(*(w / total for w in three))
