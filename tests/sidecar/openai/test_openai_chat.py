"""Chat completions without streaming, through OpenAI's client."""

import json

import openai
import pytest
from support.chats import assistant, text_part, user

from .conftest import ending

SAID = "The answer is 42."
CHECKED = {"verify": ["edgejury"], "verify_parameters": {"edgejury": {"judge": "lexical"}}}
"""A verifier that calls only the main model."""


def store_of(server, run_id):
    return server.call(server.run_manager.store.get_run(run_id))


def test_a_completion(ask, server):
    made = ask(seed=7)
    (choice,) = made.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", SAID, "stop")
    assert (made.object, made.model, choice.index) == ("chat.completion", "reason/cot", 0)
    assert made.id == f"chatcmpl-{made.reason['run_id']}"
    assert made.reason["answer"] == "42"
    assert made.reason["seed"] == 7
    assert store_of(server, made.reason["run_id"]).status == "finished"


def test_thoughts_without_content_where_the_limit_came_first(ask):
    made = ask(model="reason/cot:lengthy", reason={"thinking_tokens": 30})
    (choice,) = made.choices
    assert (choice.message.content, choice.finish_reason) == ("", "length")
    assert choice.message.reasoning.startswith("on and on")
    assert made.reason["usage"]["thinking_tokens"] == 30
    assert "ended while the model thought" in made.reason["degraded"][0]


def test_a_thought_that_was_cut_is_concluded(ask):
    made = ask(model="reason/cot:concluding", reason={"thinking_tokens": 30})
    assert ending(made) == ("Therefore, the answer is 42.", "stop")
    assert made.reason["answer"] == "42"


def test_usage_is_the_ledgers(ask, server):
    made = ask(
        model="reason/self-consistency:thinking",
        reason={"parameters": {"n": 3}, **CHECKED},
    )
    spent = store_of(server, made.reason["run_id"]).answer["usage"]
    roles = spent["by_role"].values()
    assert made.usage.prompt_tokens == spent["prompt_tokens"] == sum(r["prompt_tokens"] for r in roles)
    assert made.usage.completion_tokens == spent["completion_tokens"] == sum(r["completion_tokens"] for r in roles)
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert spent["model_calls"] > 1  # includes the verifier's calls
    assert made.reason["usage"]["by_role"] == spent["by_role"]
    assert made.reason["verification"]["verifiers"] == ["edgejury"]


def test_reasoning_tokens_are_all_that_is_not_in_the_content(ask):
    one = ask(model="reason/cot").usage
    assert (one.completion_tokens, one.completion_tokens_details.reasoning_tokens) == (len(SAID) + 1, 0)
    several = ask(model="reason/self-consistency", reason={"parameters": {"n": 3}}).usage
    assert several.completion_tokens == 3 * (len(SAID) + 1)
    assert several.completion_tokens_details.reasoning_tokens == 2 * (len(SAID) + 1)
    thinking = ask(model="reason/cot:thinking")
    thought = len("Six sevens.") + 2  # with a token for each tag
    assert thinking.usage.completion_tokens == thought + len(SAID) + 1
    assert thinking.usage.completion_tokens_details.reasoning_tokens == thought
    assert thinking.reason["usage"]["thinking_tokens"] == thought
    assert thinking.reason["usage"]["by_role"]["main:thinking"]["thinking_tokens"] == thought
    voted = ask(model="reason/self-consistency:thinking", reason={"parameters": {"n": 3}})
    assert voted.usage.completion_tokens_details.reasoning_tokens == 3 * thought + 2 * (len(SAID) + 1)
    assert voted.reason["usage"]["thinking_tokens"] == 3 * thought


def test_fields_reach_the_strategy(ask, models):
    ask(temperature=0.25, top_p=0.5, max_completion_tokens=99)
    sampling = models["plain"].last_request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.25, 0.5, 99)


def test_an_alias_brings_its_parameters_and_gives_way_to_the_request(ask, models):
    made = ask(model="careful", reason={"parameters": {"n": 2}})
    request = models["plain"].last_request
    assert (made.model, made.reason["strategy"]) == ("careful", "self-consistency")
    assert (request.sampling.n, request.sampling.temperature) == (2, 0.5)


def test_a_model_alone_has_the_strategy_that_the_request_names(ask):
    made = ask(model="torn", reason={"strategy": "self-consistency"})
    assert (made.reason["strategy"], made.reason["model"]) == ("self-consistency", "torn")
    assert ask(model="torn").reason["strategy"] == "cot"


def test_a_conversation_stays_one(ask, models):
    chat = [
        user("What is 6 * 7?"),
        {"role": "assistant", "content": SAID, "reasoning_content": "secret"},
        {"role": "developer", "content": "Be brief."},
        user([text_part("And"), text_part("7 * 7?")]),
    ]
    ask(chat)
    (request,) = models["plain"].generate_calls[-1]
    turns = [(m.role, m.content) for m in request.prompt.messages]
    assert turns[:3] == [("system", "Be brief."), ("user", "What is 6 * 7?"), ("assistant", SAID)]
    assert turns[3][0] == "user"
    assert turns[3][1].startswith("And\n7 * 7?")
    assert "secret" not in json.dumps([content for _, content in turns])


