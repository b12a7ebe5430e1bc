"""Arithmetic of step scores, without a model."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BackendError, UserError
from reason.core.messages import Failure
from reason.serving.model_thread import length_batches
from reason.serving.rewards.factory import odds_of_rows
from reason.serving.rewards.inputs import RenderedInput
from reason.serving.rewards.model import StepScores, as_one_step, count_passes, log_sigmoid, score_solutions, sigmoid

ODDS = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


@given(ODDS)
def test_aggregations_are_those_of_the_probabilities(odds):
    scores = StepScores(log_odds=tuple(odds))
    p = [1 / (1 + math.exp(-x)) for x in odds]
    assert scores.probabilities == pytest.approx(p)
    assert scores.value("last") == pytest.approx(p[-1])
    assert scores.value("min") == pytest.approx(min(p))
    assert scores.value("prod") == pytest.approx(math.prod(p))
    assert scores.value("mean") == pytest.approx(sum(p) / len(p))
    for how in ("last", "min", "prod", "mean"):
        assert math.exp(scores.log_value(how)) == pytest.approx(scores.value(how))


@pytest.mark.parametrize("x", [-800.0, -40.0, 0.0, 40.0, 800.0, math.inf, -math.inf])
def test_sigmoid_tails_are_exact(x):
    assert 0 <= sigmoid(x) <= 1
    assert log_sigmoid(x) - log_sigmoid(-x) == pytest.approx(x) if math.isfinite(x) else True
    assert StepScores(log_odds=(x, x)).log_value("mean") == log_sigmoid(x)


def test_a_saturated_score_keeps_its_order():
    high, higher = StepScores(log_odds=(40.0,)), StepScores(log_odds=(45.0,))
    assert high.value() == higher.value() == 1.0
    assert high.log_value() < higher.log_value()


def test_scores_survive_json():
    scores = StepScores(log_odds=(1.5, -math.inf, math.inf), failure=None)
    assert StepScores.model_validate_json(scores.model_dump_json()) == scores
    assert StepScores.model_validate(scores.model_dump(mode="json")) == scores


def test_no_value_without_scores():
    with pytest.raises(ValueError, match="either scores or a failure"):
        StepScores()
    failed = StepScores(failure=Failure(code="context_too_long", message="too long"))
    with pytest.raises(BackendError, match="too long"):
        failed.value()
    with pytest.raises(UserError, match="'max'"):
        StepScores(log_odds=(1.0,)).value("max")
    with pytest.raises(UserError, match="one step"):
        StepScores(log_odds=(1.0, 2.0)).value("model")


def test_a_block_has_no_blank_lines():
    assert as_one_step(["a", "b\n\n  \nc", "\n\nd\n"]) == "a\nb\nc\nd"


def test_passes():
    assert count_passes(True, [["a", "b"], ["c"]], "all") == 2
    assert count_passes(False, [["a", "b"], ["c"]], "all") == 3
    assert count_passes(False, [["a", "b"], ["c"]], "last") == 2


async def test_aggregation_requests_only_the_needed_scores():
    asked = []

    class Spy:
        async def score_steps(self, problem, solutions, which="all"):
            asked.append((solutions, which))
            return [StepScores(log_odds=(0.0,)) for _ in solutions]

    for how in ("last", "prod", "model"):
        [scores] = await score_solutions(Spy(), "p", [["a", "b"]], how)
        assert scores.value(how) == 0.5
    assert asked == [([["a", "b"]], "last"), ([["a", "b"]], "all"), ([("a\nb",)], "last")]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 9), st.integers(1, 200))
def test_batches_partition_the_inputs_within_limits(lengths, rows, tokens):
    batches = length_batches(lengths, rows, tokens)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens
    assert [lengths[i] for b in batches for i in b] == sorted(lengths, reverse=True)


def test_rows_of_a_pooling_model():
    rendered = RenderedInput(ids=[5, 6, 7, 8], positions=[1, 3])
    assert odds_of_rows([[0.0, 1.0], [3.0, 1.0]], rendered) == [1.0, -2.0]
    every = [[0.0, 9.0], [0.0, 1.0], [0.0, 9.0], [3.0, 1.0]]
    assert odds_of_rows(every, rendered) == [1.0, -2.0]
    assert odds_of_rows([[0.0, 1.0], [3.0, 1.0]], RenderedInput([5, 6, 7, 8], [3])) == [-2.0]
    assert odds_of_rows([2.5], RenderedInput([5, 6], [1])) == [2.5]
    assert odds_of_rows([0.25, 0.75], RenderedInput([5, 6], [1]), activated=True) == [pytest.approx(math.log(3))]
    assert odds_of_rows([0.75], RenderedInput([5, 6], [1]), activated=True) == [pytest.approx(math.log(3))]
    assert odds_of_rows([1.0, 0.0], RenderedInput([5, 6], [1]), activated=True) == [-math.inf]
    with pytest.raises(Exception, match="1 scores came back for 2"):
        odds_of_rows([[0.0, 1.0]], rendered)
