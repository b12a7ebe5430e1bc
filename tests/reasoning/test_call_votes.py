"""Votes over tool calls: which turns are equal under the tools' schemas, and which of them is chosen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.messages import Tool, ToolCall, canonical_calls
from reason.core.types import Candidate, Question, Solution
from reason.reasoning.answers.calls import normalized_calls, settle_calls, with_quorum

SCHEMA = {
    "type": "object",
    "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}, "km": {"default": 5}}}},
    "properties": {
        "n": {"type": "number"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "id": {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}], "default": None},
        "tags": {"type": "array", "items": {"type": "number"}, "uniqueItems": True},
        "path": {"type": "array", "items": {"type": "number"}},
        "place": {"$ref": "#/$defs/place"},
        "unit": {"type": "string", "default": "km"},
    },
}
FIND = Tool(name="find", parameters=SCHEMA, effect="read")
ERASE = Tool(name="erase", parameters={"type": "object", "properties": {"x": {"type": "integer"}}}, effect="write")
QUESTION = Question(text="Do it.", tools=(FIND, ERASE))


def form(arguments: object, name: str = "find") -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return normalized_calls([ToolCall(name=name, arguments=text)], (FIND, ERASE))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"n": 1}, '{"n": 1.0}'),
        ({"n": 100}, '{"n": 1e2}'),
        ({}, {"unit": "km"}),
        ({}, {"id": None}),
        ({"n": 1, "day": "2026-01-02"}, {"day": "20260102", "n": 1}),
        ({"at": "2026-01-02T10:00:00+01:00"}, {"at": "2026-01-02T09:00:00Z"}),
        ({"id": "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"}, {"id": "6ba7b8109dad11d180b400c04fd430c8"}),
        ({"tags": [2, 1.0]}, {"tags": [1, 2]}),
        ({"place": {"city": "Rome"}}, {"place": {"km": 5.0, "city": "Rome"}}),
    ],
)
def test_calls_that_mean_the_same_are_equal(a, b):
    assert form(a) == form(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": True}),
        ({"unit": "km"}, {"unit": "Km"}),
        ({"path": [2, 1]}, {"path": [1, 2]}),
        ({"day": "2026-01-02"}, {"day": "2026-01-03"}),
        ({"at": "2026-01-02T10:00:00"}, {"at": "2026-01-02T10:00:00Z"}),
        ({"place": {"city": "Rome"}}, {"place": {"city": "Rome", "km": 6}}),
        ({}, "not json"),
        ("[1]", "[1.0]"),  # no object: compared as text
    ],
)
def test_calls_that_differ_in_a_value_are_not(a, b):
    assert form(a) != form(b)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


def reordered(value):
    if isinstance(value, dict):
        return {k: reordered(value[k]) for k in reversed(value)}
    if isinstance(value, list):
        return [reordered(v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), json_values, max_size=4))
def test_equality_ignores_defaults_order_of_keys_and_form_of_numbers_and_nothing_else(arguments):
    filled = {"unit": "km", "id": None, **arguments}
    assert form(arguments) == form(reordered(arguments)) == form(filled)
    assert form(form_again(arguments)) == form(arguments)
    changed = {**arguments, "unit": f"{arguments.get('unit', 'km')}?"}
    assert form(changed) != form(arguments)


def form_again(arguments):
    """The normal form's own arguments: it is a fixed point."""
    [call] = json.loads(form(arguments))
    return call["arguments"]


def test_an_endless_schema_ends():
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
    endless = Tool(name="f", parameters=loop)
    assert (
        normalized_calls([ToolCall(name="f", arguments='{"x": 1.0}')], [endless])
        == '[{"arguments":{"x":1},"name":"f"}]'
    )


def test_a_schema_that_grows_without_end_leaves_the_call_as_it_is():
    grows = {"properties": {"a": {"$ref": "#", "default": {}}, "b": {"$ref": "#", "default": {}}}}
    calls = [ToolCall(name="f", arguments='{"x": 1.0}')]
    assert normalized_calls(calls, [Tool(name="f", parameters=grows)]) == canonical_calls(calls)


