"""The baselines: `mean`, `vote` and `most_decisive`, by which verdicts on pieces of evidence are usually combined."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..support import NOTHING, Label, Support
from .uncertainty import mean_of
from .weighing import Weighed


def mean(pieces: Sequence[Weighed]) -> Support:
    """Σ w p / Σ w; of no pieces, nothing."""
    return mean_of([p.probs for p in pieces], [p.weight for p in pieces]) if pieces else NOTHING


def vote(pieces: Sequence[Weighed]) -> Support:
    """Each piece votes for its likeliest label with its weight; half a vote more for each label keeps all possible.

    Of no pieces, nothing.
    """
    if not pieces:
        return NOTHING
    total = math.fsum(p.weight for p in pieces)

    def share(label: Label) -> float:
        return (math.fsum(p.weight for p in pieces if p.probs.label == label) + 0.5) / (total + 1.5)

    return Support(share("supports"), share("refutes"), share("neutral"))


def most_decisive(pieces: Sequence[Weighed]) -> Support:
    """What the piece says whose weight times max(p_S, p_R) is largest; the mean of several such; of none, nothing."""
    if not pieces:
        return NOTHING
    decided = [p.weight * max(p.probs.supports, p.probs.refutes) for p in pieces]
    top = max(decided)
    return mean_of([p.probs for p, value in zip(pieces, decided, strict=True) if value == top])
