"""Weights of jurors' votes from their past answers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jury_weights import MAX_WEIGHT, MIN_WEIGHT, chance_of_errors, fit_weights
from reason.core.errors import UserError

RECORDS = [("good", True)] * 80 + [("good", False)] * 20 + [("poor", True)] * 30 + [("poor", False)] * 70


def fitted(records: list[tuple[str, bool]] = RECORDS, chance: float = 0.25, strength: float = 10.0) -> dict[str, float]:
    return fit_weights(records, chance=chance, strength=strength)


def test_weight_is_clipped_log_odds_over_chance():
    found = fitted(strength=0.0)
    assert found["good"] == pytest.approx(math.log(0.8 / 0.2) + math.log(3))
    assert found["poor"] == pytest.approx(math.log(0.3 / 0.7) + math.log(3))
    lucky = fitted([("lucky", True)] * 50 + [("unlucky", False)] * 50, strength=0.0)
    assert (lucky["lucky"], lucky["unlucky"]) == (MAX_WEIGHT, MIN_WEIGHT)


def test_estimates_shrink_towards_pool():
    p = (80 + 10 * 111 / 202) / 110
    assert fitted()["good"] == pytest.approx(math.log(p / (1 - p)) + math.log(3))


def test_chance_of_errors_counts_equal_pairs_of_each_question():
    # 1 of 3 pairs, and 1 of 1; a single wrong answer is no pair
    q = (2 + 1) / (4 + 2)
    assert chance_of_errors([("B", "B", "C"), ("D", "D"), ("A",), ()]) == pytest.approx(q / (1 + q))


def test_chance_of_errors_needs_two_wrong_answers():
    with pytest.raises(UserError, match="two wrong answers"):
        chance_of_errors([("A",), ()])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_fit_is_independent_of_order_and_bounded(records, shuffler):
    again = list(records)
    shuffler.shuffle(again)
    assert fitted(records) == fitted(again)
    assert all(MIN_WEIGHT <= weight <= MAX_WEIGHT for weight in fitted(records).values())


def test_invalid_input_raises():
    for wrong in ({"records": []}, {"chance": 1.0}, {"strength": -1.0}):
        with pytest.raises(UserError):
            fitted(**wrong)
