"""`sparse_weights`: a sparse linear model of what a text's parts add, fitted to what is left when some are taken away.

Source: Cohen-Wang, Shah, Georgiev, Madry 2024, "ContextCite: Attributing Model Generation to Context",
arXiv:2409.00729, section 3: the logit of the response's probability is fitted by LASSO on which parts are there, over
random subsets of them in which each stands with probability 1/2.
Differs: the logit is divided by the number of the claim's tokens before it is fitted, so that one penalty goes for
claims of any length, and weights are in nats per token, as those of leaving one out are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PENALTY = 0.01
"""Weight of the L1 penalty, in nats per token. Fixed: a penalty chosen by cross-validation over 32 subsets would
itself be a throw of the dice."""

_MOST_STEPS = 2_000_000
"""Most steps of the descent, one part each; it ends by itself long before that."""
_EXACT = 1e-12
_LEAST_LOGPROB = -1e-9
"""Nearest to 0 that a log-probability is taken: the logit of a probability of 1 is infinite."""

Mask = tuple[bool, ...]


class Surrogate(NamedTuple):
    """A fitted linear model.

    Attributes:
        weights: What each part adds, in the unit of the values; 0 for a part that was always there or never.
        constant: The value without any part.
        explained: Share of the values' variance that the model explains, at most 1; 1 where they do not vary.
    """

    weights: tuple[float, ...]
    constant: float
    explained: float


def random_subsets(parts: int, count: int, seed: int) -> list[Mask]:
    """Random subsets of parts, each part in one with probability 1/2.

    Args:
        parts: Number of parts.
        count: Number of subsets; equal ones may be among them.
        seed: Seed of their generator.

    Returns:
        `count` masks of `parts` values: whether the part is kept.
    """
    draws = np.random.default_rng(seed).random((count, parts)) < 0.5
    return [tuple(bool(kept) for kept in row) for row in draws]


def logit_of(logprob: float) -> float:
    """The log-odds of an event, of its log-probability (both in nats)."""
    cut = min(logprob, _LEAST_LOGPROB)
    return cut - math.log(-math.expm1(cut))


def sparse_weights(masks: Sequence[Mask], values: Sequence[float], *, penalty: float = PENALTY) -> Surrogate:
    """Fit `value = constant + sum of the weights of the parts that are there` with few weights that are not 0.

    Minimises `|values - prediction|^2 / (2 n) + penalty * sum of |weight * spread of its part|` by coordinate descent,
    part by part in their order until nothing moves: a convex problem, solved the same way every time. The spread is the
    standard deviation of whether the part is there (about 1/2).

    Args:
        masks: `n` subsets, each telling which parts are there; all of one length, at least one subset.
        values: The `n` values.
        penalty: Weight of the penalty, at least 0; 0 is least squares.

    Raises:
        ValueError: There are no subsets, or not as many values.
    """
    if not masks or len(masks) != len(values):
        raise ValueError(f"{len(values)} values cannot be fitted to {len(masks)} subsets")
    there = np.asarray(masks, dtype=np.float64)
    target = np.asarray(values, dtype=np.float64)
    mean, spread = there.mean(0), there.std(0)
    varies = spread > 0
    columns = (there[:, varies] - mean[varies]) / spread[varies]
    centred = target - target.mean()
    found = _descend(columns, centred, penalty)
    weights = np.zeros(there.shape[1])
    weights[varies] = found / spread[varies]
    total = float(centred @ centred)
    left = centred - columns @ found
    explained = 1.0 if total <= _EXACT else 1.0 - float(left @ left) / total
    return Surrogate(
        weights=tuple(float(w) for w in weights),
        constant=float(target.mean() - mean @ weights),
        explained=explained,
    )


def _descend(columns: NDArray[np.float64], target: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Coordinate descent on columns of mean 0 and variance 1.

    Source: Friedman, Hastie, Tibshirani 2010, "Regularization Paths for Generalized Linear Models via Coordinate
    Descent", section 2.1, equation 5.
    """
    rows, parts = columns.shape
    products = columns.T @ columns / rows
    answers = columns.T @ target / rows
    weights = np.zeros(parts)
    left = answers.copy()  # what the other columns' weights leave of each answer
    scale = max(1.0, float(np.abs(answers).max(initial=0.0)))
    for _ in range(_MOST_STEPS // max(1, parts)):
        moved = 0.0
        for j in range(parts):
            old = float(weights[j])
            alone = float(left[j]) + old  # the column's own product is 1
            new = math.copysign(max(abs(alone) - penalty, 0.0), alone)
            if new != old:
                weights[j] = new
                left -= products[j] * (new - old)
                moved = max(moved, abs(new - old))
        if moved <= _EXACT * scale:
            break
    return weights
