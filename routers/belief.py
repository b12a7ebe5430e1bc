"""How far a solution can be believed, as one number: what its strategy states, or how likely its tokens were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..core.answer import Candidate, Solution
from ..core.calibration import CalibrationMap

BeliefKind = Literal["stated", "calibrated", "likelihood", "unknown"]


@dataclass(frozen=True)
class Belief:
    """How far a solution can be believed.

    Attributes:
        value: In [0, 1]; None if unknown.
        kind: What the value is.
    """

    value: float | None
    kind: BeliefKind

    @property
    def stated(self) -> float | None:
        """The value where it is an estimate of the probability of being right; a likelihood is none."""
        return self.value if self.kind in ("stated", "calibrated") else None


def belief_in(solution: Solution, curve: CalibrationMap | None = None, *, likelihood: bool = False) -> Belief:
    """How far a solution can be believed.

    Args:
        solution: The solution.
        curve: What its strategy's confidence has been worth; with it, a solution without any is not known to be worth
            anything.
        likelihood: Whether to look at the likelihood even if a confidence is stated.
    """
    if solution.confidence is not None and not likelihood:
        if curve is None:
            return Belief(solution.confidence, "stated")
        return Belief(curve.apply(solution.confidence), "calibrated")
    value = None if solution.best is None or curve is not None else token_likelihood(solution.best)
    return Belief(value, "unknown" if value is None else "likelihood")


def token_likelihood(candidate: Candidate) -> float | None:
    """exp(mean log-probability of a token) of an attempt, in (0, 1]: the geometric mean of its tokens' probabilities.

    None where the backend hides log-probabilities, or the strategy does not pass them on.
    """
    if candidate.logprob is None or not candidate.tokens:
        return None
    return math.exp(min(candidate.logprob / candidate.tokens, 0.0))
