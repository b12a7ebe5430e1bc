"""Strategies over models that think: which suit, which are replaced, and which are refused before anything is spent."""

import pytest
from reason.core.errors import UserError
from reason.core.types import Question
from reason.reasoning.strategy import STRATEGIES, Models, create_strategy
from reason.reasoning.thinking import fit_to_thinking, thinking_of
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.scorers import MeteredReward
from support.scripted_model import ALWAYS_THINKS, HIDES_THOUGHTS, THINKS, ScriptedModel, replies, thinking
from support.scripted_reward import ScriptedReward
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
OPT_IN = THINKS.model_copy(update={"thinks": "opt-in"})
BEHIND_A_PARSER = THINKS.model_copy(update={"prefix": "answer", "thought": "field"})
"""Can skip its thoughts, and continues the beginning of an answer, but of no thought."""
STEPS = ("astar", "beam", "coat", "particle-filter", "rlot")
THOUGHT = ("glimprouter", "hogwild")
CHAINS = {"astar": 4, "beam": 16, "coat": 3, "rlot": 5}


class Harness(RunHarness):
    """One run of a strategy over a main model, a small one if given, and a reward model that prefers fours."""

    def __init__(self, store, model, small=None):
        super().__init__(store, model)
        self.small = small

    async def prepare(self, strategy, *, name="r", effort=None, **parameters):
        self.strategy, _ = create_strategy(strategy, parameters)
        models = {"main": await self.begin(name, strategy=strategy, question=QUESTION, seed=2, effort=effort)}
        if self.small is not None:
            models["small"] = MeteredModel(self.small, "small", self.run)
        reward = ScriptedReward(lambda step: 0.9 if "4" in step else 0.1)
        self.models = Models(models, MeteredReward(reward, "reward", self.run))

    async def solve(self, strategy, **given):
        await self.prepare(strategy, **given)
        return await fit_to_thinking(self.strategy, self.models, self.run).solve(QUESTION, self.models, self.run)

    def requests(self):
        return [request for call in self.model.generate_calls for request in call]


def refused(harness):
    with pytest.raises(UserError) as raised:
        fit_to_thinking(harness.strategy, harness.models, harness.run)
    assert harness.model.generate_calls == harness.run.degraded == []
    return raised.value


def always(profile=ALWAYS_THINKS):
    return ScriptedModel(thinking("2 and 2.", "The answer is 4."), name="always", profile=profile)


def test_every_built_in_strategy_declares_what_it_does_with_thoughts():
    declared = {name: thinking_of(STRATEGIES.load(name)) for name in STRATEGIES.names()}
    assert {name for name, thinking in declared.items() if thinking == "steps"} == set(STEPS)
    assert {name for name, thinking in declared.items() if thinking == "thought"} == set(THOUGHT)


async def test_a_wide_search_is_replaced_by_as_many_chains_as_there_may_be(store, monkeypatch):
    monkeypatch.setattr("reason.reasoning.thinking.MAX_CHAINS", 6)
    solution = await Harness(store, always()).solve("beam")
    assert len(solution.candidates) == 6


@pytest.mark.parametrize("profile", [ALWAYS_THINKS, HIDES_THOUGHTS])
@pytest.mark.parametrize("name", STEPS)
async def test_a_search_over_steps_is_replaced_where_the_model_always_thinks(store, name, profile):
    harness = Harness(store, always(profile))
    solution = await harness.solve(name)
    chains = CHAINS.get(name) or harness.strategy.num_chains
    assert harness.run.degraded == [f"always always thinks: used self-consistency (n={chains}) instead of {name}"]
    assert harness.sink.events[0].type == "run.degraded"  # before anything is spent
    assert (len(solution.candidates), solution.best.answer) == (chains, "4")
    assert [len(r.indices) for r in harness.requests()] == [chains]


async def test_the_substitute_has_the_effort_and_the_temperature_of_the_user(store):
    harness = Harness(store, always())
    await harness.solve("beam", effort="high", temperature=0.9)
    (request,) = harness.requests()
    assert (request.sampling.effort, request.sampling.temperature) == ("high", 0.9)


@pytest.mark.parametrize("name", STEPS)
async def test_an_effort_and_steps_of_the_answer_exclude_each_other(store, name):
    harness = Harness(store, ScriptedModel(replies("The answer is 4."), profile=THINKS))
    await harness.prepare(name, effort="high")
    error = refused(harness)
    assert error.param == "effort"
    assert "effort high" in error.message
    assert "scripted does not think" in error.message
    assert "leave --effort unset" in error.hint


@pytest.mark.parametrize("name", STEPS)
async def test_a_model_that_can_skip_its_thoughts_does_so_in_every_request(store, name):
    model = ScriptedModel(thinking("I think.", replies("One.\n\nThe answer is 4.")), profile=THINKS)
    harness = Harness(store, model)
    solution = await harness.solve(name)
    assert harness.run.ledger.usage().thinking_tokens == 0
    assert all(request.sampling.thinking_tokens == 0 for request in harness.requests())
    assert harness.requests()
    assert "I think" not in str(solution)


@pytest.mark.parametrize("name", THOUGHT)
@pytest.mark.parametrize(
    ("profile", "may_skip"), [(ALWAYS_THINKS, False), (HIDES_THOUGHTS, False), (BEHIND_A_PARSER, True)]
)
async def test_routing_and_working_inside_thoughts_that_cannot_be_continued_is_refused(store, name, profile, may_skip):
    harness = Harness(store, always(profile))
    await harness.prepare(name)
    error = refused(harness)
    assert error.message == f"{name} works inside thoughts, and always cannot continue one that is given"
    assert "vLLM" in error.hint
    assert ("--effort none" in error.hint) is may_skip


async def test_both_models_must_continue_thoughts(store):
    harness = Harness(store, always(THINKS), ScriptedModel(replies("4"), name="plain"))
    await harness.prepare("glimprouter")
    assert "always thinks before it answers, and plain cannot continue its thought" in refused(harness).message
    await harness.prepare("glimprouter", effort="none", name="s")
    assert fit_to_thinking(harness.strategy, harness.models, harness.run) is harness.strategy


@pytest.mark.parametrize("profile", [None, OPT_IN, THINKS])
@pytest.mark.parametrize("name", THOUGHT)
async def test_models_that_do_not_think_or_continue_thoughts_are_taken(store, name, profile):
    harness = Harness(store, ScriptedModel(replies("4"), profile=profile))
    await harness.prepare(name)
    assert fit_to_thinking(harness.strategy, harness.models, harness.run) is harness.strategy


async def test_strategies_inside_a_cascade_are_replaced_and_refused_too(store):
    harness = Harness(store, always())
    solution = await harness.solve("cascade", first="beam", then="cot", threshold=0.5)
    assert "always always thinks: used self-consistency (n=16) instead of beam" in harness.run.degraded
    assert solution.best.answer == "4"
    await harness.prepare("cascade", first="cot", then="glimprouter", name="s")
    with pytest.raises(UserError, match="glimprouter works inside thoughts"):
        await harness.strategy.solve(QUESTION, harness.models, harness.run)
    assert harness.run.ledger.usage().model_calls == 0


# -- steps of the answer
