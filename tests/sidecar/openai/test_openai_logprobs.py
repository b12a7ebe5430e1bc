"""Log-probabilities of the content's tokens, where it is one sample."""

from __future__ import annotations

import math

import openai
import pytest

SAID = "The answer is 42."


def joined(entries):
    return "".join(entry.token for entry in entries)


@pytest.mark.parametrize("model", ["reason/cot", "reason/cot:thinking"])
def test_each_token_of_the_content_has_its_log_probability(ask, model):
    (choice,) = ask(model=model, logprobs=True, top_logprobs=2).choices
    entries = choice.logprobs.content
    assert joined(entries) == choice.message.content == SAID
    assert all(entry.logprob == 0.0 and bytes(entry.bytes).decode() == entry.token for entry in entries)
    assert all([top.token for top in entry.top_logprobs] == [entry.token] for entry in entries)


def test_alternatives_have_their_own(ask):
    made = ask(model="reason/cot:torn", logprobs=True, top_logprobs=2)
    last = made.choices[0].logprobs.content[-2]
    assert [(top.token, top.logprob) for top in last.top_logprobs] == [
        ("2", pytest.approx(math.log(2 / 3))),
        ("3", pytest.approx(math.log(1 / 3))),
    ]
    plain = ask(model="reason/cot:torn", logprobs=True)
    assert all(entry.top_logprobs == [] for entry in plain.choices[0].logprobs.content)
    assert ask(model="reason/cot:torn").choices[0].logprobs is None


def test_a_stream_has_them_with_its_end(ask):
    chunks = list(ask(logprobs=True, top_logprobs=1, stream=True))
    entries = [e for c in chunks if c.choices[0].logprobs is not None for e in c.choices[0].logprobs.content]
    assert joined(entries) == SAID


def test_content_that_a_stop_string_cuts_has_those_of_its_own_tokens(ask):
    (choice,) = ask(logprobs=True, stop=" is").choices
    assert joined(choice.logprobs.content) == choice.message.content == "The answer"


@pytest.mark.parametrize("stream", [False, True])
def test_responses(client, stream):
    fields = {"model": "reason/cot:torn", "input": "?", "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    made = client.responses.create(**fields, stream=stream)
    if stream:
        made = list(made)[-1].response
    (part,) = made.output[-1].content
    assert joined(part.logprobs) == part.text == SAID
    assert [len(entry.top_logprobs) for entry in part.logprobs].count(2) == 1


def test_a_model_that_gives_none_is_named(ask, models, monkeypatch):
    model = type(models["plain"])
    able = model.capabilities.fget
    lacking = property(lambda self: able(self).model_copy(update={"logprobs": False, "top_logprobs": 0}))
    monkeypatch.setattr(model, "capabilities", lacking)
    with pytest.raises(openai.BadRequestError, match="cannot do 'top_logprobs=1'") as refused:
        ask(logprobs=True)
    assert refused.value.code == "capability_missing"
