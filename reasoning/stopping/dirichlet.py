"""The Dirichlet posterior: stop when what all further samples together could gain is less than one of them costs.

The answers' chances have a Dirichlet posterior over the answers seen and one not seen yet, with prior weight 1 each.
The gain is counted in the chance of the answer that is returned: sampling reveals which answer has the largest chance,
and perfect knowledge would gain `E[max_j p_j] - max_j E[p_j]` over returning the leader now. No number of samples can
gain more, so below the price of a single one it never pays to go on.

Source: the posterior is the Dirichlet criterion's of Aggarwal et al. 2023, arXiv:2305.11860. Differs: the paper stops
at a posterior probability of the leader, which on scattered answers is never reached. The expected gain is small there
too, so it stops.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .rule import StoppingRule
from .tally import Tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Dirichlet(StoppingRule):
    """Stop when the expected gain of perfect knowledge is at most `cost`."""

    rule: Literal["dirichlet"] = "dirichlet"
    cost: Annotated[
        float, Field(gt=0, lt=1, description="price of one sample, as a share of what a right answer is worth")
    ] = 0.05
    least: Annotated[int, Field(ge=1, description="samples before which nothing is decided")] = 3

    def enough(self, tally: Tally) -> bool:
        """See `StoppingRule.enough`."""
        return tally.finished >= self.least and expected_gain(tuple(sorted(tally.votes, reverse=True))) <= self.cost


@lru_cache(maxsize=4096)
def expected_gain(votes: tuple[int, ...]) -> float:
    """`E[max_j p_j] - max_j E[p_j]` under Dirichlet(votes + 1, 1), the last place for an answer not seen yet.

    With independent G_j ~ Gamma(a_j), p = G / sum(G) is independent of the sum, so `E[max p] = E[max G] / sum(a)`, and
    `E[max G]` is the integral of `1 - prod_j P(G_j <= x)`: one integral whatever the number of answers.

    Args:
        votes: Votes by answer, most first.
    """
    import numpy as np
    from scipy.special import gammainc

    weights = np.array([*(v + 1.0 for v in votes), 1.0])
    total = float(weights.sum())
    top = float(weights[0])
    # beyond the end less than 1e-12 is left, and so smooth a curve is exact to rounding with these panels
    end = top + 8.0 * np.sqrt(top) + 40.0
    nodes, shares = _panels(end)
    below = np.prod(gammainc(weights[:, None], nodes[None, :]), axis=0)
    largest = float(np.sum(shares * (1.0 - below)))
    return max(0.0, largest / total - top / total)


def _panels(end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss-Legendre on equal panels of [0, end]."""
    import numpy as np

    nodes, shares = np.polynomial.legendre.leggauss(24)
    edges = np.linspace(0.0, end, 17)
    half = np.diff(edges)[:, None] / 2
    middle = (edges[:-1] + edges[1:])[:, None] / 2
    return (middle + half * nodes).ravel(), (half * shares).ravel()
