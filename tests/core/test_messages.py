"""Tools, calls, turns and salts as values: what they refuse, what they dump, and what no key knows of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.messages import (
    Message,
    Prompt,
    Request,
    SamplingParams,
    Tool,
    ToolCall,
    canonical_calls,
    is_canonical_calls,
)
from reason.core.run import RunConfig
from reason.core.store.records import call_key
from reason.core.types import Question
from reason.serving.metered.model import sampled_json
from reason.serving.worker_group import WorkerGroupConfig

ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
KNOWN_KEY = "4da458ba3de1a929bc433ffaa09f62ab5eb601cd533c6b7be228c0eb17a099d7"
"""Key of a sample of a prompt without tools and salts."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def asked(prompt: Prompt) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(temperature=0.5, max_tokens=40, n=3, seed=7, stop=("\n",)))


def key(prompt: Prompt) -> str:
    return call_key("model@1", sampled_json(asked(prompt)), 7, 2)


def test_call_keys_of_requests_without_tools_are_stable():
    prompt = Prompt.user("What is 2 + 2?", system="Be brief.", prefix="So")
    assert key(prompt) == KNOWN_KEY
    assert prompt.model_dump(mode="json") == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}],
        "text": None,
        "prefix": "So",
    }


def test_the_cache_salt_is_in_no_dump_but_tools_are():
    prompt = Prompt.user("What is 2 + 2?", system="Be brief.", prefix="So")
    salted = prompt.with_cache_salt("tenant")
    assert (salted.cache_salt, key(salted)) == ("tenant", KNOWN_KEY)
    assert "tenant" not in asked(salted).model_dump_json() + WorkerGroupConfig(prompt=salted).model_dump_json()
    assert prompt.with_cache_salt("") is prompt
    shown = prompt.model_copy(update={"tools": (ADD,)})
    forced = shown.model_copy(update={"tool_choice": "required"})
    assert len({key(p) for p in (prompt, shown, forced)}) == 3
    assert Prompt.model_validate_json(forced.model_dump_json()) == forced


def test_conversations_with_tool_calls_survive_json():
    turns = (
        Message(role="user", content="2 + 2?"),
        Message(role="assistant", tool_calls=(ToolCall(name="add", arguments='{"a": 2}', id="c1"),)),
        Message(role="tool", content="4", tool_call_id="c1", name="add"),
    )
    question = Question(text="And doubled?", conversation=turns, tools=(ADD,), tool_choice="add")
    assert Question.model_validate_json(question.model_dump_json()) == question
    assert (question.offered_tools, question.needs_tools) == ((ADD,), True)
    quiet = Question(text="And doubled?", conversation=turns, tools=(ADD,), tool_choice="none")
    assert (quiet.offered_tools, quiet.needs_tools) == ((), False)


def test_empty_fields_of_a_question_are_not_dumped():
    old = {
        "question": {"text": "Why?", "choices": [], "documents": [], "kind": "auto", "metadata": {}},
        "strategy": "cot",
        "parameters": {},
        "models": {"main": "scripted"},
        "seed": 3,
    }
    config = RunConfig.model_validate(old)
    assert (config.tenant, config.question.conversation, config.question.tools) == ("", (), ())
    dumped = config.model_dump(mode="json")
    assert dumped["question"] == old["question"]
    assert "tenant" not in dumped
    assert RunConfig.model_validate({**old, "tenant": "a"}).model_dump(mode="json")["tenant"] == "a"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Message(role="user", content="x", tool_calls=(ToolCall(name="add"),)), "cannot have tool calls"),
        (lambda: Message(role="user", content="x", tool_call_id="c1"), "cannot have a tool_call_id"),
        (lambda: Prompt(text="x", tools=(ADD,)), "raw text cannot have tools"),
        (
            lambda: Prompt(messages=(Message(role="user", content="x"),), tools=(ADD,), tool_choice="none"),
            "must have no tools",
        ),
        (lambda: Question(text="x", tools=(ADD, ADD)), "two tools are called 'add'"),
        (lambda: Question(text="x", tools=(Tool(name="auto"),)), "no tool may be called 'auto'"),
        (lambda: Question(text="x", tool_choice="required"), "there are no tools"),
        (lambda: Question(text="x", tools=(ADD,), tool_choice="subtract"), "no such tool: add"),
        (
            lambda: Question(text="x", continuation=(Message(role="user", content="y"),)),
            "begin with a message of the assistant",
        ),
        (lambda: Tool(name="add up"), "pattern"),
    ],
)
def test_inconsistent_messages_prompts_and_questions_are_refused(make, told):
    with pytest.raises(ValidationError, match=told):
        make()


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.text(min_size=1, max_size=5), st.randoms())
def test_equal_calls_have_one_canonical_text(arguments, name, random):
    shuffled = list(arguments.items())
    random.shuffle(shuffled)
    one = ToolCall(name=name, arguments=json.dumps(arguments), id="a")
    two = ToolCall(name=name, arguments=json.dumps(dict(shuffled), indent=3), id="b")
    assert canonical_calls([one]) == canonical_calls([two])
    assert is_canonical_calls(canonical_calls([one, two]))
    assert json.loads(canonical_calls([one])) == [{"name": name, "arguments": arguments}]
    assert canonical_calls([one]) != canonical_calls([ToolCall(name=name + "x", arguments=one.arguments)])


@pytest.mark.parametrize("text", ["", "4", "[]", '{"a": 1}', '[{"name":"f","arguments":{}}]', '[{"arguments":NaN}]'])
def test_other_texts_are_not_canonical_calls(text):
    assert not is_canonical_calls(text)


@pytest.mark.parametrize(
    "arguments",
    ["", "[1]", "{", '{"a": NaN}', "[" * 100_000, '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": ["\\uDFFFx"]}'],
)
def test_arguments_that_are_no_json_object_stay_text(arguments):
    call = ToolCall(name="f", arguments=arguments)
    assert call.parsed_arguments is None
    assert json.loads(canonical_calls([call])) == [{"name": "f", "arguments": arguments}]
    assert is_canonical_calls(canonical_calls([call]))
    assert ToolCall.model_validate_json(call.model_dump_json()) == call
    canonical_calls([call]).encode()
