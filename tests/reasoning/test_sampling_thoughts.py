"""Sampling from models that think: cut thoughts, budgets, races, temperatures."""

import pytest
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.messages import Prompt, SamplingParams
from reason.core.types import Question
from reason.reasoning.prompts import ANSWER_TRIGGERS
from reason.reasoning.sampling import sample_chains
from reason.reasoning.stopping import Agreement, FirstFinished
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel, replies, thinking
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
TRIGGER = ANSWER_TRIGGERS["number"]
SHORT, LONG = "a" * 6, "b" * 60


def after(answers):
    """The script of the answers: by the first letter of the thought, and the same after the answer trigger."""

    def script(text):
        if "Look at your response above." in text:
            return replies("Yes")(text)
        answer = answers[text.rpartition("assistant: <think>")[2][0]]
        if TRIGGER in text.rpartition("</think>")[2]:
            return replies(f"{TRIGGER} {answer}")(text)
        return replies(f"The answer is {answer}.")(text)

    return script


EITHER = thinking([SHORT, LONG], after({"a": 4, "b": 5}))


class Harness(RunHarness):
    async def draw(self, *, n=12, max_tokens=40, thinking_tokens=20, name="r", seed=3, budget=None, **options):
        model = await self.begin(name, strategy="self-consistency", question=QUESTION, budget=budget, seed=seed)
        sampling = SamplingParams(n=n, max_tokens=max_tokens, thinking_tokens=thinking_tokens)
        return await sample_chains(model, PROMPT, sampling, QUESTION, self.run, **options)


async def test_answers_of_cut_thoughts_are_requested_in_one_call_and_vote(store):
    harness = Harness(store, ScriptedModel(EITHER, profile=THINKS))
    sample_set = await harness.draw()
    cut = [c.sample_index for c in sample_set.completions if "b" in c.thought.text]
    assert 0 < len(cut) < 12
    assert [c.sample_index for c in sample_set.completions] == list(range(12))
    assert [c.answer for c in sample_set.candidates] == ["5" if i in cut else "4" for i in range(12)]
    assert [len(call) for call in harness.model.generate_calls] == [1, len(cut)]
    assert harness.run.degraded == [
        f"{len(cut)} of 12 samples were cut while the model thought; their answers were requested after the "
        "unfinished thoughts"
    ]
    assert sum(c.tokens for c in sample_set.candidates) == harness.spent.completion_tokens
    assert sum(c.thinking_tokens for c in sample_set.candidates) == harness.spent.thinking_tokens
    assert len(harness.sink.of_type("candidate.added")) == 12
    made = len(harness.model.made)
    again = await harness.draw()
    assert again.completions == sample_set.completions
    assert len(harness.model.made) == made


@pytest.mark.parametrize("width", [None, 3])
async def test_a_race_concludes_cut_thoughts_and_replays_as_it_went(store, width):
    harness = Harness(store, ScriptedModel(EITHER, profile=THINKS))
    sample_set = await harness.draw(rule=Agreement(window=3), mode="race", width=width)
    assert sample_set.stopped_early
    assert {"4", "5"} >= {c.answer for c in sample_set.candidates}
    assert all(c.finish_reason == "stop" for c in sample_set.candidates)
    assert harness.model.running == 0
    made = len(harness.model.made)
    again = await harness.draw(rule=Agreement(window=3), mode="race", width=width)
    assert (again.completions, again.cancelled, again.stopped_early) == (
        sample_set.completions,
        sample_set.cancelled,
        True,
    )
    assert len(harness.model.made) == made


async def test_once_there_is_enough_no_answer_is_requested(store):
    harness = Harness(store, ScriptedModel(thinking([SHORT, LONG], after({"a": 4, "b": 5})), profile=THINKS))
    # the short thoughts end, with their answers, after 25 tokens, the long ones are cut after 24
    sample_set = await harness.draw(rule=FirstFinished(finished=4), mode="race", thinking_tokens=24, n=16)
    assert sample_set.stopped_early
    assert {c.answer for c in sample_set.candidates} == {"4"}
    assert [len(call) for call in harness.model.generate_calls] == [1]
    assert any(c.finish_reason == "thinking" for c in sample_set.cancelled)
    assert harness.run.degraded == []


