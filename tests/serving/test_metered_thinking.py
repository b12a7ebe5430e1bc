"""Thoughts in metered calls: caps, shares of the budget, charges, quick calls, and the user's wish for the answer."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import BudgetExceeded, UserError
from reason.core.events import StageFinished, StageStarted
from reason.core.messages import Prompt, Request, SamplingParams, Thought
from reason.core.run import Conclusion, Run, find_conclusion
from reason.serving.metered.model import MeteredModel, nearest_effort
from reason.serving.profiles.profile import ModelProfile
from support.scripted_model import (
    ALWAYS_THINKS,
    HIDES_THOUGHTS,
    THINKS,
    ScriptedModel,
    held_after,
    replies,
    thinking,
)
from support.stored_runs import RunHarness, run_config

THOUGHT, ANSWER = "two and two", "It is 4."
SCRIPT = thinking(THOUGHT, ANSWER)
THINKING = len(THOUGHT) + 2
"""Tokens of the thought with its tags."""


def request(n=1, max_tokens=50, text="q", **sampling):
    return Request(prompt=Prompt.user(text), sampling=SamplingParams(n=n, max_tokens=max_tokens, **sampling))


MORE = request(text="more")


@pytest.fixture
def harness(store):
    return RunHarness(store, ScriptedModel(SCRIPT, profile=THINKS))


async def sample(harness, profile=THINKS, asked=None, script=SCRIPT, **options):
    """A sample of a run that is begun or resumed, and the model that was called."""
    model = ScriptedModel(script, profile=profile)
    ((completion,),) = await harness.generate(asked or request(), model=model, **options)
    return completion, model


async def params(harness, **options):
    """The parameters that the model gets for a sample."""
    _, model = await sample(harness, **options)
    return model.generate_calls[0][0].sampling


# -- thought and answer


async def test_a_thought_ends_at_its_cap(harness):
    completion, _ = await sample(harness, thinking_tokens=5)
    assert (completion.text, completion.finish_reason) == ("", "thinking")
    assert completion.thought == Thought(text="two ", tokens=5, closed=False)
    assert harness.run.ledger.exhausted is None  # the run's own limit of a thought, no budget
    assert [c for _, c in harness.run.partial_completions] == [completion]


async def test_a_verdict_that_is_cut_is_no_attempt_at_the_question(harness):
    metered = await harness.begin(thinking_tokens=5)
    ((verdict,),) = await metered.generate([request().model_copy(update={"is_attempt": False})])
    assert verdict.finish_reason == "thinking"
    assert harness.run.partial_completions == []
    assert await metered.generate([request()]) == [[verdict]]  # the same sample, whatever it is for
    assert [c for _, c in harness.run.partial_completions] == [verdict]


@pytest.mark.parametrize("profile", [THINKS, HIDES_THOUGHTS, THINKS.model_copy(update={"opened_by_template": True})])
async def test_stored_samples_with_thoughts_are_replayed(harness, profile):
    first, _ = await sample(harness, profile)
    again, model = await sample(harness, profile)
    assert again == first
    assert model.generate_calls == []
    assert harness.spent.thinking_tokens == first.usage.thinking_tokens


# -- the dial


async def test_the_runs_effort_and_limit_are_part_of_the_sample(harness):
    for options, expected in (
        ({"effort": "low"}, ("low", 4096)),
        ({"effort": "none"}, ("none", 0)),
        ({"effort": "high", "thinking_tokens": 90}, ("high", 90)),
    ):
        completion, model = await sample(harness, name=options["effort"], **options)
        sent = model.generate_calls[0][0].sampling
        assert (sent.effort, sent.thinking_tokens) == expected
        assert (completion.thought is None) == (expected[0] == "none")
    metered = await harness.begin("changing")
    for effort in ("low", "medium", "low"):
        harness.run.effort = effort
        await metered.generate([request()])
    assert len(await harness.store.list_calls("changing")) == 2


async def test_a_model_that_does_not_think_keeps_its_keys(harness):
    plain = {"profile": ModelProfile(), "script": replies("x")}
    sent = await params(harness, **plain, effort="high", thinking_tokens=100)
    assert (sent.effort, sent.thinking_tokens) == (None, None)
    _, model = await sample(harness, **plain)
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


async def test_a_default_temperature_without_effect_is_no_part_of_the_sample(harness):
    metered = await harness.begin()
    defaults = [{"default_temperature": value} for value in (0.7, 0.0)]
    for cases, calls in (
        ([*defaults, {}], 1),  # it thinks, as its makers want
        ([{"temperature": 0.5, **case} for case in (*defaults, {})], 2),
        ([{"effort": "none", **case} for case in defaults], 4),
    ):
        for case in cases:
            await metered.generate([request(**case)])
        assert len(await harness.store.list_calls("r")) == calls


async def test_a_limit_makes_a_model_think_that_thinks_if_asked(harness):
    asked_only = THINKS.model_copy(update={"thinks": "opt-in"})
    completion, _ = await sample(harness, asked_only, name="a")
    assert completion.thought is None
    completion, model = await sample(harness, asked_only, name="b", thinking_tokens=200)
    assert completion.thought.text == THOUGHT
    assert model.generate_calls[0][0].sampling.effort == "medium"


async def test_a_parameter_that_the_model_refuses_is_an_error_before_the_call(harness):
    strict = THINKS.model_copy(update={"refuses_while_thinking": frozenset({"temperature", "logprobs"})})
    model = harness.model = ScriptedModel(SCRIPT, profile=strict)
    metered = await harness.begin()
    with pytest.raises(UserError, match="does not take temperature while it thinks, got 0.5"):
        await metered.generate([request(temperature=0.5)])
    assert model.generate_calls == []
    await metered.generate([request(default_temperature=0.5)])
    assert (metered.capabilities.logprobs, metered.quick_capabilities.logprobs) == (False, True)
    await metered.generate([request(effort="none", temperature=0.5, logprobs=True)])
    # capabilities follow the run's effort
    for effort, thinks in (("none", False), ("low", True)):
        harness.run.effort = effort
        assert (metered.thinks, metered.capabilities.logprobs) == (thinks, not thinks)


# -- budgets


@given(
    share=st.floats(2, 400),
    thinking_share=st.one_of(st.floats(1, 200), st.just(float("inf"))),
    limit=st.integers(1, 200),
    answer=st.integers(1, 200),
)
def test_a_share_is_never_exceeded_and_both_parts_keep_something(share, thinking_share, limit, answer):
    metered = MeteredModel(ScriptedModel(SCRIPT, profile=THINKS), "main", Run("r", run_config(), None))
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
    ("tokens", "cap", "answer"),
    [(1000, 500, 500), (10_000, 8192, 500), (600, 300, 300), (128, 64, 64), (126, 0, 126), (2, 0, 2)],
)
async def test_tokens_of_a_budget_are_shared_by_thought_and_answer(harness, tokens, cap, answer):
    sent = await params(harness, asked=request(max_tokens=500), budget={"tokens": tokens})
    assert (sent.thinking_tokens, sent.max_tokens) == (cap, answer)


async def test_a_thought_that_the_budget_cuts_leaves_tokens_for_the_answer_or_is_not_begun(harness):
    long = thinking("two " * 40, ANSWER)
    completion, _ = await sample(harness, script=long, asked=request(max_tokens=100), budget={"tokens": 128})
    assert (completion.finish_reason, completion.usage.completion_tokens) == ("thinking", 64)
    assert (harness.run.ledger.exhausted, harness.run.ledger.remaining("tokens")) == ("tokens", 64)
    completion, _ = await sample(harness, name="without a thought", budget={"tokens": 100})
    assert (completion.thought, completion.text) == (None, ANSWER)
    assert harness.run.degraded == [
        "scripted answered without thinking: 50 tokens are left for a thought, which needs at least 64"
    ]
    with pytest.raises(BudgetExceeded, match="tokens"):
        await sample(harness, name="without room", budget={"tokens": 1})


async def test_thinking_tokens_are_reserved_while_in_flight(harness):
    harness.model._step, is_held = held_after(1)
    metered = await harness.begin(budget={"thinking_tokens": 20})
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    assert harness.run.ledger.used("thinking_tokens") == 20
    with pytest.raises(BudgetExceeded, match="thinking_tokens"):
        await metered.generate([MORE])
    await metered.generate([request(text="more", effort="none")])  # no thought, no limit
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert harness.run.ledger.used("thinking_tokens") == 2


async def test_thoughts_are_left_out_if_the_budget_has_less_than_the_models_least_limit(harness):
    budget = {"tokens": 1000}
    least = THINKS.model_copy(update={"min_thinking_tokens": 1024, "thinking_budget": {"budget": "$tokens"}})
    completion, model = await sample(harness, least, budget=budget)
    assert (completion.text, completion.thought) == (ANSWER, None)
    assert model.generate_calls[0][0].sampling.effort == "none"
    assert harness.run.degraded == [
        "scripted answered without thinking: 950 tokens are left for a thought, which needs at least 1024"
    ]
    always = least.model_copy(update={"thinks": "always", "prefix": "none", "efforts": {"low": {}}})
    with pytest.raises(BudgetExceeded, match="tokens"):
        await sample(harness, always, name="always", budget=budget)


async def test_a_model_that_always_thinks_refuses_a_budget_without_room_before_it_spends(harness):
    model = ScriptedModel(SCRIPT, profile=ALWAYS_THINKS, price=0.001)
    prompt = model.count_tokens(request().prompt)
    with pytest.raises(BudgetExceeded):
        await harness.generate(request(), model=model, budget={"usd": (prompt + 30.5) / 1000})
    assert (model.generate_calls, harness.spent.cost_usd) == ([], 0)
    assert harness.run.degraded == [
        f"the budget of {(prompt + 30.5) / 1000:g} usd has 30 tokens for a sample of scripted, which always thinks and "
        f"needs at least 114: raise it to {(prompt + 114) / 1000:g}"
    ]


@pytest.mark.parametrize(
    ("profile", "limit", "expected"),
    [(THINKS, 6000, (5950, 50)), (THINKS, 40, (0, 40)), (ALWAYS_THINKS, 1, (0, 1)), (THINKS, 20_000, (8192, 50))],
)
async def test_the_limit_of_a_sample_includes_its_thought(harness, profile, limit, expected):
    sent = await params(harness, profile=profile, sample_tokens=limit)
    assert (sent.thinking_tokens, sent.max_tokens) == expected
    sent = await params(
        harness,
        name="verdict",
        asked=request().model_copy(update={"is_attempt": False}),
        profile=profile,
        sample_tokens=limit,
    )
    assert (sent.thinking_tokens, sent.max_tokens) == (8192, 50)


async def test_a_limit_below_the_least_thought_is_refused(harness):
    bound = {"thinking_budget": {"budget": "$tokens"}, "min_thinking_tokens": 1024}
    always = ALWAYS_THINKS.model_copy(update=bound)
    with pytest.raises(UserError, match="max_tokens 1024: scripted always thinks, with 1024 tokens or more"):
        await sample(harness, always, sample_tokens=1024)


async def test_the_time_limit_leaves_time_for_the_answer_after_a_thought(harness, clock):
    script = thinking("x" * 500, ANSWER)
    harness.model = ScriptedModel(script, profile=THINKS, step=lambda: asyncio.sleep(0.05))
    ((completion,),) = await clock.run(harness.generate(request(), budget={"seconds": 4.0}))
    assert (completion.finish_reason, completion.text) == ("budget", "")
    assert completion.thought.text.startswith("xxx")
    assert harness.run.ledger.remaining_seconds() == pytest.approx(0.4)
    assert [c for _, c in harness.run.partial_completions] == [completion]


# -- samples that do not end by themselves


@pytest.mark.parametrize(("profile", "shown"), [(THINKS, "tw"), (HIDES_THOUGHTS, "")])
async def test_a_cancelled_call_is_charged_for_the_thoughts_that_were_shown(harness, profile, shown):
    step, is_held = held_after(3)
    metered = await harness.begin(model=ScriptedModel(SCRIPT, profile=profile, step=step))
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    partial = [(c.text, c.thought.text, c.thought.closed) for _, c in harness.run.partial_completions]
    assert partial == [("", shown, False)] * 2
    tokens = 6 if shown else 0  # nobody can tell how much of a hidden thought there was
    assert (harness.spent.completion_tokens, harness.spent.thinking_tokens) == (tokens, tokens)


CONCLUDED = {"match": "the user wants the answer now"}


async def test_samples_in_flight_are_cut_when_the_user_wants_the_answer(harness):
    harness.model._step, is_held = held_after(THINKING + 2)
    metered = await harness.begin()
    task = asyncio.create_task(metered.generate([request(n=2)]))
    await is_held.wait()
    harness.run.conclude()
    harness.run.conclude()
    (samples,) = await task
    cut = ("It", "budget", Thought(text=THOUGHT, tokens=THINKING, closed=True), THINKING)
    assert [(c.text, c.finish_reason, c.thought, c.answer_from) for c in samples] == [cut] * 2
    assert harness.spent.thinking_tokens == 2 * THINKING
    assert harness.model.running == 0
    for call in (metered.generate([MORE]), metered.score(Prompt.user("q"), ["x"])):
        with pytest.raises(BudgetExceeded, **CONCLUDED):
            await call
    await metered.concluding.generate([request(text="more", effort="none")])
    assert [e.kind for e in harness.sink.of_type("budget.exhausted")] == ["user"]
    assert harness.run.ledger.exhausted == "user"


async def test_samples_are_not_requested_if_the_user_wants_the_answer_at_a_stored_one(harness):
    metered = await harness.begin()
    ((stored,),) = await metered.generate([request()])
    ((first, second),) = await metered.generate([request(n=2)], lambda chunk: harness.run.conclude())
    assert (first, second.text, second.finish_reason) == (stored, "", "budget")
    assert len(harness.model.generate_calls) == 1


async def test_a_score_in_flight_ends_when_the_user_wants_the_answer(harness, clock):
    class Slow(ScriptedModel):
        async def score(self, prompt, continuations):
            await asyncio.Event().wait()

    metered = await harness.begin(model=Slow(SCRIPT))
    task = asyncio.create_task(metered.score(Prompt.user("q"), ["x"]))
    await clock.settle()
    harness.run.conclude()
    with pytest.raises(BudgetExceeded, **CONCLUDED):
        await task


async def test_a_repetition_of_a_concluded_run_stops_where_its_calls_end(harness):
    first = request(text="first")
    metered = await harness.begin()
    await metered.generate([first])
    harness.model._step, is_held = held_after(3)
    task = asyncio.create_task(metered.generate([request()]))
    await is_held.wait()
    harness.run.conclude()
    (cut,) = await task

    harness.model = ScriptedModel(SCRIPT, profile=THINKS)
    metered = await harness.begin(conclusion=Conclusion("solve", 1))
    await metered.generate([first])
    assert not harness.run.ledger.is_closed
    assert await metered.generate([request()]) == [cut]
    assert harness.run.ledger.is_closed
    with pytest.raises(BudgetExceeded, **CONCLUDED):
        await metered.generate([MORE])
    assert await metered.generate([request()]) == [cut]  # a concurrent call whose turn comes later
    assert harness.model.generate_calls == []


async def test_events_tell_the_stage_in_which_the_user_wanted_the_answer(harness):
    await harness.begin()
    run, sink = harness.run, harness.sink
    for stage in ("route", "solve"):
        number = run.emit(StageStarted(stage=stage))
        if stage == "solve":
            run.emit(StageStarted(stage="opinions"))  # a stage of the strategy
            run.conclude()
        run.emit(StageFinished(stage=stage, seconds=0), parent=number)
    assert find_conclusion(sink.events) == Conclusion("solve", 0)
    before = next(i for i, e in enumerate(sink.events) if e.type == "budget.exhausted")
    assert find_conclusion(sink.events[:before]) is None
