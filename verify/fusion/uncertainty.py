"""Why a verdict is uncertain: variance within pieces of evidence and between them, and how many pieces there are.

Contradiction raises `between`; vague evidence raises `within`. The words aleatoric and epistemic, by which the paper
calls them, suggest otherwise and are not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..support import Support


class Split(NamedTuple):
    """Variance of a label drawn by a piece of evidence drawn by its weight, summed over labels.

    Attributes:
        total: Σ_y p̄_y (1 - p̄_y) of the mean distribution p̄; `within + between`.
        within: Mean over the pieces of Σ_y p_y (1 - p_y).
        between: Mean squared distance of the pieces from p̄.
    """

    total: float
    within: float
    between: float


def split(distributions: Sequence[Support], weights: Sequence[float] = ()) -> Split:
    """The law of total variance for pieces of evidence, or for the draws of one.

    Source: Alege 2026, "I Know What I Don't Know", arXiv:2603.15670 (there over draws of one latent).

    Args:
        distributions: What each says; none at all have no variance.
        weights: Their weights, at least 0; equal by default. If all are 0 there is no variance either.
    """
    shares = _shares(weights or [1.0] * len(distributions))
    if not shares:
        return Split(0.0, 0.0, 0.0)
    middle = mean_of(distributions, weights)
    pairs = list(zip(shares, distributions, strict=True))
    return Split(
        total=math.fsum(p * (1 - p) for p in middle),
        within=math.fsum(u * p * (1 - p) for u, d in pairs for p in d),
        between=math.fsum(u * (p - m) ** 2 for u, d in pairs for p, m in zip(d, middle, strict=True)),
    )


def mean_of(distributions: Sequence[Support], weights: Sequence[float] = ()) -> Support:
    """Their weighted mean.

    Args:
        distributions: At least one.
        weights: Their weights, at least 0 and not all 0; equal by default.
    """
    first = distributions[0]
    if all(other == first for other in distributions):
        return first  # to the last digit, so that copies change nothing
    shares = _shares(weights or [1.0] * len(distributions))
    return Support(*(math.fsum(u * d[y] for u, d in zip(shares, distributions, strict=True)) for y in range(3)))


def effective_count(weights: Sequence[float]) -> float:
    """(Σ w)² / Σ w²: how many pieces of equal weight they amount to; 0 if there are none or all weights are 0.

    Source: Kish 1965, "Survey Sampling", section 11.7.
    """
    shares = _shares(weights)
    return 1 / math.fsum(u * u for u in shares) if shares else 0.0


def _shares(weights: Sequence[float]) -> list[float]:
    """Weights that sum to 1; empty if all are 0. Divided before they are squared: very small ones have no squares."""
    total = math.fsum(weights)
    return [w / total for w in weights] if total > 0 else []
