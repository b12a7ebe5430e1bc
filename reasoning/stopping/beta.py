"""The Beta posterior: stop when the leading answer is the majority with enough certainty.

Source: Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning with LLMs" (EMNLP
2023, arXiv:2305.11860), the Beta stopping criterion.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .rule import StoppingRule
from .tally import Tally


class Beta(StoppingRule):
    """Stop when the leader beats the runner-up with probability `confidence` or more.

    Of the two answers with most votes, the share of the first has a Beta posterior under a uniform prior.
    """

    rule: Literal["beta"] = "beta"
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="posterior probability at which to stop")] = 0.95

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return leads(*tally.leaders()) >= self.confidence


def leads(first: int, second: int) -> float:
    """P(p > 1/2) where p has the posterior Beta(first + 1, second + 1): `1 - I_(1/2)(first + 1, second + 1)`.

    For whole numbers of votes this is the chance of at most `first` heads in `first + second + 1` tosses of a fair
    coin, which is exact in integers.
    """
    tosses = first + second + 1
    ways = total = 1
    for k in range(1, first + 1):
        ways = ways * (tosses - k + 1) // k
        total += ways
    return total / (1 << tosses)
