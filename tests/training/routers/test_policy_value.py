"""What choosing is worth, on tables whose numbers can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import (
    MeasuredArms,
    PolicyOutcomes,
    PredictedArms,
    at_price,
    best_random_mix,
    choose_arms,
    compare_with_arms,
    value_over_arms,
)

# four questions; the dear arm gets all right, the cheap one the first two
RIGHT = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
COST = np.array([[10.0, 100.0]] * 4)
PREDICTED = PredictedArms(np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.9], [0.1, 0.9]]), COST)


def measured(predicted, right, cost):
    arms = right.shape[1]
    return MeasuredArms(tuple("abc"[:arms]), predicted, right, cost, np.arange(len(right)))


KNOWING = measured(PREDICTED, RIGHT, COST)


def test_the_choice_by_hand():
    assert choose_arms(PREDICTED, 0.0).tolist() == [0, 0, 1, 1]  # of equal chances the cheaper
    assert choose_arms(PREDICTED, 8.8).tolist() == [0, 0, 1, 1]  # 0.8 more right for 90 tokens more: worth up to 8.89
    assert choose_arms(PREDICTED, 9.0).tolist() == [0, 0, 0, 0]
    result = at_price(KNOWING, 1.0)
    assert (result.right, result.cost, result.shares) == (1.0, 55.0, (0.5, 0.5))
    assert result.over_random.value == pytest.approx(0.25)


def test_an_oracle_router_beats_every_random_mix_at_equal_tokens():
    cheap, dear = compare_with_arms(KNOWING)
    assert (cheap.right, cheap.cost, cheap.reach) == (0.5, 10.0, "equal")
    assert (cheap.auto_right, cheap.difference.value) == (0.5, 0.0)
    assert cheap.difference.interval is None  # it is the same policy: nothing differs
    assert (dear.right, dear.cost) == (1.0, 100.0)
    assert (dear.reach, dear.auto_right, dear.auto_cost) == ("auto costs less", 1.0, 55.0)
    assert dear.difference.value == 0.0
    assert dear.over_random.value == pytest.approx(0.25)  # half of each arm at 55 tokens: 0.75 right
    worth = value_over_arms(KNOWING, 1.0)
    assert [w.value for w in worth] == pytest.approx([0.5 - 0.045, 0.045])


def test_between_two_policies_the_cost_is_met_exactly():
    right = np.hstack([RIGHT, [[1.0], [0.0], [1.0], [0.0]]])
    cost = np.hstack([COST, [[40.0]] * 4])
    predicted = PredictedArms(np.hstack([PREDICTED.right, [[0.3]] * 4]), cost)
    middle = compare_with_arms(measured(predicted, right, cost))[2]
    assert middle.reach == "equal"
    assert middle.auto_cost == pytest.approx(40.0)
    # a third of the way from 55 tokens (all right) to 10 (half right)
    assert middle.auto_right == pytest.approx(0.5 + 0.5 * (40 - 10) / 45)
    assert middle.difference.value == pytest.approx(middle.auto_right - 0.5)


@given(st.integers(0, 10_000), st.floats(0, 120))
def test_the_best_random_mix_equals_a_fine_search(seed, cost):
    rng = np.random.default_rng(seed)
    singles = [
        PolicyOutcomes(np.full(2, float(r)), np.full(2, float(c)))
        for r, c in zip(rng.random(4), rng.uniform(5, 100, 4), strict=True)
    ]
    result = best_random_mix(singles, cost).mean()
    cheapest = min(singles, key=lambda s: s.cost.mean())
    best = cheapest.right.mean() if cost < cheapest.cost.mean() else -1.0
    for a in singles:
        for b in singles:
            part = np.linspace(0, 1, 201)
            paid = (1 - part) * a.cost.mean() + part * b.cost.mean() <= cost + 1e-9
            best = max(best, *((1 - part) * a.right.mean() + part * b.right.mean())[paid], -1.0)
    assert result >= best - 1e-9
    assert result <= best + 0.01
