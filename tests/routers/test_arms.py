"""Arms by hand: what they are worth, and which comes first."""

import math

import numpy as np
import pytest
from reason.routers.auto import estimate_arm, rank_arms
from reason.routers.features import LinearModel
from reason.routers.router_files import TokenModel, arm_label
from support.trained_routers import BARE, arm, line

ROW = np.array([1.0])


def test_worth_is_accuracy_minus_token_price():
    one = estimate_arm(arm("cot", line(0.0, math.log(3)), 200, cost=0.5), BARE, ROW, 0.4)
    assert one.right == pytest.approx(0.75)
    assert one.tokens == pytest.approx(200)
    assert one.worth == pytest.approx(0.75 - 0.4 * 0.5 * 0.2)
    assert one.shares == {"length": pytest.approx(math.log(3))}


def test_expected_tokens_are_clamped_to_the_training_range():
    model = TokenModel(
        line=LinearModel(intercept=math.log(101), named=(1.0,)), smear=1.5, min_tokens=50, max_tokens=300
    )
    assert model.expected(BARE, np.array([0.0])) == pytest.approx(1.5 * 101 - 1)
    assert model.expected(BARE, np.array([4.0])) == 300
    assert model.expected(BARE, np.array([-4.0])) == 50


def test_higher_price_selects_the_cheaper_arm():
    good, cheap = arm("self-consistency", line(1.0, 0.0), 800), arm("cot", line(0.5, 0.0), 100)
    assert rank_arms([good, cheap], BARE, ROW, 0.0)[0].arm is good
    assert rank_arms([good, cheap], BARE, ROW, 1.0)[0].arm is cheap
    same = arm("cot", line(1.0, 0.0), 100)
    assert rank_arms([good, same], BARE, ROW, 0.0)[0].arm is same  # of equal worth the cheaper


def test_label_has_the_parameters_that_differ_from_the_defaults():
    assert arm_label("cot", arm("cot", line(0.0, 0.0), 1).parameters) == "cot"
    votes = arm("self-consistency", line(0.0, 0.0), 1, parameters={"n": 3}, role="small")
    assert votes.label == "self-consistency n=3, small"
    assert arm_label("no-such-strategy", {"n": 3}) == "no-such-strategy"
