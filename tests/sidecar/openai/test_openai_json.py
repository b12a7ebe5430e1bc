"""Answers as JSON: `json_object` and `json_schema` with every strategy, on models with and without grammars."""

from __future__ import annotations

import json

import openai
import pytest

from .conftest import ending

SAID, JSON = "The answer is 42.", {"answer": 42}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
OBJECT = {"type": "json_object"}
FORM = {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA, "strict": True}}


def streamed(chunks):
    """Content, thoughts and finish reason of a stream with one choice."""
    content = thoughts = ""
    finish = None
    for chunk in chunks:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        thoughts += getattr(choice.delta, "reasoning", None) or ""
        finish = choice.finish_reason or finish
    return content, thoughts, finish


@pytest.mark.parametrize(("stream", "form"), [(False, FORM), (True, OBJECT)])
@pytest.mark.parametrize("model", ["reason/cot:formed", "reason/self-consistency:formed"])
def test_any_strategy_answers_in_json(ask, model, form, stream):
    parameters = {"n": 3} if "self" in model else {}
    fields = {"model": model, "response_format": form, "reason": {"parameters": parameters}}
    if stream:
        content, _, finish = streamed(ask(**fields, stream=True))
    else:
        content, finish = ending(ask(**fields))
    assert (json.loads(content), finish) == (JSON, "stop")


def test_json_under_a_grammar_is_streamed_as_it_is_written(ask):
    pieces = [c.choices[0].delta.content for c in ask(model="reason/cot:formed", response_format=OBJECT, stream=True)]
    assert len([piece for piece in pieces if piece]) > 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_without_grammars_corrects_itself_before_anything_is_content(ask, stream):
    fields = {"model": "reason/cot:correcting", "response_format": FORM}
    if stream:
        content, thoughts, finish = streamed(ask(**fields, stream=True))
        assert '{"answer": "42"}' in thoughts
    else:
        content, finish = ending(ask(**fields))
    assert (json.loads(content), finish) == (JSON, "stop")


@pytest.mark.parametrize("form", [OBJECT, FORM])
def test_what_never_becomes_valid_is_an_error(ask, form):
    with pytest.raises(openai.UnprocessableEntityError, match="attempts: it is no JSON") as failed:
        ask(response_format=form)
    assert failed.value.code == "schema_not_satisfied"
    with pytest.raises(openai.APIError):
        streamed(ask(response_format=form, stream=True))


def test_a_stop_string_that_cuts_json_does_not_end_it(ask):
    assert ending(ask(model="reason/cot:formed", response_format=OBJECT, stop=["42"])) == ('{"answer":', "length")


def test_a_limit_that_cuts_json_is_told(ask):
    fields = {"model": "reason/cot:formed", "response_format": OBJECT}
    assert ending(ask(**fields, reason={"budget": {"tokens": len(SAID) + 1 + 5}})) == ('{"ans', "length")


def test_responses_take_json_object(client):
    made = client.responses.create(model="reason/cot:formed", input="?", text={"format": OBJECT})
    assert (json.loads(made.output_text), made.status) == (JSON, "completed")
