"""`reasoning_effort` and `reasoning.effort`: what the model is asked for, and what is refused."""

import openai
import pytest

SAID, THOUGHTS = "The answer is 42.", "Six sevens."


def sampling(models, name="thinking"):
    return models[name].last_request.sampling


@pytest.mark.parametrize("effort", ["low", "high"])
def test_an_effort_reaches_the_model(ask, client, models, effort):
    made = ask(model="reason/cot:thinking", reasoning_effort=effort)
    assert sampling(models).effort == effort
    assert made.choices[0].message.reasoning_content == THOUGHTS
    answer = client.responses.create(model="reason/cot:thinking", input="6 * 7?", reasoning={"effort": effort})
    assert sampling(models).effort == effort
    assert answer.reasoning.effort == client.responses.retrieve(answer.id).reasoning.effort == effort
    ask(model="reason/cot:thinking", reason={"effort": effort, "thinking_tokens": 99})
    assert (sampling(models).effort, sampling(models).thinking_tokens) == (effort, 99)


def test_effort_none_turns_thoughts_off(ask):
    made = ask(model="reason/cot:thinking", reasoning_effort="none")
    assert made.choices[0].message.content == SAID
    assert not hasattr(made.choices[0].message, "reasoning_content")
    assert made.usage.completion_tokens_details.reasoning_tokens == 0


DOES_NOT_THINK = "model 'plain' does not think"
OF_LOW = f"effort low: {DOES_NOT_THINK}"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort", OF_LOW),
        ({"reasoning_effort": "low", "stream": True}, "reasoning_effort", OF_LOW),
        ({"reason": {"effort": "low"}}, "reason.effort", OF_LOW),
        ({"reason": {"thinking_tokens": 9}}, "reason.thinking_tokens", DOES_NOT_THINK),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "got 'huge'"),
        ({"reason": {"effort": "huge"}}, "reason.effort", "got 'huge'"),
        (
            {"reasoning_effort": "low", "reason": {"effort": "high"}},
            "reasoning_effort",
            "reasoning_effort is low, but reason.effort is high",
        ),
        (  # our "max"
            {"reasoning_effort": "xhigh", "model": "reason/cot:thinking"},
            "reasoning_effort",
            "model 'thinking' accepts none, low, medium, high",
        ),
    ],
)
def test_efforts_that_are_refused(ask, models, fields, param, message):
    calls = len(models["plain"].generate_calls)
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        list(ask(**{"model": "reason/cot:plain", **fields}))
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    assert len(models["plain"].generate_calls) == calls


@pytest.mark.parametrize(("effort", "message"), [("low", DOES_NOT_THINK), ("huge", "got 'huge'")])
def test_efforts_that_responses_refuse(client, effort, message):
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        client.responses.create(model="reason/cot:plain", input="6 * 7?", reasoning={"effort": effort})
    assert refused.value.param == "reasoning.effort"