def test_content_ends_before_a_stop_string(ask):
    assert ending(ask(stop=["never", " is"])) == ("The answer", "stop")


def test_a_spent_budget_ends_with_length(ask):
    made = ask(reason={"budget": {"tokens": 10}})
    assert (made.choices[0].finish_reason, made.reason["stopped"]) == ("length", "budget")
    assert made.usage.completion_tokens in (9, 10)  # a part of the budget is for the request of the answer


def test_a_strategy_without_a_length_has_it_as_its_budget(ask):
    made = ask(model="reason/beam:plain", max_tokens=40, reason={"parameters": {"score": "arithmetic"}})
    assert 0 < made.usage.completion_tokens <= 40


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("logprobs", {"logprobs": True}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("audio", {"audio": {"voice": "ash", "format": "wav"}}),
        ("modalities", {"modalities": ["text", "audio"]}),
        ("logit_bias", {"logit_bias": {"5": -100}}),
        ("prediction", {"prediction": {"type": "content", "content": "x"}}),
        ("functions", {"functions": [{"name": "f", "parameters": {}}]}),
        ("frequency_penalty", {"frequency_penalty": 0.5}),
        ("presence_penalty", {"presence_penalty": True}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}),
        ("temperature", {"temperature": 0.5, "model": "reason/adaptive"}),
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": 0.5, "reason": {"parameters": {"temperature": 0.7}}}),
        ("n", {"n": 2}),
        ("n", {"n": 2, "stream": True}),
        ("user", {"user": "u" * 513}),
        ("safety_identifier", {"safety_identifier": "u" * 65}),
        ("metadata", {"metadata": {str(i): "v" for i in range(17)}}),
        ("metadata.k", {"metadata": {"k": "v" * 513}}),
        ("top_k", {"extra_body": {"top_k": 5}}),
        ("reason.budgets", {"reason": {"budgets": {}}}),
        ("reason.parameters.m", {"reason": {"parameters": {"m": 3}}}),
        ("reason.parameters.max_tokens", {"reason": {"parameters": {"max_tokens": 0}}}),
        ("reason.verify", {"reason": {"verify": ["everything"]}}),
        ("reason.strategy", {"model": "plain", "reason": {"strategy": "none"}}),
        ("reason.strategy", {"reason": {"strategy": "coat"}}),
        ("messages", {"messages": [{"role": "system", "content": "hi"}]}),
        ("messages", {"messages": [user("hi"), assistant("ho")]}),
        ("messages.0.content.0", {"messages": [user([{"type": "image_url", "image_url": {}}])]}),
        ("messages.0.role", {"messages": [{"role": "judge", "content": "hi"}]}),
        ("messages.1.tool_call_id", {"messages": [user("hi"), {"role": "tool", "content": ""}]}),
        ("tools.0.type", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}),
        ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "g"}}}),
    ],
)
def test_what_would_not_be_done_is_refused_by_name(ask, models, param, fields):
    before = len(models["plain"].generate_calls)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(**fields)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert len(models["plain"].generate_calls) == before


def test_what_asks_for_nothing_is_taken(ask):
    made = ask(logprobs=False, logit_bias={}, frequency_penalty=0, presence_penalty=0.0, n=1, modalities=["text"])
    assert made.choices[0].message.content == SAID


@pytest.mark.parametrize("name", ["reason/coats", "gpt-4", "reason/cot:gpt-4", "reason/", "reason", "/etc/passwd"])
def test_a_model_that_is_not_offered_is_not_found(ask, name):
    with pytest.raises(openai.NotFoundError) as missing:
        ask(model=name)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


def test_the_nearest_names_are_told(ask):
    with pytest.raises(openai.NotFoundError, match="'reason/coat'"):
        ask(model="reason/coats")
    with pytest.raises(openai.NotFoundError, match="'reason/cot:torn'"):
        ask(model="reason/cot:thorn")


def test_models(client):
    listed = {model.id: model for model in client.models.list()}
    assert listed["careful"].strategy == "self-consistency"
    assert listed["reason/cot"].stability == "stable"
    assert listed["reason/coat:torn"].summary
    assert listed["torn"].model == "torn"
    assert "reason/cot:plain" not in listed  # listed as reason/cot
    assert client.models.retrieve("reason/cot:torn").model == "torn"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("reason/cot:none")


@pytest.mark.parametrize(
    ("reason", "param"),
    [
        ({"parameters": {"router": "/etc/passwd"}}, "reason.parameters.router"),
        ({"parameters": {"navigator": "../files/mine.json"}}, "reason.parameters.navigator"),
        ({"verify_parameters": {"davinci": {"calibration": "/x"}}}, "reason.verify_parameters.davinci.calibration"),
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_nobody_has_the_server_open_a_file(client, path, reason, param):
    asked = {"messages": [user("?")]} if path.startswith("chat") else {"input": "?"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post(f"/{path}", body={"model": "reason/cot", "reason": reason, **asked}, cast_to=object)
    assert refused.value.param == param
    assert "only its operator may choose" in str(refused.value)
