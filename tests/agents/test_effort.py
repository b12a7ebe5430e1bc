"""The dial of a run: efforts and limits of thoughts by argument, setting and environment, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from reason.agents.reasoner import Reasoner
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.run import RunConfig, read_config
from reason.core.store.records import RunRecord
from support.injected_models import loaded_models
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel, replies, thinking
from support.stored_runs import run_config

SCRIPT = thinking("two and two", "The answer is 4.")
LIMITED = THINKS.model_copy(
    update={"max_thinking_tokens": 500, "min_thinking_tokens": 100, "thinking_budget": {"budget": "$tokens"}}
)


async def asked(settings, profile=THINKS, script=SCRIPT, question="What is 2 + 2?", ask=None, **options):
    """The sampling parameters that a model got, and the answer."""
    model = ScriptedModel(script, profile=profile)
    with loaded_models({"scripted": model}):
        async with Reasoner(settings=settings, **options) as reasoner:
            answer = await reasoner.aask(question, **(ask or {}))
    return model.generate_calls[0][0].sampling, answer


async def test_an_argument_beats_the_setting_and_a_questions_the_reasoners(settings):
    sampling, answer = await asked(settings)
    assert (sampling.effort, sampling.thinking_tokens) == (None, 8192)
    assert (answer.thought, answer.usage.thinking_tokens, answer.text) == ("two and two", 13, "The answer is 4.")
    low = settings.model_copy(update={"effort": "low", "reuse": "none"})
    assert (await asked(low))[0].effort == "low"
    assert (await asked(low, effort="high"))[0].effort == "high"
    sampling, _ = await asked(low, effort="high", ask={"effort": "medium", "thinking_tokens": 50})
    assert (sampling.effort, sampling.thinking_tokens) == ("medium", 50)
    assert (await asked(low, ask={"effort": "none"}))[1].usage.thinking_tokens == 0


def test_a_configuration_without_the_dial_is_dumped_as_before():
    config = run_config()
    assert not {"effort", "thinking_tokens"} & set(config.model_dump())
    assert "thinking_tokens" not in Budget().model_dump()
    dialled = config.model_copy(update={"effort": "low", "thinking_tokens": 9})
    assert RunConfig.model_validate(dialled.model_dump(mode="json")) == dialled
    with pytest.raises(ValidationError):
        RunConfig.model_validate(config.model_dump() | {"effort": "hard"})


@pytest.mark.parametrize(
    ("profile", "options", "message"),
    [
        (THINKS, {"effort": "hard"}, "effort .*'hard'.*none.*minimal.*low.*medium.*high.*max"),
        (THINKS, {"thinking_tokens": 0}, "thinking_tokens .*(= 0: input should be greater|must be positive, got 0)"),
        (THINKS, {"effort": "max"}, "effort max: model 'scripted' accepts none, low, medium, high"),
        (ALWAYS_THINKS, {"effort": "none"}, "effort none: model 'scripted' always thinks"),
        (None, {"effort": "low"}, "effort low: model 'scripted' does not think"),
        (None, {"thinking_tokens": 50}, "thinking_tokens 50: model 'scripted' does not think"),
        (LIMITED, {"thinking_tokens": 501}, "thinking_tokens=501: model 'scripted' takes at most 500"),
        (LIMITED, {"thinking_tokens": 99}, "thinking_tokens=99: model 'scripted' takes at least 100"),
    ],
)
async def test_what_the_model_cannot_do_is_refused_before_the_first_call(settings, profile, options, message):
    model = ScriptedModel(SCRIPT, profile=profile)
    with loaded_models({"scripted": model}):
        with pytest.raises(UserError, match=message):
            async with Reasoner(settings=settings, **options) as reasoner:
                await reasoner.aask("?")
        async with Reasoner(settings=settings) as reasoner:
            with pytest.raises(UserError, match=message):
                await reasoner.aask("?", **options)
    assert model.generate_calls == []


async def test_effort_none_suits_a_model_that_does_not_think(settings):
    sampling, answer = await asked(settings, None, replies("The answer is 4."), effort="none")
    assert (sampling.effort, answer.answer) == (None, "4")


def test_a_stored_effort_is_read_again():
    config = run_config(effort="low")
    record = RunRecord.model_construct(id="r", config=config.model_dump(mode="json"))
    assert read_config(record) == config
