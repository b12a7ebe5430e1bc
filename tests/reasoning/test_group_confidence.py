"""Confidence of thoughts by groups of tokens: exact values, and the chains that are kept."""

import math

import pytest
from reason.core.messages import TopToken
from reason.reasoning.voting.rpc import (
    chain_confidence,
    group_confidences,
    most_confident,
    token_confidence,
)


def tops(*probabilities):
    return tuple(
        TopToken(token_id=i, token=str(i), logprob=math.log(p) if p else -math.inf) for i, p in enumerate(probabilities)
    )


def test_a_tokens_confidence_is_minus_the_mean_log_probability_of_the_listed_ones():
    assert token_confidence(tops(0.5, 0.25)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert token_confidence(tops(0.5, 0.25, 0.0)) == token_confidence(tops(0.5, 0.25))
    assert token_confidence(()) == 0.0


def test_groups_are_a_sliding_window_and_a_short_thought_is_one_group():
    assert group_confidences([1, 2, 3, 6], 2) == [1.5, 2.5, 4.5]
    assert group_confidences([1, 2, 3], 8) == [2.0]
    assert group_confidences([], 8) == []


def test_a_chains_confidence_is_the_mean_of_the_lowest_tenth_of_its_groups():
    values = [float(i) for i in range(40, 0, -1)]  # 40 groups of one token: the lowest tenth is 1, 2, 3, 4
    assert chain_confidence(values, 1) == 2.5
    assert chain_confidence([3.0, 1.0], 1) == 1.0  # a tenth of two groups is at least one
    assert chain_confidence([]) is None


def test_the_share_of_highest_confidence_is_kept_and_of_equals_the_first():
    assert most_confident([1.0, 3.0, 2.0, 3.0], 0.5) == [1, 3]
    assert most_confident([1.0, 1.0, 1.0], 0.34) == [0, 1]
    assert most_confident([1.0, 2.0], 0.01) == [1]
    assert most_confident([1.0, 2.0, 0.5], 1.0) == [0, 1, 2]
