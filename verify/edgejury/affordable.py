"""`Affordable`: what of a jury a limit of model calls allows.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for the calls of each stage; the rule is our own: below n + 2 calls
a majority vote, below 2n + 1 no review, and stage 4 only as far as calls are left for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Affordable:
    """What there are calls for.

    Attributes:
        jurors: How many jurors can be asked, at least 1.
        review: Whether they can review one another.
        chair: Whether there can be a chair.
        label_calls: Calls left for stage 4, where it needs any.
    """

    jurors: int
    review: bool
    chair: bool
    label_calls: float


def affordable(calls: float, jurors: int) -> Affordable:
    """What a number of calls allows.

    Args:
        calls: Calls that are left; infinite without a limit.
        jurors: Jurors that are wanted.
    """
    n = jurors if calls == math.inf else max(1, min(jurors, int(calls)))
    return Affordable(
        jurors=n,
        review=calls >= 2 * jurors + 1,
        chair=calls >= jurors + 2,
        label_calls=max(0.0, calls - (2 * jurors + 1)),
    )
