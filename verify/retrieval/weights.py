"""`evidence_weights`: how much each retrieved passage counts, from its score and how far its source is believed.

Source: DAVinCI (Rawte, Rossi, Dernoncourt, Lipka 2026, arXiv:2604.21193); the softmax with a temperature and the
credibility are this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...core.errors import UserError

TAU = 1.0


def evidence_weights(scores: Sequence[float], credibility: Sequence[float], tau: float = TAU) -> list[float]:
    """Weights of passages: softmax(score / tau), times credibility, normalised.

    Reciprocal-rank scores lie within 0.05 of each other: with them, a `tau` of 1 weighs passages almost alike.

    Args:
        scores: One for each passage, on any scale.
        credibility: Likewise, each in [0, 1]; 0 leaves a passage out.
        tau: Temperature, above 0; the lower, the more the best passages count.

    Returns:
        Weights that sum to 1; all 0 where nothing is credible.

    Raises:
        UserError: The lengths differ, `tau` is not positive, or a number is out of its range.
    """
    if len(scores) != len(credibility):
        raise UserError(f"{len(scores)} scores and {len(credibility)} credibilities do not go together")
    if not (math.isfinite(tau) and tau > 0):
        raise UserError(f"tau = {tau}: a temperature is above 0")
    if not all(math.isfinite(score) for score in scores):
        raise UserError("a score is not a finite number")
    if not all(0 <= belief <= 1 for belief in credibility):
        raise UserError("a credibility is not in [0, 1]")
    believed = [score for score, belief in zip(scores, credibility, strict=True) if belief > 0]
    if not believed:
        return [0.0] * len(scores)
    # the best one that is believed has the exponent 0, so that not all weights underflow
    best = max(believed)
    raised = [b * math.exp((s - best) / tau) if b > 0 else 0.0 for s, b in zip(scores, credibility, strict=True)]
    total = math.fsum(raised)
    return [value / total for value in raised]
