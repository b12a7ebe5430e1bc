"""Verdicts of models that think: read at the beginning of the answer, never from a thought, and reported where cut."""

import math

import pytest
from reason.core.errors import BackendError, BudgetExceeded
from reason.core.messages import Prompt, Thought
from reason.serving.profiles.profile import QUICK_THINKING_TOKENS, ModelProfile, check_sampling, quick_sampling
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
    return pytest.approx(dict(zip(distribution.tokens, map(math.exp, distribution.logprobs), strict=True)))


@pytest.mark.parametrize(
    ("model", "shown", "tokens", "sent"),
    [
        (thinker(THINKS), {"N": 0.8, "Y": 0.2}, (0, 0), []),  # its thought can be closed, and nothing is generated
        (thinker(HYBRID), {"N": 0.8, "Y": 0.2}, (1, 0), [("none", None, 1)]),  # told not to think
        (thinker(ALWAYS_THINKS, "N"), {"Y": 0.8, "N": 0.2}, (4, 3), [("low", 1024, 1)]),  # has room for its thought
        (ScriptedModel(lambda text: {"Y": 0.5, END: 0.5}), {"Y": 0.5, END: 0.5}, (0, 0), []),  # does not think
    ],
)
async def test_a_verdict_is_read_at_the_beginning_of_the_answer(model, shown, tokens, sent):
    (distribution,) = await first_tokens(model, [PROMPT], 20)
    assert shares(distribution) == shown
    assert (distribution.usage.completion_tokens, distribution.usage.thinking_tokens) == tokens
    params = [request.sampling for requests in model.generate_calls for request in requests]
    assert [(p.effort, p.thinking_tokens, p.max_tokens) for p in params] == sent


async def test_a_verdict_cut_in_its_thought_is_none_and_reported(store):
    model = await RunHarness(store, thinker(ALWAYS_THINKS, "Y" * 2000)).begin()
    assert await first_tokens(model, [PROMPT, PROMPT], 20) == [None, None]
    (note,) = model.run.degraded
    assert note.startswith("some verdicts of scripted were cut while it thought")
    assert "--judge-model" in note


async def test_a_quick_call_that_the_budget_does_not_cover_is_refused_with_the_remedy(store):
    inner = thinker(ALWAYS_THINKS)
    model = await RunHarness(store, inner).begin(budget={"tokens": 500})
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


def test_a_model_that_does_not_think_is_asked_as_ever():
    model = ScriptedModel(lambda text: {END: 1.0})
    assert quick_params(model, max_tokens=1).effort is None
    assert without_thought(PROMPT, model.capabilities.profile) is PROMPT


def test_what_is_refused_while_thinking_is_there_in_a_quick_call():
    refuses = frozenset({"logprobs", "json_schema"})
    able = thinker(HYBRID.model_copy(update={"refuses_while_thinking": refuses}), json_schema=True)
    unable = thinker(ALWAYS_THINKS.model_copy(update={"refuses_while_thinking": refuses}), json_schema=True)
    quick = [quick_capabilities(model) for model in (able, unable)]
    assert [(can.top_logprobs, can.json_schema) for can in quick] == [(20, True), (0, False)]


def test_only_an_unmarked_prompt_gets_an_empty_thought():
    assert without_thought(PROMPT, THINKS).thought == Thought()
    assert without_thought(PROMPT.with_prefix("It"), THINKS).thought is None
    assert without_thought(PROMPT, HYBRID) is PROMPT
    given = PROMPT.with_thought(Thought(text="So."))
    assert without_thought(given, THINKS) is given


def test_a_quick_call_names_no_effort_that_was_refused_or_ignored():
    efforts = {"none": {"reasoning_effort": "none"}, "low": {"reasoning_effort": "low"}}
    profile = ModelProfile(thinks="default", efforts=efforts)
    assert profile.quick_fields == {"effort": "none"}
    learned = profile.model_copy(update={"left_out": frozenset({"effort"})})
    assert learned.quick_fields == {"effort": None, "thinking_tokens": QUICK_THINKING_TOKENS}
    check_sampling(learned, "m", quick_sampling(learned, max_tokens=8), thinking=True)
