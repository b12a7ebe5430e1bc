"""Strategies with tools: calls are answers, equal calls are equal answers, and no other prompt contains tools."""

import json

import pytest
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import Message
from reason.core.run import Run
from reason.core.types import Question
from reason.reasoning.answers.equivalence import AnswerLabels, Equivalence, answer_classes
from reason.reasoning.strategy import Models, create_strategy, require_features, require_tool_support
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.scripted_tools import WEATHER, ToolModel, calling
from support.stored_runs import RunHarness, run_config

QUESTION = Question(text="Is it warm in Rome?", tools=(WEATHER,))
ROME, OSLO = '[{"arguments":{"city":"Rome"},"name":"weather"}]', '[{"arguments":{"city":"Oslo"},"name":"weather"}]'


async def solve(store, name, model, question=QUESTION, *, reward=None, run_id="r", **parameters):
    return await RunHarness(store, model).solve(name, question, name=run_id, reward=reward, seed=5, **parameters)


async def test_a_chain_that_calls_has_its_calls_as_its_answer(store):
    model = ToolModel(replies(f"I look it up.\n{calling(city='Rome')}"))
    solution = await solve(store, "cot", model)
    best = solution.best
    assert (best.answer, best.text, best.finish_reason) == (ROME, "I look it up.", "stop")
    [call] = best.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
    assert [step.text for step in best.steps] == ["I look it up.", ROME]
    [[request]] = model.generate_calls
    assert request.prompt.tools == (WEATHER,)
    assert request.prompt.messages[-1].content.startswith("Is it warm in Rome?\n\nCall the tools you need.")


@pytest.mark.parametrize(("rule", "count"), [({"threshold": 1.0}, 8), ({}, 4)])
async def test_adaptive_samples_turns_until_it_is_sure_and_votes_over_their_calls(store, rule, count):
    model = ToolModel(replies(f"I look it up: {calling(city='Rome')}"))
    solution = await solve(store, "adaptive", model, n=8, prune_at=(), **rule)
    assert (solution.notes["samples"], solution.best.answer, solution.confidence) == (count, ROME, 1)


@pytest.mark.parametrize("prune_at", [(), (4,)])
async def test_adaptive_abstains_where_its_samples_disagree_about_a_change(store, prune_at):
    question = QUESTION.model_copy(update={"tools": (WEATHER.model_copy(update={"effect": "write"}),)})
    divided = replies(*(calling(city=city) for city in ("Rome", "Oslo", "Bonn")))
    harness = RunHarness(store, ToolModel(divided))
    solution = await harness.solve("adaptive", question, n=8, threshold=1.0, prune_at=prune_at, keep=0.1)
    assert (solution.stopped, solution.best.tool_calls) == ("abstained", ())
    reason = "adaptive: no sample was ended early: a tool call that was cut cannot be continued"
    assert (reason in harness.run.degraded) == bool(prune_at)


@pytest.mark.parametrize("name", ["self-consistency", "rpc"])
async def test_equal_calls_vote_together_and_against_others(store, name):
    texts = (calling(city="Rome"), f"So:\n{calling(city='Rome')}", calling(city="Oslo"), "The answer is yes.")
    model = ToolModel(replies(*texts, weights=[0.3, 0.25, 0.25, 0.2]))
    solution = await solve(store, name, model, n=24, temperature=1)
    answers = [c.answer for c in solution.candidates]
    assert {ROME, OSLO, "yes"} == set(answers)
    assert solution.best.answer == ROME
    assert [c.name for c in solution.best.tool_calls] == ["weather"]
    if name == "self-consistency":
        assert solution.confidence == pytest.approx(answers.count(ROME) / 24)
        assert solution.notes["votes"] == {a: answers.count(a) for a in (ROME, OSLO, "yes")}


async def test_calls_with_hidden_probability_are_not_scored_by_their_text(store):
    class Hiding(ToolModel):
        async def generate(self, requests, listener=None):
            made = await super().generate(requests)
            return [[c.model_copy(update={"logprobs": None}) for c in chains] for chains in made]

        async def score(self, prompt, continuations):
            raise AssertionError("nothing may be scored")

    solution = await solve(store, "rpc", Hiding(replies(f"So: {calling(city='Rome')}")), n=3)
    assert solution.notes["vote"]["method"] == "sc"


