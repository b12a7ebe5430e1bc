"""A verdict as a distribution: exact for every spelling, bound, mean and error, on a model whose chances are known."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BackendError
from reason.core.messages import Completion, Prompt
from reason.serving.verdict_distribution import VerdictDistribution, has_verdict_distribution, label_of, read_verdicts
from support.scripted_model import ALWAYS_THINKS, ScriptedModel, replies, thinking

YES_NO = ("Yes", "No")
DIGITS = tuple("123456789")
MARKS = [int(digit) for digit in DIGITS]


def read(labels, **shares):
    return VerdictDistribution.from_tokens([(token, math.log(p)) for token, p in shares.items()], labels)


def sampled(labels, *texts):
    return VerdictDistribution.from_samples([Completion(text=t, finish_reason="stop") for t in texts], labels)


WithoutLogprobs = partial(ScriptedModel, changed={"top_logprobs": 0, "logprobs": False})


def test_the_mean_mark_is_normalised_over_the_scale_and_the_rest_reported():
    verdict = read(DIGITS, **{"7": 0.4, "9": 0.2, " 7": 0.1, "I": 0.2, "10": 0.1})
    found = (verdict.shares[6], verdict.expected(MARKS), verdict.off_scale)
    assert found == pytest.approx((0.5 / 0.7, (0.5 * 7 + 0.2 * 9) / 0.7, 0.3))
    assert (verdict.standard_error(MARKS), verdict.is_readable) == (0, True)


@given(st.lists(st.floats(1e-6, 1), min_size=10, max_size=10))
def test_shares_sum_to_one_and_the_mean_is_on_the_scale(weights):
    total = sum(weights)
    verdict = read(DIGITS, **dict(zip([*DIGITS, "x"], (w / total for w in weights), strict=True)))
    assert sum(verdict.shares) == pytest.approx(1)
    assert 1 <= verdict.expected(MARKS) <= 9 + 1e-12
    assert verdict.coverage + verdict.off_scale == pytest.approx(1)
    assert verdict.off_scale == pytest.approx(weights[9] / total)


def test_spellings_are_summed_and_beginnings_count():
    spelled = {"Yes": 0.3, " yes": 0.2, "\u2581YES": 0.1, "No": 0.1, "\u0120no": 0.1, "n": 0.05, "Maybe": 0.1}
    verdict = read(YES_NO, **spelled)
    assert verdict.log_odds(*YES_NO) == pytest.approx(math.log(0.6 / 0.25))
    assert verdict.coverage == pytest.approx(0.85)


def test_an_unlisted_label_is_bounded_by_the_last_listed_one_and_the_rest():
    verdict = read(YES_NO, Yes=0.9, Well=0.06)
    assert verdict.log_odds(*YES_NO) == pytest.approx(math.log(0.9 / 0.04))  # 0.04 are left, less than 0.06
    assert (verdict.coverage, verdict.shares) == (pytest.approx(0.9), (1.0, 0.0))
    assert read(YES_NO, Yes=0.5, Well=0.01).log_odds(*YES_NO) == pytest.approx(math.log(0.5 / 0.01))
    neither = read(YES_NO, Well=0.5, So=0.2)
    assert (neither.log_odds(*YES_NO), neither.coverage, neither.is_readable) == (0.0, 0.0, False)
    assert neither.shares == (0.5, 0.5)


def test_log_odds_are_exact_where_probabilities_are_not():
    assert VerdictDistribution.from_tokens([("Yes", -1e-300), ("No", -2000.0)], YES_NO).log_odds(*YES_NO) == 2000.0


def test_an_ambiguous_beginning_is_no_label():
    verdict = read(("true", "typo"), t=0.6, true=0.3, typo=0.1)
    assert verdict.log_odds("true", "typo") == pytest.approx(math.log(3))
    assert verdict.coverage == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("label", "tokens"), [("A", ["A", "(A"]), ("B", [" B", "B."]), ("-", [" -"]), (None, ["a", "An", "AB", ""])]
)
def test_a_letter_is_not_a_word(label, tokens):
    assert {label_of(token, ("A", "B", "-")) for token in tokens} == {label}


def test_sampled_verdicts_are_counted():
    verdict = sampled(YES_NO, "Yes", " no.", "**yes**", "Perhaps", "")
    assert verdict.log_odds(*YES_NO) == pytest.approx(math.log(2.5 / 1.5))
    assert (verdict.coverage, verdict.num_samples) == (pytest.approx(0.6), 5)
    assert verdict.shares == pytest.approx((2 / 3, 1 / 3))
    assert verdict.expected((1, 0)) == pytest.approx(2 / 3)
    nothing = sampled(YES_NO)
    assert (nothing.log_odds(*YES_NO), nothing.num_samples) == (0.0, 0)


def test_the_answer_may_be_introduced():
    assert sampled(("A", "B"), "Answer: B", "Answer B", "A", "I say B").shares == pytest.approx((1 / 3, 2 / 3))


def test_a_failed_sample_is_no_verdict():
    failed = Completion(text="", finish_reason="error", failure={"code": "backend_error", "message": "x"})
    verdict = VerdictDistribution.from_samples([Completion(text="Yes", finish_reason="stop"), failed], YES_NO)
    assert (verdict.num_samples, verdict.coverage) == (1, 1.0)


def test_equal_samples_are_not_certain():
    verdict = sampled(YES_NO, *["Yes"] * 8)
    p = 8.5 / 9
    assert verdict.expected((1, 0)) == 1.0
    assert verdict.standard_error((1, 0)) == pytest.approx(math.sqrt(p * (1 - p) / 10))
    assert sampled(YES_NO, "Well").standard_error((1, 0)) == math.inf


@given(st.integers(1, 40), st.integers(0, 40))
def test_the_error_of_counts_falls_with_their_number(yes, no):
    few = sampled(YES_NO, *["Yes"] * yes, *["No"] * no)
    many = sampled(YES_NO, *["Yes"] * yes * 4, *["No"] * no * 4)
    assert many.standard_error((1, 0)) < few.standard_error((1, 0))
    assert few.expected((1, 0)) == pytest.approx(many.expected((1, 0))) == pytest.approx(yes / (yes + no))


async def test_a_distribution_is_read_where_there_is_one():
    model = ScriptedModel(lambda text: {"Y": 0.6, "N": 0.3, "Z": 0.1})
    assert has_verdict_distribution(model)
    (verdict,) = await read_verdicts(model, [Prompt.user("?")], YES_NO)
    assert (verdict.num_samples, verdict.log_odds(*YES_NO)) == (0, pytest.approx(math.log(2)))
    assert not model.generate_calls


async def test_verdicts_are_sampled_where_there_is_none(monkeypatch):
    monkeypatch.setattr("reason.serving.verdict_distribution.NUM_VERDICTS", 40)
    model = WithoutLogprobs(replies("Yes", "No", weights=[3, 1]))
    verdicts = await read_verdicts(model, [Prompt.user("?"), Prompt.user("!")], YES_NO)
    assert [v.num_samples for v in verdicts] == [40, 40]
    assert all(0.5 < v.expected((1, 0)) < 1 for v in verdicts)
    (requests,) = model.generate_calls
    assert [(r.sampling.n, r.is_attempt) for r in requests] == [(40, False), (40, False)]


async def test_no_verdict_at_all_is_an_error():
    model = WithoutLogprobs(replies("Yes"), failing=frozenset(range(8)))
    assert await read_verdicts(model, [Prompt.user("?")], YES_NO) == [None]
    thinks = ScriptedModel(thinking("Hm.", "Yes"), profile=ALWAYS_THINKS, failing=frozenset([0]))
    with pytest.raises(BackendError, match="failed to give any verdict"):
        await read_verdicts(thinks, [Prompt.user("?")], YES_NO)
