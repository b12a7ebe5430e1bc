"""The meter of reward models: budget, store, trace."""

import asyncio

import pytest
from reason.core.errors import BudgetExceeded, UserError
from reason.core.messages import Failure, Usage
from reason.serving.metered.scorers import MeteredReward
from reason.serving.rewards.model import RewardCapabilities, RewardModel, StepScores, count_passes


class Lengths:
    """Scores each step by its length; a step "bad" cannot be scored."""

    name, identity = "lengths", "lengths@1"

    def __init__(self, *, one_pass=True, price=0.0, pause=None):
        self.one_pass, self.price, self.pause = one_pass, price, pause
        self.asked = []

    @property
    def capabilities(self):
        return RewardCapabilities(kind="process", one_pass=self.one_pass, price_known=self.price is not None)

    async def score_steps(self, problem, solutions, which="all"):
        self.asked.append([list(s) for s in solutions])
        if self.pause is not None:
            await self.pause()
        return [self._score(s, which) for s in solutions]

    def _score(self, steps, which):
        if "bad" in steps:
            return StepScores(passes=0, failure=Failure(code="context_too_long", message="bad"))
        odds = tuple(float(len(s)) for s in steps)
        tokens = sum(map(len, steps))
        return StepScores(
            log_odds=odds[-1:] if which == "last" else odds,
            passes=count_passes(self.one_pass, [steps], which),
            usage=Usage(prompt_tokens=tokens, cost_usd=tokens * (self.price or 0)),
        )

    def max_usd(self, problem, solutions, which="all"):
        return sum(len(s) for steps in solutions for s in steps) * (self.price or 0)

    async def aclose(self):
        raise AssertionError("the meter does not own the model")


async def test_it_is_a_reward_model_and_charges_passes(runs):
    run = await runs.start(budget={"reward_calls": 10})
    model = MeteredReward(Lengths(), "reward", run)
    assert isinstance(model, RewardModel)
    scores = await model.score_steps("p", [["a", "bb"], ["ccc"]])
    assert [s.log_odds for s in scores] == [(1.0, 2.0), (3.0,)]
    usage = run.ledger.usage()
    assert (usage.reward_calls, usage.model_calls, usage.prompt_tokens, usage.completion_tokens) == (2, 0, 6, 0)
    [told] = runs.sink.of_type("steps.scored")
    assert told.log_odds == ((1.0, 2.0), (3.0,))
    [charged] = runs.sink.of_type("budget.charged")
    assert (charged.reward_calls, charged.total_reward_calls, charged.limits) == (2, 2, {"reward_calls": 10})
    assert runs.sink.of_type("call.started")[0].operation == "reward"
    assert told.parent == runs.sink.of_type("call.started")[0].number
    await model.aclose()
    assert await model.score_steps("p", []) == []


async def test_budget_is_checked_before_the_call(runs):
    run = await runs.start(budget={"reward_calls": 3})
    inner = Lengths(one_pass=False)
    model = MeteredReward(inner, "reward", run)
    with pytest.raises(BudgetExceeded) as told:
        await model.score_steps("p", [["a", "b"], ["c", "d"]])
    assert (told.value.kind, inner.asked) == ("reward_calls", [])
    await model.score_steps("p", [["a", "b"], ["c", "d"]], "last")
    with pytest.raises(BudgetExceeded):
        await model.score_steps("p", [["x", "y"]])
    assert run.ledger.usage().reward_calls == 2


async def test_a_resumed_run_scores_nothing_twice_and_counts_the_same(runs):
    run = await runs.start()
    inner = Lengths()
    await MeteredReward(inner, "reward", run).score_steps("p", [["a"], ["bb"]])
    again = await runs.start()
    scores = await MeteredReward(inner, "reward", again).score_steps("p", [["bb"], ["ccc"], ["a"]])
    assert [s.log_odds for s in scores] == [(2.0,), (3.0,), (1.0,)]
    assert inner.asked == [[["a"], ["bb"]], [["ccc"]]]
    assert again.ledger.usage().reward_calls == 3
    assert runs.sink.of_type("steps.scored")[-1].replayed == 2


async def test_key_is_problem_steps_and_selection(runs):
    run = await runs.start()
    inner = Lengths()
    model = MeteredReward(inner, "reward", run)
    for problem, steps, which in [
        ("p", ["a", "b"], "all"),
        ("q", ["a", "b"], "all"),
        ("p", ["a", "b"], "last"),
        ("p", ["ab"], "all"),
    ]:
        await model.score_steps(problem, [steps], which)
    assert len(inner.asked) == 4
    inner.identity = "lengths@2"
    await MeteredReward(inner, "reward", run).score_steps("p", [["a", "b"]])
    assert len(inner.asked) == 5


async def test_equal_solutions_are_scored_once_and_count_each(runs):
    run = await runs.start()
    inner = Lengths()
    scores = await MeteredReward(inner, "reward", run).score_steps("p", [["a"], ["b"], ["a"]])
    assert [s.log_odds for s in scores] == [(1.0,), (1.0,), (1.0,)]
    assert inner.asked == [[["a"], ["b"]]]
    assert run.ledger.usage().reward_calls == 3


async def test_failed_scores_are_requested_again(runs):
    run = await runs.start()
    inner = Lengths()
    model = MeteredReward(inner, "reward", run)
    good, bad = await model.score_steps("p", [["a"], ["bad"]])
    assert (good.ok, bad.ok) == (True, False)
    assert run.ledger.usage().reward_calls == 1
    await model.score_steps("p", [["a"], ["bad"]])
    assert inner.asked[-1] == [["bad"]]
    assert runs.sink.of_type("call.finished")[-1].failed == 1


async def test_cost_is_reserved_and_charged(runs):
    with pytest.raises(UserError, match="unknown"):
        MeteredReward(Lengths(price=None), "reward", await runs.start("a", budget={"usd": 1.0}))
    run = await runs.start("b", budget={"usd": 1.0})
    model = MeteredReward(Lengths(price=0.1), "reward", run)
    await model.score_steps("p", [["a" * 6]])
    assert run.ledger.usage().cost_usd == pytest.approx(0.6)
    with pytest.raises(BudgetExceeded) as told:
        await model.score_steps("p", [["b" * 6]])
    assert told.value.kind == "usd"


async def test_time_limit_ends_the_call(runs, clock):
    run = await runs.start(budget={"seconds": 10})
    model = MeteredReward(Lengths(pause=asyncio.Event().wait), "reward", run)
    with pytest.raises(BudgetExceeded) as told:
        await clock.run(model.score_steps("p", [["a"]]))
    assert told.value.kind == "seconds"
    assert run.ledger.usage().reward_calls == 0


async def test_cancelling_releases_the_reservation(runs, clock):
    run = await runs.start(budget={"reward_calls": 1})
    model = MeteredReward(Lengths(pause=asyncio.Event().wait), "reward", run)
    task = asyncio.create_task(model.score_steps("p", [["a"]]))
    await clock.settle()
    with pytest.raises(BudgetExceeded):  # the first call reserves the last pass
        await model.score_steps("p", [["b"]])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.ledger.remaining("reward_calls") == 1
