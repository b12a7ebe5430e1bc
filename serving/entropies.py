"""What the entropy of a next token is at least, where only its likeliest alternatives are known."""

from __future__ import annotations

import math
from collections.abc import Sequence


def lower_entropy(logprobs: Sequence[float]) -> float:
    """Entropy in nats if the mass that is not shown lay on a single token: the least that it can be, but for rounding.

    Args:
        logprobs: Log-probabilities of some tokens, in nats.
    """
    shown = [p for p in (math.exp(v) for v in logprobs) if p > 0]
    rest = 1.0 - math.fsum(shown)
    masses = [*shown, rest] if rest > 0 else shown
    return max(0.0, -math.fsum(p * math.log(p) for p in masses))
