"""Step rewards: reward models, exact arithmetic and log-probabilities; completions; no step is scored twice."""

import pytest
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.messages import Prompt
from reason.core.types import Question
from reason.reasoning.continuations import Prefix, PrefixCompleter
from reason.reasoning.step_rewards import (
    ArithmeticStepReward,
    ModelStepReward,
    aggregate_scores,
)
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.scorers import MeteredReward
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
CHANCES = {"a": 0.9, "b": 0.5, "c": 0.8, "d": 0.2}


@pytest.fixture
def begin(store):
    harness = RunHarness(store, ScriptedModel(replies("")))

    async def begin(name="r", **budget):
        await harness.begin(name, strategy="astar", question=QUESTION, budget=Budget(**budget), seed=3)
        return harness.run

    return begin


@pytest.fixture
def by_model(begin):
    async def by_model(scores=CHANCES.get, name="r", *, one_pass=True, **budget):
        """A source of step rewards, its reward model, and its run."""
        run, reward = await begin(name, **budget), ScriptedReward(scores, one_pass=one_pass)
        return ModelStepReward(MeteredReward(reward, "reward", run), run), reward, run

    return by_model


# -- aggregation


@pytest.mark.parametrize(
    ("how", "value"), [("last", 0.8), ("min", 0.5), ("prod", 0.36), ("mean", 2.2 / 3), ("model", 0.8)]
)
def test_values_become_one(how, value):
    assert aggregate_scores([0.9, 0.5, 0.8], how) == pytest.approx(value)


def test_nothing_cannot_be_aggregated():
    with pytest.raises(UserError, match="no step"):
        aggregate_scores([], "min")
    with pytest.raises(UserError, match="'most'"):
        aggregate_scores([0.5], "most")


# -- reward models


async def test_the_prefix_as_one_step(by_model):
    source, *_ = await by_model(lambda step: 0.7 if step == "a\nb" else 0.1)
    assert await source.score("q", [["a", "b"], ["a"]], "model") == [pytest.approx(0.7), pytest.approx(0.1)]


async def test_a_frontier_is_one_call_and_no_prefix_is_scored_twice(by_model):
    source, reward, run = await by_model(one_pass=False)
    await source.score("q", [["a"], ["b"], ["a"]], "prod")
    await source.score("q", [["a", "b"], ["a", "c"], ["b", "d"], ["a"]], "prod")
    scores = await source.score("q", [["a", "b", "c"], ["a", "b"]], "prod")
    assert [[tuple(s) for s in solutions] for _, solutions, _ in reward.asked] == [
        [("a",), ("b",)],
        [("a", "b"), ("a", "c"), ("b", "d")],
        [("a", "b", "c")],
    ]
    assert {which for _, _, which in reward.asked} == {"last"}
    assert run.ledger.usage().reward_calls == 6
    assert scores == pytest.approx([0.9 * 0.5 * 0.8, 0.9 * 0.5])


async def test_scoring_only_the_last_step_takes_one_pass(by_model):
    source, _, run = await by_model(one_pass=False)
    assert await source.score("q", [["a", "b", "c"]], "last") == [pytest.approx(0.8)]
    assert run.ledger.usage().reward_calls == 1


async def test_what_is_known_of_the_steps_serves_every_aggregation(by_model):
    source, _, run = await by_model(one_pass=False)
    for how in ("mean", "prod", "min", "last"):
        await source.score("q", [["a", "b", "c"]], how)
    assert run.ledger.usage().reward_calls == 3


async def test_a_model_of_one_pass_takes_one_pass_a_prefix(by_model):
    source, _, run = await by_model()
    scores = await source.score("q", [["a"], ["a", "b"], ["a", "b", "c"]], "prod")
    assert scores == pytest.approx([0.9, 0.45, 0.36])
    await source.score("q", [["a"], ["a", "b"]], "prod")
    assert run.ledger.usage().reward_calls == 3


async def test_a_failed_prefix_does_not_affect_siblings_and_is_not_scored_again(by_model):
    for one_pass in (True, False):
        source, reward, _ = await by_model(name=str(one_pass), one_pass=one_pass)
        scores = await source.score("q", [["a"], ["bad"], ["c"]], "min")
        assert scores == [pytest.approx(0.9), None, pytest.approx(0.8)]
        calls = len(reward.asked)
        assert await source.score("q", [["bad"]], "min") == [None]
        assert len(reward.asked) == calls
        assert not source.budget_exhausted


