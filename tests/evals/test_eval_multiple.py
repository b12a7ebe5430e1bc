"""Holm's correction of several p-values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.evals.statistics.paired import holm


def test_holm_adjusts_the_smallest_most_and_stays_in_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_by_hand() -> None:
    """0.01 · 4, 0.013 · 3 raised to 0.04, 0.014 · 2 raised to 0.04, 0.19 · 1."""
    assert holm([0.19, 0.01, 0.014, 0.013]) == pytest.approx([0.19, 0.04, 0.04, 0.04])


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms())
def test_adjusted_values_keep_the_order_and_reject_no_more_than_the_raw_ones(ps: list[float], random) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    by_size = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in by_size] == sorted(adjusted)
    if ps:
        assert adjusted[by_size[0]] == min(1.0, len(ps) * ps[by_size[0]])  # Bonferroni's
    order = random.sample(range(len(ps)), len(ps))
    assert holm([ps[i] for i in order]) == pytest.approx([adjusted[i] for i in order])
