"""Weights of particles: log-potentials, softmax, effective sample size, resampling schemes, temperatures.

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618), section 3, and its parallel tempering (NeurIPS version,
equation 4); Doucet and Johansen, "A Tutorial on Particle Filtering and Smoothing" (2009) for the schemes; the entropic
rule is that of the authors' library `its_hub`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Literal

from ...core.errors import UserError

CLIP = 1e-4
"""Scores count as at least this, and as logits at most 1 less this. Differs: the authors' programs clip at 2e-16 and
1e-7, so that a single saturated score takes all the weight."""
REFERENCE_CLIP = 1e-7
"""The clip of the authors' library `its_hub`."""

WeightMode = Literal["odds", "likelihood", "telescoped"]
EntropicForm = Literal["size", "entropy"]


def log_level(r: float, level: Literal["log", "logit"], clip: float = CLIP) -> float:
    """The logarithm or the logit of a score in [0, 1], finite at both ends."""
    low = max(r, clip)
    if level == "log":
        return math.log(low)
    low = min(low, 1 - clip)
    return math.log(low) - math.log1p(-low)


def log_potential(mode: WeightMode, r: float, previous: float | None, clip: float = CLIP) -> float:
    """The logarithm of a step's potential G, at temperature 1.

    - "odds": logit(r). The published method; r is the score of the prefix and acts again at every step.
    - "likelihood": log r, the paper's model; r is the score of the step, or of the prefix.
    - "telescoped": log r - log previous, without the latter for the first step; along a path they sum to the log of the
      last score, so only that counts.

    Args:
        mode: The form of the potential.
        r: Score in [0, 1].
        previous: Score of the prefix before the step; None for the first step.
        clip: How close to 0 and 1 a score may come.
    """
    if mode == "odds":
        return log_level(r, "logit", clip)
    if mode == "likelihood":
        return log_level(r, "log", clip)
    return log_level(r, "log", clip) - (0.0 if previous is None else log_level(previous, "log", clip))


def softmax(log_weights: Sequence[float]) -> list[float]:
    """theta_i = exp(w_i - max w) / sum_j exp(w_j - max w).

    Args:
        log_weights: w, `[particles]`, at least one; -inf is a weight of 0, but not for all of them.

    Raises:
        UserError: There are none, one is NaN or +inf, or all are -inf.
    """
    top = max(log_weights, default=math.nan)
    if not math.isfinite(top) or any(math.isnan(w) for w in log_weights):
        raise UserError("log-weights need one finite value, and neither NaN nor +inf")
    raised = [math.exp(w - top) for w in log_weights]
    total = math.fsum(raised)
    return [value / total for value in raised]


def log_sum(log_weights: Sequence[float]) -> float:
    """The logarithm of sum_i exp(w_i), without overflow."""
    top = max(log_weights)
    return top + math.log(math.fsum(math.exp(w - top) for w in log_weights))


def effective_size(theta: Sequence[float]) -> float:
    """ESS = 1 / sum theta_i^2, from 1 to the number of particles; theta sums to 1."""
    return 1 / math.fsum(value * value for value in theta)


def multinomial(theta: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` indices sampled from theta with replacement; one uniform each."""
    return rng.choices(range(len(theta)), weights=theta, k=n)


def systematic(theta: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` indices at evenly spaced points of theta's distribution function, ascending; one uniform in all.

    Index i comes floor or ceil of `n * theta_i` times, without exception, since the sums are exact.
    """
    shares = [Fraction(value) for value in theta]
    total = sum(shares, Fraction())
    start = Fraction(rng.random())
    chosen: list[int] = []
    reached = Fraction()
    for i, share in enumerate(shares):
        reached += share
        while len(chosen) < n and (start + len(chosen)) * total < reached * n:
            chosen.append(i)
    return chosen


def swap_probability(tau_hot: float, tau_cold: float, log_hot: float, log_cold: float) -> float:
    """Probability to swap the references of two chains, so that both chains keep their targets.

        A = min(1, exp((1/tau_hot - 1/tau_cold) * (log_cold - log_hot)))

    The targets are p_M(x) exp(L(x)/tau); the model's part cancels. Symmetric in the two chains; 1 at equal
    temperatures, and if the hotter chain holds the larger L.

    Args:
        tau_hot: Temperature of one chain, above 0.
        tau_cold: Temperature of the other.
        log_hot: L of the first chain's reference: the sum of its untempered log-potentials.
        log_cold: L of the other's.
    """
    return math.exp(min(0.0, (1 / tau_hot - 1 / tau_cold) * (log_cold - log_hot)))


def entropic_temperature(theta: Sequence[float], progress: float, form: EntropicForm = "size") -> float:
    """Temperature of the weights at a step: above 1 if few particles carry the weight early on.

    1 unless ESS/N and progress are both below 1/2. Else, at least 1:

    - "size": (1 - progress) / (ESS/N);
    - "entropy": 1 / (H + (1 - H) * progress), with H the entropy of theta over log N.

    Args:
        theta: Weights at temperature 1, summing to 1, `[particles]`.
        progress: Steps taken over the maximum steps, in [0, 1].
        form: The rule.
    """
    ratio = effective_size(theta) / len(theta)
    if ratio >= 0.5 or progress >= 0.5:
        return 1.0
    if form == "size":
        return max(1.0, (1 - progress) / ratio)
    entropy = -math.fsum(value * math.log(value) for value in theta if value > 0) / math.log(len(theta))
    share = entropy + (1 - entropy) * progress
    return max(1.0, 1 / share) if share > 0 else float(len(theta))  # before the first step there would be no bound