def test_the_order_of_calls_matters_only_between_changes():
    look, other = ToolCall(name="find", arguments='{"n": 1}'), ToolCall(name="find", arguments='{"n": 2}')
    first, second = ToolCall(name="erase", arguments='{"x": 1}'), ToolCall(name="erase", arguments='{"x": 2}')
    tools = (FIND, ERASE)
    assert normalized_calls([look, other, first], tools) == normalized_calls([first, other, look], tools)
    assert normalized_calls([first, second], tools) != normalized_calls([second, first], tools)


def vote(*turns: str, question: Question = QUESTION, settle=settle_calls) -> Solution:
    """The vote over turns, of which `find 1` calls a tool, and others are answers."""
    candidates = []
    for turn in turns:
        name, _, value = turn.partition(" ")
        calls = (ToolCall(name=name, arguments=json.dumps({"x": int(value)})),) if value else ()
        answer = normalized_calls(calls, question.tools) if calls else turn
        candidates.append(Candidate(text=turn, answer=answer, tool_calls=calls))
    answers = [candidate.answer for candidate in candidates]
    classes = [[i for i, a in enumerate(answers) if a == answer] for answer in dict.fromkeys(answers)]
    shares = [len(own) / len(turns) for own in classes]
    best = classes[shares.index(max(shares))][0]
    solution = Solution(chosen=best, candidates=tuple(candidates), confidence=max(shares))
    return (
        settle(solution, classes, shares, question) if settle is settle_calls else settle(solution, classes, question)
    )


@pytest.mark.parametrize(
    ("turns", "chosen"),
    [
        # six different searches against two equal deletions
        (("find 1", "erase 7", "find 2", "find 3", "erase 7", "find 4", "find 5", "find 6"), "find 1"),
        (("find 1", "find 2", "find 2", "find 3"), "find 2"),
        # tools before arguments
        (("other 1", "other 1", "find 2", "find 3", "find 4"), "find 2"),
        # answers are together one alternative to the largest class of calls
        (("yes", "no", "perhaps", "find 1", "find 1"), "yes"),
        (("yes", "find 1", "find 2", "find 3", "find 3"), "find 3"),
        (("yes", "find 1"), "yes"),
        (("find 1", "yes"), "find 1"),
        # a change needs more than half of all
        (("erase 7", "erase 7", "erase 7", "find 1", "yes"), "erase 7"),
        (("erase 7", "erase 7", "erase 8", "find 1", "yes"), "find 1"),
        (("erase 7", "erase 7", "yes", "no"), "yes"),
    ],
)
def test_the_choice(turns, chosen):
    solution = vote(*turns)
    assert (solution.best.text, solution.stopped) == (chosen, "done")
    assert solution.confidence == turns.count(chosen) / len(turns)


def test_without_a_quorum_the_user_is_asked():
    solution = vote("erase 7", "erase 8", "erase 7", "erase 9")
    assert (solution.stopped, solution.confidence, solution.chosen) == ("abstained", None, 4)
    assert (solution.best.tool_calls, solution.best.text) == (
        (),
        "The attempts do not agree on what to change, so nothing was changed:\n"
        "- 2 of 4: erase(x=7)\n- 1 of 4: erase(x=8)\n- 1 of 4: erase(x=9)\nWhat should be done?",
    )
    assert vote("erase 7", "erase 8", "erase 7", "find 9", settle=with_quorum).stopped == "abstained"
    assert vote("erase 7", "erase 8", "erase 7", "erase 7", settle=with_quorum).best.text == "erase 7"


def test_a_client_that_executes_its_tools_decides_about_changes_itself():
    theirs = QUESTION.model_copy(update={"tools": (ERASE.model_copy(update={"effect": None}),)})
    assert vote("erase 7", "erase 8", "erase 7", "erase 9", question=theirs).best.text == "erase 7"


@given(st.lists(st.sampled_from(["erase 1", "erase 2", "find 1", "find 2", "yes"]), min_size=1, max_size=9))
def test_no_change_is_chosen_that_half_of_the_samples_did_not_want(turns):
    for settle in (settle_calls, with_quorum):
        best = vote(*turns, settle=settle).best
        if any(call.name == "erase" for call in best.tool_calls):
            assert turns.count(best.text) > len(turns) / 2
