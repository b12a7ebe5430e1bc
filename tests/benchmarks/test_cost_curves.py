"""Quality over cost on two actions whose best policy is known."""

import numpy as np
import pytest
from cost_curves import cost_curves
from policies import MeasuredArms, PredictedArms

N = 40


def test_quality_over_cost_is_that_of_the_known_optimum():
    right = np.array([[float(i % 2 == 0), 1.0] for i in range(N)])  # the cheap action is right on every second question
    cost = np.tile([10.0, 100.0], (N, 1))
    measured = MeasuredArms(("cheap", "dear"), PredictedArms(right, cost), right, cost, np.arange(N))
    curves = cost_curves(measured)
    assert (curves.floor, curves.gap) == (0.5, 0.5)
    # a router that knows pays for the dear action only where it is needed: at 55 tokens all are right
    known = [min(1.0, 0.5 + 0.5 * (b - 10) / 45) for b in curves.budgets]
    assert curves.curves["auto"].mean(axis=1) == pytest.approx(known)
    assert curves.curves["oracle"].mean(axis=1) == pytest.approx(known)
    mix = [0.5 + 0.5 * (b - 10) / 90 for b in curves.budgets]
    assert curves.curves["mix"].mean(axis=1) == pytest.approx(mix)
    assert curves.curves["fixed"].mean(axis=1) == pytest.approx([0.5] * 40 + [1.0])
    assert curves.area("auto") > curves.area("mix") > curves.area("fixed")
