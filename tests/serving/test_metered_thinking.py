"""Thoughts in metered calls: caps, shares of the budget, charges, quick calls, and the user's wish for the answer."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded, UserError
from reason.core.events import MemorySink, StageFinished, StageStarted
from reason.core.messages import Prompt, Request, SamplingParams, Thought
from reason.core.run import Conclusion, Run, RunConfig, find_conclusion
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.metered.model import MeteredModel, nearest_effort
from reason.serving.profiles.profile import ModelProfile
from support.scripted_model import (
    ALWAYS_THINKS,
    HIDES_THOUGHTS,
    THINKS,
    ScriptedModel,
    replies,
    thinking,
)

THOUGHT, ANSWER = "two and two", "It is 4."
SCRIPT = thinking(THOUGHT, ANSWER)
THINKING, ANSWERING = len(THOUGHT) + 2, len(ANSWER) + 1
"""Tokens of the thought with its tags, and of the answer with the end of text."""
OPENS = THINKS.model_copy(update={"opened_by_template": True})


async def a_run(store, name="r", *, new=True, sink=None, effort=None, thinking_tokens=None, conclusion=None, **budget):
    config = RunConfig(
        question=Question(text="?", kind="number"),
        strategy="cot",
        parameters={},
        models={"main": "scripted"},
        budget=Budget(**budget),
        seed=3,
        effort=effort,
        thinking_tokens=thinking_tokens,
    )
    if new:
        await store.create_run(name, {})
    return Run(name, config, store, sinks=[sink] if sink else [], conclusion=conclusion)


def request(n=1, max_tokens=50, prompt=None, **sampling):
    return Request(prompt=prompt or Prompt.user("q"), sampling=SamplingParams(n=n, max_tokens=max_tokens, **sampling))


async def sample(run, profile=THINKS, asked=None, script=SCRIPT):
    model = ScriptedModel(script, profile=profile)
    ((completion,),) = await MeteredModel(model, "main", run).generate([asked or request()])
    return completion, model


def held_after(steps):
    """A step that holds the model for ever after some tokens, and an event that is set then."""
    count, is_held = itertools.count(1), asyncio.Event()

    async def forever():
        is_held.set()
        await asyncio.Event().wait()

    return (lambda: asyncio.ensure_future(forever()) if next(count) == steps + 1 else None), is_held


# -- thought and answer


async def test_a_thought_ends_at_its_cap(store):
    run = await a_run(store, thinking_tokens=5)
    completion, _ = await sample(run)
    assert (completion.text, completion.finish_reason) == ("", "thinking")
    assert completion.thought == Thought(text="two ", tokens=5, closed=False)
    assert run.ledger.exhausted is None  # the run's own limit of a thought, no budget
    assert [c for _, c in run.partial_completions] == [completion]


async def test_a_verdict_that_is_cut_is_no_attempt_at_the_question(store):
    run = await a_run(store, thinking_tokens=5)
    verdict = request().model_copy(update={"is_attempt": False})
    completion, _ = await sample(run, asked=verdict)
    assert completion.finish_reason == "thinking"
    assert run.partial_completions == []
    attempt, _ = await sample(run)  # the same sample, whatever it is for
    assert attempt == completion
    assert [c for _, c in run.partial_completions] == [attempt]


@pytest.mark.parametrize("profile", [THINKS, HIDES_THOUGHTS, OPENS])
async def test_stored_samples_with_thoughts_are_replayed(store, profile):
    first, _ = await sample(await a_run(store), profile)
    run = await a_run(store, new=False)
    again, model = await sample(run, profile)
    assert again == first
    assert model.generate_calls == []
    assert run.ledger.usage().thinking_tokens == first.usage.thinking_tokens


# -- the dial


async def test_the_runs_effort_and_limit_are_part_of_the_sample(store):
    _, model = await sample(await a_run(store, "a", effort="low"))
    (sent,) = model.generate_calls[0]
    assert (sent.sampling.effort, sent.sampling.thinking_tokens) == ("low", 4096)
    completion, model = await sample(await a_run(store, "b", effort="none"))
    (sent,) = model.generate_calls[0]
    assert (sent.sampling.effort, sent.sampling.thinking_tokens, completion.thought) == ("none", 0, None)
    _, model = await sample(await a_run(store, "c", effort="high", thinking_tokens=90))
    assert model.generate_calls[0][0].sampling.thinking_tokens == 90
    run = await a_run(store, "d", effort="low")
    for effort in ("low", "medium", "low"):
        run.effort = effort
        await sample(run)
    assert len(await store.list_calls("d")) == 2


async def test_a_model_that_does_not_think_keeps_its_keys(store):
    run = await a_run(store, effort="high", thinking_tokens=100)
    _, model = await sample(run, ModelProfile(), script=replies("x"))
    (sent,) = model.generate_calls[0]
    assert (sent.sampling.effort, sent.sampling.thinking_tokens) == (None, None)
    plain = await a_run(store, new=False)
    _, model = await sample(plain, ModelProfile(), script=replies("x"))
    assert model.generate_calls == []


@pytest.mark.parametrize(
    ("profile", "effort", "nearest"),
    [
        (ModelProfile(), "high", None),
        (THINKS, None, None),
        (THINKS, "max", "high"),
        (THINKS, "minimal", "low"),
        (THINKS, "none", "none"),
        (ALWAYS_THINKS, "none", "low"),
        (ModelProfile(thinks="always"), "high", "high"),
        (ModelProfile(thinks="default", efforts={"low": {}, "high": {}}), "medium", "low"),
    ],
)
def test_other_models_of_a_run_get_the_nearest_effort(profile, effort, nearest):
    assert nearest_effort(profile, effort) == nearest


async def test_a_default_temperature_without_effect_is_no_part_of_the_sample(store):
    run = await a_run(store)
    for changes in ({"default_temperature": 0.7}, {"default_temperature": 0.0}, {}):  # it thinks, as its makers want
        await sample(run, asked=request(**changes))
    assert len(await store.list_calls("r")) == 1
    for default in (0.7, 0.0, None):
        await sample(run, asked=request(temperature=0.5, default_temperature=default))
    assert len(await store.list_calls("r")) == 2
    for default in (0.7, 0.0):
        await sample(run, asked=request(effort="none", default_temperature=default))
    assert len(await store.list_calls("r")) == 4


async def test_a_limit_makes_a_model_think_that_thinks_if_asked(store):
    asked_only = THINKS.model_copy(update={"thinks": "opt-in"})
    completion, _ = await sample(await a_run(store, "a"), asked_only)
    assert completion.thought is None
    completion, model = await sample(await a_run(store, "b", thinking_tokens=200), asked_only)
    assert completion.thought.text == THOUGHT
    assert model.generate_calls[0][0].sampling.effort == "medium"


async def test_a_parameter_that_the_model_refuses_is_an_error_before_the_call(store):
    strict = THINKS.model_copy(update={"refuses_while_thinking": frozenset({"temperature", "logprobs"})})
    model = ScriptedModel(SCRIPT, profile=strict)
    metered = MeteredModel(model, "main", await a_run(store))
    with pytest.raises(UserError, match="does not take temperature while it thinks, got 0.5"):
        await metered.generate([request(temperature=0.5)])
    assert model.generate_calls == []
    await metered.generate([request(default_temperature=0.5)])
    assert not metered.capabilities.logprobs
    assert metered.quick_capabilities.logprobs
    await metered.generate([request(effort="none", temperature=0.5, logprobs=True)])


def test_capabilities_follow_the_runs_effort():
    strict = THINKS.model_copy(update={"refuses_while_thinking": frozenset({"logprobs"})})
    config = RunConfig(question=Question(text="?"), strategy="cot", parameters={}, models={}, seed=1, effort="none")
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=strict), "main", Run("r", config, None))
    assert (metered.thinks, metered.capabilities.logprobs) == (False, True)
    metered.run.effort = "low"
    assert (metered.thinks, metered.capabilities.logprobs) == (True, False)


# -- budgets


@given(
    share=st.floats(2, 400),
    thinking_share=st.one_of(st.floats(1, 200), st.just(float("inf"))),
    limit=st.integers(1, 200),
    answer=st.integers(1, 200),
)
def test_a_share_is_never_exceeded_and_both_parts_keep_something(share, thinking_share, limit, answer):
    config = RunConfig(question=Question(text="?"), strategy="cot", parameters={}, models={}, seed=1)
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS), "main", Run("r", config, None))
    fitted = metered.within(request(max_tokens=answer, thinking_tokens=limit), share, thinking_share).sampling
    assert 1 <= fitted.thinking_tokens <= min(limit, thinking_share)
    assert 1 <= fitted.max_tokens <= answer
    assert fitted.total_tokens <= share
    assert fitted.max_tokens >= min(answer, int(share) // 2)  # the thought gives way first
    if limit + answer <= share and limit <= thinking_share:
        assert (fitted.thinking_tokens, fitted.max_tokens) == (limit, answer)
    else:  # nothing that both could use is left over
        room = int(share) - fitted.total_tokens
        assert room == 0 or fitted.max_tokens == answer or fitted.thinking_tokens == int(min(limit, thinking_share))


@pytest.mark.parametrize(
    ("tokens", "cap", "answer"), [(1000, 500, 500), (10_000, 8192, 500), (600, 300, 300), (2, 1, 1), (60, 30, 30)]
)
async def test_tokens_of_a_budget_are_shared_by_thought_and_answer(store, tokens, cap, answer):
    run = await a_run(store, tokens=tokens)
    _, model = await sample(run, asked=request(max_tokens=500))
    sent = model.generate_calls[0][0].sampling
    assert (sent.thinking_tokens, sent.max_tokens) == (cap, answer)


async def test_a_thought_that_the_budget_cuts_leaves_tokens_for_the_answer(store):
    run = await a_run(store, tokens=20)
    completion, _ = await sample(run)
    assert (completion.finish_reason, completion.usage.completion_tokens) == ("thinking", 10)
    assert run.ledger.exhausted == "tokens"
    assert run.ledger.remaining("tokens") == 10


async def test_a_budget_without_room_for_thought_and_answer_is_spent(store):
    with pytest.raises(BudgetExceeded, match="tokens"):
        await sample(await a_run(store, tokens=1))


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 60),
    calls=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), min_size=1, max_size=6),
)
def test_no_sequence_of_calls_overspends_thinking_tokens(tmp_path_factory, tokens, calls):
    async def scenario():
        store = await SqliteStore.open(tmp_path_factory.mktemp("s") / "runs.sqlite3")
        run = await a_run(store)
        run.ledger.budget = Budget(thinking_tokens=tokens)
        metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS), "main", run)
        for i, (n, most) in enumerate(calls):
            try:
                await metered.generate([request(n=n, max_tokens=most, prompt=Prompt.user(str(i)))])
            except BudgetExceeded:
                assert run.ledger.exhausted == "thinking_tokens"
                break
            assert run.ledger.usage().thinking_tokens <= tokens
        await store.aclose()

    asyncio.run(scenario())


async def test_thinking_tokens_are_reserved_while_in_flight(store):
    step, is_held = held_after(1)
    run = await a_run(store)
    run.ledger.budget = Budget(thinking_tokens=20)
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS, step=step), "main", run)
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    assert run.ledger.used("thinking_tokens") == 20
    with pytest.raises(BudgetExceeded, match="thinking_tokens"):
        await metered.generate([request(prompt=Prompt.user("other"))])
    await metered.generate([request(prompt=Prompt.user("other"), effort="none")])  # no thought, no limit
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.ledger.used("thinking_tokens") == 2


async def test_thoughts_are_left_out_if_the_budget_has_less_than_the_models_least_limit(store):
    least = THINKS.model_copy(update={"min_thinking_tokens": 1024, "thinking_budget": {"budget": "$tokens"}})
    run = await a_run(store, "a", tokens=1000)
    completion, model = await sample(run, least)
    assert (completion.text, completion.thought) == (ANSWER, None)
    assert model.generate_calls[0][0].sampling.effort == "none"
    assert run.degraded == [
        "scripted answered without thinking: the budget has 950 tokens left for a thought, and its least limit is 1024"
    ]
    always = least.model_copy(update={"thinks": "always", "prefix": "none", "efforts": {"low": {}}})
    with pytest.raises(BudgetExceeded, match="tokens"):
        await sample(await a_run(store, "b", tokens=1000), always)


async def test_the_time_limit_leaves_time_for_the_answer_after_a_thought(store, clock):
    model = ScriptedModel(thinking("x" * 500, ANSWER), profile=THINKS, step=lambda: asyncio.sleep(0.05))
    run = await a_run(store, seconds=4.0)
    ((completion,),) = await clock.run(MeteredModel(model, "main", run).generate([request()]))
    assert completion.finish_reason == "budget"
    assert completion.thought.text.startswith("xxx")
    assert completion.text == ""
    assert run.ledger.remaining_seconds() == pytest.approx(0.4)
    assert [c for _, c in run.partial_completions] == [completion]


# -- samples that do not end by themselves


@pytest.mark.parametrize(("profile", "shown"), [(THINKS, "tw"), (HIDES_THOUGHTS, "")])
async def test_a_cancelled_call_is_charged_for_the_thoughts_that_were_shown(store, profile, shown):
    step, is_held = held_after(3)
    run = await a_run(store)
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=profile, step=step), "main", run)
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(c.text, c.thought.text, c.thought.closed) for _, c in run.partial_completions] == [("", shown, False)] * 2
    usage = run.ledger.usage()
    tokens = 6 if shown else 0  # nobody can tell how much of a hidden thought there was
    assert (usage.completion_tokens, usage.thinking_tokens) == (tokens, tokens)


async def test_samples_in_flight_are_cut_when_the_user_wants_the_answer(store):
    sink = MemorySink()
    step, is_held = held_after(THINKING + 2)
    run = await a_run(store, sink=sink)
    model = ScriptedModel(SCRIPT, profile=THINKS, step=step)
    metered = MeteredModel(model, "main", run)
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    run.conclude()
    run.conclude()
    (samples,) = await task
    assert [(c.text, c.finish_reason, c.thought) for c in samples] == [
        ("It", "budget", Thought(text=THOUGHT, tokens=THINKING, closed=True))
    ] * 2
    assert [c.answer_from for c in samples] == [THINKING] * 2
    assert run.ledger.usage().thinking_tokens == 2 * THINKING
    assert model.running == 0
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await metered.generate([request(prompt=Prompt.user("more"))])
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await metered.score(Prompt.user("q"), ["x"])
    await metered.concluding.generate([request(prompt=Prompt.user("more"), effort="none")])
    assert [e.kind for e in sink.of_type("budget.exhausted")] == ["user"]
    assert run.ledger.exhausted == "user"


async def test_a_score_in_flight_ends_when_the_user_wants_the_answer(store, clock):
    class Slow(ScriptedModel):
        async def score(self, prompt, continuations):
            await asyncio.Event().wait()

    run = await a_run(store)
    task = asyncio.create_task(MeteredModel(Slow(SCRIPT), "main", run).score(Prompt.user("q"), ["x"]))
    await clock.settle()
    run.conclude()
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await task


async def test_a_repetition_of_a_concluded_run_stops_where_its_calls_end(store):
    step, is_held = held_after(3)
    run = await a_run(store)
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS), "main", run)
    await metered.generate([request(prompt=Prompt.user("first"))])
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS, step=step), "main", run)
    task = asyncio.create_task(metered.generate([request()]))
    await is_held.wait()
    run.conclude()
    (cut,) = await task

    again = await a_run(store, new=False, conclusion=Conclusion("solve", 1))
    model = ScriptedModel(SCRIPT, profile=THINKS)
    metered = MeteredModel(model, "main", again)
    await metered.generate([request(prompt=Prompt.user("first"))])
    assert not again.ledger.is_closed
    assert await metered.generate([request()]) == [cut]
    assert again.ledger.is_closed
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await metered.generate([request(prompt=Prompt.user("more"))])
    assert await metered.generate([request()]) == [cut]  # a concurrent call whose turn comes later
    assert model.generate_calls == []


async def test_events_tell_the_stage_in_which_the_user_wanted_the_answer(store):
    sink = MemorySink()
    run = await a_run(store, sink=sink)
    for stage in ("route", "solve"):
        number = run.emit(StageStarted(stage=stage))
        if stage == "solve":
            run.emit(StageStarted(stage="opinions"))  # a stage of the strategy
            run.conclude()
        run.emit(StageFinished(stage=stage, seconds=0), parent=number)
    assert find_conclusion(sink.events) == Conclusion("solve", 0)
    before = next(i for i, e in enumerate(sink.events) if e.type == "budget.exhausted")
    assert find_conclusion(sink.events[:before]) is None
