"""Temperatures of particle methods: swapping between chains, softening where few particles carry the weight, annealing.

Source: Puri et al. 2025, arXiv:2502.01618, parallel tempering (NeurIPS version, equation 4); the entropic rule is that
of the authors' library `its_hub`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from .resampling import effective_size

EntropicForm = Literal["size", "entropy"]


def swap_probability(tau_hot: float, tau_cold: float, log_hot: float, log_cold: float) -> float:
    """Chance to swap the references of two chains, so that both chains keep their targets.

        A = min(1, exp((1/tau_hot - 1/tau_cold) * (log_cold - log_hot)))

    The targets are p_M(x) exp(L(x)/tau); the model's part cancels. Symmetric in the two chains; 1 at equal
    temperatures, and where the hotter chain holds the larger L.

    Args:
        tau_hot: Temperature of one chain, above 0.
        tau_cold: Temperature of the other.
        log_hot: L of the first chain's reference: the sum of its untempered log-potentials.
        log_cold: L of the other's.
    """
    return math.exp(min(0.0, (1 / tau_hot - 1 / tau_cold) * (log_cold - log_hot)))


def entropic_temperature(theta: Sequence[float], progress: float, form: EntropicForm = "size") -> float:
    """Temperature of the weights at a step: above 1 where few particles carry the weight early on.

    1 unless ESS/N and progress are both below 1/2. Else, at least 1:

    - "size": (1 - progress) / (ESS/N);
    - "entropy": 1 / (H + (1 - H) * progress), with H the entropy of theta over log N.

    Args:
        theta: Weights at temperature 1, summing to 1, `[particles]`.
        progress: Steps taken over the most steps, in [0, 1].
        form: Which rule.
    """
    ratio = effective_size(theta) / len(theta)
    if ratio >= 0.5 or progress >= 0.5:
        return 1.0
    if form == "size":
        return max(1.0, (1 - progress) / ratio)
    entropy = -math.fsum(value * math.log(value) for value in theta if value > 0) / math.log(len(theta))
    share = entropy + (1 - entropy) * progress
    return max(1.0, 1 / share) if share > 0 else float(len(theta))  # before the first step there would be no bound


def annealed_temperature(step: int, first: float, last: float, steps: int) -> float:
    """Temperature that falls evenly from `first` towards `last` over so many steps, and stays there.

    first - (first - last) * step / (steps - 1) for step < steps, then `last`; steps count from 0.
    """
    return last if step >= steps - 1 else first - (first - last) * step / (steps - 1)
