"""Calls of tools in what a model writes: every form, strictly, and the same however the reply comes in pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.core.messages import Completion, Prompt, Request, SamplingParams, Tool, canonical_calls
from reason.serving.tool_calls import ToolCallParser, call_schema, parse_tool_calls, with_tool_calls

NAMES = ("add", "look_up")
CALL = '{"name": "add", "arguments": {"a": 1}}'
OTHER = '{"name": "look_up", "arguments": {}}'
ADD = '[{"arguments":{"a":1},"name":"add"}]'
BOTH = '[{"arguments":{"a":1},"name":"add"},{"arguments":{},"name":"look_up"}]'


@pytest.mark.parametrize(
    ("written", "text", "calls"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", "", ADD),
        (f"<tool_call>{CALL}</tool_call>", "", ADD),
        (f"Let me see.\n\n<tool_call>\n{CALL}\n</tool_call>\n", "Let me see.", ADD),
        (f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>", "", BOTH),
        (f"<tool_call>[{CALL}, {OTHER}]</tool_call>", "", BOTH),
        (f"a <tool_call>{CALL}</tool_call> b", "a b", ADD),
        (f"[{CALL},\n {OTHER}]", "", BOTH),
        (f"  {CALL}\n", "", ADD),
        (f"[note] now:\n<tool_call>{CALL}</tool_call>", "[note] now:", ADD),
        (
            '<tool_call>{"name": "add", "arguments": {"a": "\\ud83d\\ude00"}}</tool_call>',
            "",
            '[{"arguments":{"a":"\N{GRINNING FACE}"},"name":"add"}]',
        ),
    ],
)
def test_calls_are_read_in_the_forms_of_the_families(written, text, calls):
    rest, found = parse_tool_calls(written, NAMES)
    assert canonical_calls(found) == calls
    assert rest == text


@pytest.mark.parametrize(
    "written",
    [
        "Four.",
        "",
        " \n",
        f"<tool_call>\n{CALL}",
        f"<tool_call>\n{CALL}, \n</tool_call>",
        '<tool_call>{"name": "subtract", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "a=1"}</tool_call>',
        '<tool_call>{"name": "add"}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {}, "why": "so"}</tool_call>',
        '<tool_call>{"name": ["add"], "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": "\\ud800"}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"\\uD83D": 1}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": %s}}</tool_call>' % ("1" * 5000),
        "<tool_call>[]</tool_call>",
        f"{CALL} is a call",
        f"[{CALL}, 1]",
        '{"answer": 4}',
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
    ],
)
def test_text_without_calls_is_unchanged(written):
    assert parse_tool_calls(written, NAMES) == (written, ())


PARTS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", CALL, OTHER, f"<tool_call>{CALL}</tool_call>"),
        *("[", "]", ",", " ", "\n", "<", "<tool", "ok", "{", "}"),
    ]
)


@given(st.lists(PARTS, max_size=9).map("".join), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.booleans())
@settings(max_examples=150)
def test_chunk_boundaries_do_not_matter(written, sizes, whole):
    reader, told, at = ToolCallParser(NAMES, whole_response=whole), "", 0
    while at < len(written):
        size = sizes[at % len(sizes)]
        told += reader.push(written[at : at + size])
        at += size
    told += reader.finish()
    assert (told, tuple(reader.calls)) == parse_tool_calls(written, NAMES, whole_response=whole)
    if not reader.calls:
        assert told == written


def test_text_is_emitted_as_soon_as_it_cannot_be_a_call():
    reader = ToolCallParser(NAMES)
    shown = [reader.push(piece) for piece in ("Let me", " see <", "b> it. ", "<tool_", "x")]
    assert shown == ["Let me", " see", " <b> it.", "", " <tool_x"]


def test_call_ids_are_stable_and_differ_between_turns():
    tools = (Tool(name="add"),)
    request = Request(prompt=Prompt.user("2 + 2?").model_copy(update={"tools": tools}), sampling=SamplingParams(seed=1))
    twice = Completion(text=f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", finish_reason="stop")
    later = request.model_copy(update={"prompt": request.prompt.with_prefix("x")})
    second = twice.model_copy(update={"sample_index": 1})
    cases = [(twice, request), (twice, later), (second, request)]
    ids = [call.id for case in cases for call in with_tool_calls(*case).tool_calls]
    assert len(set(ids)) == 6
    assert all(i.startswith("call_") for i in ids)
    assert with_tool_calls(twice, request) == with_tool_calls(twice, request)


def test_call_schema_hoists_tool_definitions_to_its_root():
    parameters = {"type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}, "$defs": {"P": {"type": "integer"}}}
    schema = call_schema([Tool(name="add", parameters=parameters), Tool(name="look_up")])
    assert schema["$defs"] == {"P": {"type": "integer"}}
    assert [one["properties"]["name"]["enum"] for one in schema["anyOf"]] == [["add"], ["look_up"]]
    assert schema["anyOf"][0]["properties"]["arguments"] == {k: parameters[k] for k in ("type", "properties")}
    clashing = parameters | {"$defs": {"P": {"type": "string"}}}
    with pytest.raises(UserError, match="define 'P' differently"):
        call_schema([Tool(name="add", parameters=parameters), Tool(name="look_up", parameters=clashing)])