async def test_best_of_n_scores_calls_by_what_they_say(store):
    model = ToolModel(replies(calling(city="Rome"), calling(city="Oslo"), weights=[0.8, 0.2]))
    reward = ScriptedReward(lambda step: 0.9 if "Oslo" in step else 0.2)
    solution = await solve(store, "best-of-n", model, reward=reward, n=16, temperature=1)
    assert solution.best.answer == OSLO
    assert {tuple(steps) for _, solutions, _ in reward.asked for steps in solutions} == {(ROME,), (OSLO,)}


async def test_a_model_judges_calls_by_what_they_say_and_with_its_tools_before_it(store):
    class Judging(ToolModel):
        async def next_token(self, prompts, top=20):
            judged.extend(prompts)
            return await super().next_token(prompts, top)

    judged = []
    model = Judging(replies(calling(city="Rome")))
    await solve(store, "best-of-n", model, n=2, score="self-evaluation")
    judged_texts = {p.messages[-2].content for p in judged}
    assert ROME in judged_texts
    assert all(p.tools == (WEATHER,) for p in judged)


async def test_tool_results_are_continued(store):
    model = ToolModel(replies("It has 24 degrees. The answer is yes."))
    [call] = (await solve(store, "cot", ToolModel(replies(calling(city="Rome"))), run_id="first")).best.tool_calls
    since = (
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="24 degrees", tool_call_id=call.id, name=call.name),
    )
    solution = await solve(store, "cot", model, QUESTION.model_copy(update={"continuation": since}))
    assert solution.best.answer == "yes"
    [[request]] = model.generate_calls
    assert request.prompt.messages[-2:] == since


ALONE = "use adaptive, cot, rpc or self-consistency, or remove the tools and their messages"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("logprob", ALONE),
        ("hogwild", ALONE),
        ("beam", ALONE),
        ("fusion", ALONE),
        ("coat", ALONE.replace("adaptive,", "adaptive, best-of-n,").replace("cot,", "cot, rag,")),
    ],
)
def test_other_strategies_refuse_tools_and_name_those_that_need_no_more_models(name, hint):
    with pytest.raises(UserError, match=f"strategy {name} does not support tools") as caught:
        require_tool_support(name, QUESTION)
    assert (caught.value.param, caught.value.hint) == ("tools", hint)
    require_tool_support(name, QUESTION.model_copy(update={"tool_choice": "none"}))
    require_tool_support(name, Question(text="Is it warm?"))
    since = (Message(role="assistant", content="Wait."),)
    with pytest.raises(UserError, match="does not support tools"):
        require_tool_support(name, Question(text="Is it warm?", continuation=since))


async def test_a_model_without_tools_is_refused_before_anything_is_paid(store):
    config = run_config(question=QUESTION)
    run = Run("r", config, store)
    models = Models({"main": MeteredModel(ScriptedModel(replies("x")), "main", run)})
    strategy, _ = create_strategy("cot", {})
    require_features(strategy, models, Question(text="Is it warm?"))
    with pytest.raises(CapabilityMissing, match="tools"):
        require_features(strategy, models, QUESTION)


async def test_calls_equal_only_the_same_call(store):
    one, two = '[{"arguments":{"x":1.0},"name":"f"}]', '[{"arguments":{"x":1},"name":"f"}]'
    answers = ["4", one, None, two, "4.0", one, "5"]
    numbers = QUESTION.model_copy(update={"kind": "number"})
    run = Run("r", run_config(question=numbers), store)
    assert await answer_classes(answers, numbers, run) == [[0, 4], [1, 5], [3], [6]]
    labels = AnswerLabels(numbers)
    async with Equivalence() as equivalence:
        class_labels = [await labels.label(answer, equivalence) for answer in answers]
    assert class_labels == [0, 1, None, 2, 0, 1, 3]
