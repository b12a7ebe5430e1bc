"""The area under quality over cost, for the tables of routers.

A mean over costs that rise by equal factors, from the cheapest action's to that of the most accurate one, as the part
of the gap between the two that is recovered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reason.evals.statistics.outcomes import Array

sys.path.append(str(Path(__file__).resolve().parents[1] / "training" / "routers"))

from policies import (
    MeasuredArms,
    PolicyOutcomes,
    PredictedArms,
    at_cost,
    best_random_mix,
    policies_of,
)

BUDGETS = 41
"""Costs that the area under a curve is a mean over."""


@dataclass(frozen=True)
class CostCurves:
    """Quality over cost of four ways to choose.

    Attributes:
        budgets: Mean costs, `[costs]`.
        cheapest: Scores of the cheapest action, `[questions]`.
        gap: Mean score of the most accurate action less the mean of these.
        curves: Scores at each cost by way, `[costs, questions]`: "auto"; "fixed", the most accurate action that costs
            no more; "mix", the best random mix of two actions; "oracle", the choice with knowledge of each action's
            score and cost for the question. The second and third know the mean scores of these questions, which favours
            them.
    """

    budgets: Array
    cheapest: Array
    gap: float
    curves: dict[str, Array]

    @property
    def floor(self) -> float:
        """Mean score of the cheapest action."""
        return float(self.cheapest.mean())

    def scores(self, way: str) -> Array:
        """The mean over costs, `[questions]`."""
        result: Array = self.curves[way].mean(axis=0)
        return result

    def area(self, way: str) -> float:
        """The part of the gap that is recovered."""
        return (float(self.scores(way).mean()) - self.floor) / self.gap


def cost_curves(measured: MeasuredArms) -> CostCurves | None:
    """The curves; None where the cheapest action is the most accurate one, so that there is nothing to trade."""
    singles, n = measured.singles, len(measured.labels)
    costs, means = np.array([s.cost.mean() for s in singles]), np.array([s.right.mean() for s in singles])
    cheapest, top = int(np.lexsort((-means, costs))[0]), int(np.lexsort((costs, -means))[0])
    if means[top] <= means[cheapest]:
        return None
    budgets = np.geomspace(max(float(costs[cheapest]), 1e-9), float(costs[top]), BUDGETS)
    budgets[0], budgets[-1] = costs[cheapest], costs[top]  # exactly, so that both actions are affordable
    known = PredictedArms(measured.right[:, :n], measured.cost[:, :n])
    best = policies_of(known, known.right, known.cost)
    curves = {
        "auto": [_within(measured.policies, singles[cheapest], b) for b in budgets],
        "fixed": [singles[max(np.flatnonzero(costs <= b), key=lambda a: means[a])].right for b in budgets],
        "mix": [best_random_mix(singles, b) for b in budgets],
        "oracle": [_within(best, singles[cheapest], b) for b in budgets],
    }
    gap = float(means[top] - means[cheapest])
    return CostCurves(budgets, singles[cheapest].right, gap, {way: np.array(s) for way, s in curves.items()})


def _within(policies: Sequence[PolicyOutcomes], cheapest: PolicyOutcomes, budget: float) -> Array:
    """Scores of the mix of two policies that costs no more than a budget; of the cheapest action if none does."""
    policy, reach = at_cost([cheapest, *policies], budget)
    return cheapest.right if reach == "auto costs more" else policy.right
