"""Spread over seeds, instability, pass@k and failures in k tries."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.seeds import fail_at_k, fragility, pass_at_k, sampling_gap, seed_spread

EXACT = {"rel": 0, "abs": 1e-9}
tables = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 1), min_size=n, max_size=n), min_size=1, max_size=8)
)


def of(table: list[list[float]]) -> Outcomes:
    return Outcomes.of({f"i{i}": dict(enumerate(row)) for i, row in enumerate(table)})


def test_by_hand():
    """Three items, four seeds: p = 1, 0.5, 0."""
    result = seed_spread(of([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]))
    assert result.mean == pytest.approx(0.5, **EXACT)
    assert result.by_seed == pytest.approx((2 / 3, 1 / 3, 2 / 3, 1 / 3), **EXACT)
    assert result.sd == pytest.approx(np.sqrt(4 * (1 / 6) ** 2 / 3), **EXACT)
    # one item with p(1-p)·n/(n-1) = 0.25·4/3 = 1/3; of three items
    assert result.seed_se == pytest.approx(np.sqrt(1 / 3) / 3, **EXACT)
    assert result.instability == pytest.approx(2 / 9, **EXACT)
    assert result.histogram == (1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    assert (result.always, result.never) == pytest.approx((1 / 3, 1 / 3), **EXACT)


def test_one_seed_is_not_estimable_and_not_zero():
    result = seed_spread(of([[1], [0]]))
    assert (result.sd, result.seed_se, result.instability) == (None, None, None)


@given(tables)
def test_instability_is_the_share_of_disagreeing_pairs(table):
    pairs = [[a != b for a, b in combinations(row, 2)] for row in table]
    assert seed_spread(of(table)).instability == pytest.approx(float(np.mean(pairs)), **EXACT)


@given(tables)
def test_pass_at_k_is_the_mean_over_subsets(table):
    for k in range(1, len(table[0]) + 1):
        by_subsets = np.mean([[any(s) for s in combinations(row, k)] for row in table])
        assert pass_at_k(of(table), k) == pytest.approx(float(by_subsets), **EXACT)
        failing = np.mean([[not all(s) for s in combinations(row, k)] for row in table])
        assert fail_at_k(of(table), k) == pytest.approx(float(failing), **EXACT)


@given(tables)
def test_at_k_equal_n(table):
    n = len(table[0])
    assert pass_at_k(of(table), n) == pytest.approx(float(np.mean([any(r) for r in table])), **EXACT)
    assert fail_at_k(of(table), n) + float(np.mean([all(r) for r in table])) == pytest.approx(1.0, **EXACT)
    assert pass_at_k(of(table), 1) == pytest.approx(float(np.mean(table)), **EXACT)
    assert pass_at_k(of(table), n + 1) is None


@given(tables, st.randoms())
def test_permuting_seeds_or_items_changes_nothing(table, random):
    before, rows = seed_spread(of(table)), [random.sample(row, len(row)) for row in table]
    random.shuffle(rows)
    after = seed_spread(of(rows))
    assert after.mean == pytest.approx(before.mean, **EXACT)
    assert after.instability == pytest.approx(before.instability, **EXACT)
    assert after.seed_se == pytest.approx(before.seed_se, **EXACT)
    assert after.histogram == before.histogram
    assert pass_at_k(of(rows), 2) == pytest.approx(pass_at_k(of(table), 2), **EXACT)


def test_many_attempts_stay_finite():
    table = [[1.0] * 3 + [0.0] * 997]
    exact = 1.0
    for i in range(500):  # 1 - C(997, 500)/C(1000, 500)
        exact *= (997 - i) / (1000 - i)
    assert pass_at_k(of(table), 500) == pytest.approx(1 - exact, **EXACT)


def test_scores_between_have_no_pass_rate():
    outcomes = of([[0.5, 1.0], [0.0, 0.0]])
    assert pass_at_k(outcomes, 1) is None
    result = seed_spread(outcomes)
    assert (result.instability, result.seed_se) == (None, None)
    assert result.mean == pytest.approx(0.375, **EXACT)


def test_k_below_one_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        pass_at_k(of([[1]]), 0)


def test_gap_and_fragility():
    outcomes = of([[1, 1], [1, 0], [0, 0], [0, 1]])
    assert sampling_gap(pass_at_k(outcomes, 2), 0.5) == pytest.approx(0.25, **EXACT)
    assert fragility(outcomes, 0.5) == pytest.approx(0.25, **EXACT)