async def test_a_token_budget_counts_thoughts_and_is_never_overspent(store):
    # a sample takes up to 60 tokens, and has a thought of 20 with no less than 40
    harness = Harness(store, ScriptedModel(EITHER, profile=THINKS))
    sample_set = await harness.draw(budget=Budget(tokens=190))
    assert [len(call[0].indices) for call in harness.model.generate_calls][0] == 4
    assert sample_set.stopped == "budget"
    assert harness.spent.completion_tokens <= 190
    assert any(c.answer in ("4", "5") for c in sample_set.candidates)


async def test_a_budget_of_thinking_tokens_limits_the_samples(store):
    harness = Harness(store, ScriptedModel(thinking(LONG, after({"b": 5})), profile=THINKS))
    sample_set = await harness.draw(budget=Budget(thinking_tokens=50))
    assert sample_set.stopped == "budget"
    assert harness.run.ledger.exhausted == "thinking_tokens"
    assert harness.spent.thinking_tokens == 50  # 20, 20, and 10: the third thought is cut by the budget, and the last
    assert [c.answer for c in sample_set.candidates] == ["5", "5", "5"]


async def test_a_thought_without_room_for_an_answer_does_not_vote_and_is_reported(store):
    script = thinking([SHORT, "b" * 200], after({"a": 4}))
    harness = Harness(store, ScriptedModel(script, profile=THINKS))
    solution = await harness.solve("self-consistency", QUESTION, n=4, max_tokens=40, budget=Budget(tokens=600, calls=1))
    assert [len(call[0].indices) for call in harness.model.generate_calls] == [4]
    assert "the budget covers 4 of 4 chains of scripted at once, with up to 150 tokens each instead of 8232" in (
        harness.run.degraded
    )
    cut = [c for c in solution.candidates if c.answer is None]
    assert all(c.finish_reason == "thinking" for c in cut)
    assert cut
    assert any("have no answer" in what for what in harness.run.degraded)


@pytest.mark.parametrize("name", ["cot", "self-consistency", "rpc", "best-of-n", "adaptive"])
@pytest.mark.parametrize("profile", [THINKS, ALWAYS_THINKS])
async def test_no_temperature_and_no_logprobs_are_sent_to_a_model_that_takes_none(store, name, profile):
    profile = profile.model_copy(update={"refuses": frozenset({"temperature", "top_p", "logprobs"})})
    model = ScriptedModel(thinking(SHORT, after({"a": 4})), profile=profile)
    parameters = {} if name == "cot" else {"n": 3}
    solution = await Harness(store, model).solve(name, QUESTION, **parameters)
    assert solution.best.answer == "4"  # the model fails an assertion if it is sent what it refuses
    assert solution.best.thought == SHORT


async def test_a_temperature_of_the_users_that_the_model_refuses_is_an_error_before_any_call(store):
    profile = THINKS.model_copy(update={"refuses_while_thinking": frozenset({"temperature"})})
    model = ScriptedModel(EITHER, profile=profile)
    for name, parameters in (("cot", {"temperature": 0.2}), ("self-consistency", {"temperature": 0.2})):
        with pytest.raises(UserError, match=r"'scripted' does not take temperature while it thinks, got 0.2"):
            await Harness(store, model).solve(name, QUESTION, name=name, **parameters)
    assert model.generate_calls == []


async def test_the_answer_now_is_a_vote_of_the_finished_chains(store):
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == 40:  # the short thoughts and their answers are finished, the long ones are not
            harness.run.conclude()

    harness = Harness(store, ScriptedModel(EITHER, profile=THINKS, step=step))
    sample_set = await harness.draw(thinking_tokens=60)
    finished = [c for c in sample_set.candidates if c.finish_reason == "stop"]
    cut = [c for c in sample_set.candidates if c.finish_reason == "budget"]
    assert {c.answer for c in finished} == {"4"}
    assert {c.answer for c in cut} == {None}
    assert len(finished) + len(cut) == 12
    assert finished
    assert cut
    assert [len(call) for call in harness.model.generate_calls] == [1]