async def test_blank_steps_do_not_count_and_a_prefix_without_steps_has_no_score(by_model):
    source, reward, _ = await by_model()
    assert await source.score("q", [[], [" \n"], ["a\n\n", " "]], "last") == [None, None, pytest.approx(0.9)]
    assert await source.score("q", [], "last") == []
    assert reward.asked == [("q", [["a"]], "last")]


@pytest.mark.parametrize("one_pass", [True, False])
async def test_a_budget_of_passes_scores_the_first_prefixes_and_reports_it(by_model, one_pass):
    source, _, run = await by_model(one_pass=one_pass, reward_calls=2)
    assert await source.score("q", [["a"], ["b"], ["c"]], "min") == [pytest.approx(0.9), pytest.approx(0.5), None]
    assert source.budget_exhausted
    assert await source.score("q", [["d"], ["a"]], "min") == [None, pytest.approx(0.9)]
    assert run.ledger.usage().reward_calls == 2
    assert run.ledger.exhausted == "reward_calls"


async def test_a_prefix_whose_earlier_steps_could_not_be_paid_has_no_score_yet(by_model):
    source, *_ = await by_model(one_pass=False, reward_calls=2)
    assert await source.score("q", [["a", "b", "c"]], "prod") == [None]
    assert await source.score("q", [["a", "b"]], "prod") == [pytest.approx(0.45)]


async def test_another_problem_is_another_score(by_model):
    source, reward, _ = await by_model()
    await source.score("p", [["a"]])
    await source.score("q", [["a"]])
    assert [problem for problem, _, _ in reward.asked] == ["p", "q"]


# -- exact arithmetic

CALCULATION = ["2 + 2 = 4 and 4 * 2 = 8", "so far, so good", "8 - 1 = 6", "6 + 1 = 7"]


@pytest.mark.parametrize(
    ("steps", "how", "value"),
    [
        (3, "last", 0.0),
        (2, "last", 1.0),
        (4, "prod", 0.0),
        (4, "mean", 2 / 3),
        (4, "model", 0.0),
    ],
)
async def test_arithmetic_is_checked_step_by_step(begin, steps, how, value):
    assert await ArithmeticStepReward(await begin()).score("q", [CALCULATION[:steps]], how) == [pytest.approx(value)]


async def test_a_prefix_that_calculates_nothing_is_unknown(begin):
    run = await begin()
    assert await ArithmeticStepReward(run).score("q", [["so"], ["x = y"]]) == [0.5, 0.5]
    assert await ArithmeticStepReward(run, unknown=None).score("q", [["so"], ["1 + 1 = 2"]]) == [None, 1.0]


# -- completing


def completer(model, run):
    return PrefixCompleter(MeteredModel(model, "main", run), PROMPT, QUESTION, run, "final answer")


async def test_an_answer_can_be_forced(begin):
    model, run = ScriptedModel(replies("good\n\nTherefore, the answer is 4.")), await begin()
    begun = Prefix(("good",), "good\n\n", tuple(map(ord, "good\n\n")))
    finisher = completer(model, run)
    first, again = [await finisher.complete(begun, 40, "Therefore, the answer is ") for _ in range(2)]
    assert (first.answer, first.text) == ("4", "good\n\nTherefore, the answer is 4.")
    assert again.answer == "4"
    assert [r.prompt.prefix for (r,) in model.generate_calls] == ["good\n\nTherefore, the answer is "] * 2
    assert [r.indices for (r,) in model.generate_calls] == [(0,), (1,)]
    assert first.tokens == len("4.E")
    exact = await finisher.complete(begun, 40)
    assert model.generate_calls[2][0].prompt.prefix == begun.token_ids
    assert exact.answer == "4"


async def test_a_terminal_prefix_is_its_own_completion(begin):
    model, run = ScriptedModel(replies("x")), await begin()
    ended = Prefix(("good", "The answer is 4."), "good\n\nThe answer is 4.", None, terminal=True)
    assert (await completer(model, run).complete(ended, 40)).answer == "4"
    assert model.generate_calls == []


async def test_a_completion_keeps_within_the_budget(begin):
    run = await begin(tokens=50)
    finisher = completer(ScriptedModel(replies("x" * 200)), run)
    assert (await finisher.complete(Prefix(), 80)).finish_reason == "budget"
    assert (finisher.budget_exhausted, run.ledger.usage().completion_tokens) == (True, 50)
    assert await finisher.complete(Prefix(), 80) is None
