"""Verdicts of models that think: read at the beginning of the answer, never from a thought, and reported where cut."""

from __future__ import annotations

import math

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendError, BudgetExceeded
from reason.core.messages import Prompt, Thought
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.profiles.profile import ModelProfile
from reason.serving.quick_calls import first_tokens, quick_capabilities, quick_params, without_thought
from support.scripted_model import ALWAYS_THINKS, CLOSE, END, OPEN, THINKS, ScriptedModel, thinking
from support.stored_runs import RunHarness

HYBRID = ModelProfile(thinks="default", efforts={"none": {}, "high": {}}, thought="field")
"""A model behind a provider: it can be told not to think, and continues nothing."""
PROMPT = Prompt.user("Is it so?")


def verdict(text):
    """After a thought Y with 0.8 and N with 0.2; without one, or with an empty one, the reverse."""
    written = text.rpartition("assistant: ")[2]
    has_thought = not written.startswith(OPEN + CLOSE)
    return {"Y": 0.8, "N": 0.2} if has_thought else {"Y": 0.2, "N": 0.8}


def thinker(profile, thought="It is long.", **options):
    return ScriptedModel(thinking(thought, verdict), profile=profile, **options)


def shares(distribution):
    return {
        token: pytest.approx(math.exp(p)) for token, p in zip(distribution.tokens, distribution.logprobs, strict=True)
    }


@pytest.fixture
async def harness(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")

    async def begin(model, **budget):
        runs = RunHarness(store, model)
        return await runs.begin("r", strategy="cot", question=Question(text="q"), budget=Budget(**budget), seed=1)

    yield begin
    await store.aclose()


async def test_a_thought_that_can_be_closed_is_and_nothing_is_generated():
    model = thinker(THINKS)
    (distribution,) = await first_tokens(model, [PROMPT], 20)
    assert shares(distribution) == {"N": 0.8, "Y": 0.2}
    assert not model.generate_calls


async def test_a_model_told_not_to_think_generates_one_token_of_the_answer():
    model = thinker(HYBRID)
    (distribution,) = await first_tokens(model, [PROMPT], 20)
    assert shares(distribution) == {"N": 0.8, "Y": 0.2}
    assert distribution.usage.completion_tokens == 1
    ((request,),) = model.generate_calls
    assert (request.sampling.effort, request.sampling.max_tokens) == ("none", 1)


async def test_a_model_that_always_thinks_has_room_for_it_and_its_answer_is_read():
    model = thinker(ALWAYS_THINKS, "N")
    (distribution,) = await first_tokens(model, [PROMPT], 20)
    assert shares(distribution) == {"Y": 0.8, "N": 0.2}
    ((request,),) = model.generate_calls
    assert (request.sampling.effort, request.sampling.thinking_tokens) == ("low", 1024)
    assert distribution.usage.thinking_tokens == 3


async def test_a_verdict_cut_in_its_thought_is_none_and_reported(harness):
    model = await harness(thinker(ALWAYS_THINKS, "Y" * 2000))
    assert await first_tokens(model, [PROMPT, PROMPT], 20) == [None, None]
    (note,) = model.run.degraded
    assert note.startswith("some verdicts of scripted were cut while it thought")
    assert "--judge-model" in note


async def test_a_quick_call_that_the_budget_does_not_cover_is_refused_with_the_remedy(harness):
    inner = thinker(ALWAYS_THINKS)
    model = await harness(inner, tokens=500)
    with pytest.raises(BudgetExceeded):
        await first_tokens(model, [PROMPT], 20)
    assert not inner.generate_calls
    (note,) = model.run.degraded
    assert "cannot answer without thinking" in note
    assert "--judge-model" in note
    assert model.run.ledger.exhausted == "tokens"


async def test_failed_verdicts_are_none_and_all_failed_are_an_error():
    model = thinker(HYBRID, failing=frozenset({0}))
    with pytest.raises(BackendError, match="failed to give any verdict"):
        await first_tokens(model, [PROMPT], 20)


async def test_a_model_that_does_not_think_is_asked_as_ever():
    model = ScriptedModel(lambda text: {"Y": 0.5, END: 0.5})
    (distribution,) = await first_tokens(model, [PROMPT], 20)
    assert shares(distribution) == {"Y": 0.5, END: 0.5}
    assert not model.generate_calls
    assert quick_params(model, max_tokens=1).effort is None
    assert without_thought(PROMPT, model.capabilities.profile) is PROMPT


def test_what_is_refused_while_thinking_is_there_in_a_quick_call():
    refuses = frozenset({"logprobs", "json_schema"})
    able = thinker(HYBRID.model_copy(update={"refuses_while_thinking": refuses}), json_schema=True)
    assert (quick_capabilities(able).top_logprobs, quick_capabilities(able).json_schema) == (20, True)
    unable = thinker(ALWAYS_THINKS.model_copy(update={"refuses_while_thinking": refuses}), json_schema=True)
    assert (quick_capabilities(unable).top_logprobs, quick_capabilities(unable).json_schema) == (0, False)


def test_only_an_unmarked_prompt_gets_an_empty_thought():
    assert without_thought(PROMPT, THINKS).thought == Thought()
    assert without_thought(PROMPT.with_prefix("It"), THINKS).thought is None
    assert without_thought(PROMPT, HYBRID) is PROMPT
    given = PROMPT.with_thought(Thought(text="So."))
    assert without_thought(given, THINKS) is given
