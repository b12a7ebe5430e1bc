"""`product`: a tempered product of distributions, as of independent pieces of evidence on one label.

Exact, and overconfident unless beta is fitted: neighbouring sentences are not independent.

Source: Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670 (P(y|E) ∝ prior · Π φ_e^w); Hinton 2002,
"Training Products of Experts by Minimizing Contrastive Divergence"; Genest and Zidek 1986, "Combining Probability
Distributions" (with beta = 1/Σw the logarithmic opinion pool).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..support import Support
from .parameters import UNIFORM
from .weighing import Weighed


def product(pieces: Sequence[Weighed], beta: float = 1.0, prior: Support = UNIFORM) -> Support:
    """The normalised exp of log P(y) = log prior(y) + beta · Σ w log p(y); of no pieces it is the prior.

    Args:
        pieces: In any order; every probability above 0.
        beta: Exponent of all factors; 1 takes them to be independent.
        prior: Probabilities before evidence, above 0.
    """
    logs = [
        math.log(prior[y]) + beta * math.fsum(piece.weight * math.log(piece.probs[y]) for piece in pieces)
        for y in range(3)
    ]
    top = max(logs)
    raised = [math.exp(log - top) for log in logs]
    total = math.fsum(raised)
    return Support(*(r / total for r in raised))


def log_odds(piece: Weighed, beta: float) -> float:
    """What a piece adds to log P(supports)/P(refutes), in nats."""
    return beta * piece.weight * (math.log(piece.probs.supports) - math.log(piece.probs.refutes))
