"""The Responses API through OpenAI's client."""

import openai
import pytest
from reason.sidecar.openai.outcome import EndedRun, Outcome
from reason.sidecar.openai.responses import ResponseEvents
from reason.sidecar.openai.streaming import Piece
from support.answers import plain_answer
from support.chats import assistant, user

SAID, THOUGHTS = "The answer is 42.", "Six sevens."


def test_a_response(respond, client, server):
    made = respond(model="reason/cot:thinking", metadata={"a": "b"}, max_output_tokens=200)
    assert (made.status, made.output_text, made.object) == ("completed", SAID, "response")
    thoughts, message = made.output
    assert (thoughts.type, thoughts.summary[0].text) == ("reasoning", THOUGHTS)
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (made.metadata, made.max_output_tokens) == ({"a": "b"}, 200)
    usage = made.usage
    assert usage.output_tokens == len(THOUGHTS) + 2 + len(SAID) + 1  # with tags and the end of text
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == len(THOUGHTS) + 2
    kept = client.responses.retrieve(made.id)
    assert (kept.output, kept.usage, kept.status, kept.metadata) == (made.output, usage, "completed", {"a": "b"})
    record = server.call(server.run_manager.store.get_run(made.id.removeprefix("resp_")))
    assert kept.completed_at == int(record.updated)  # the end of the run, not the time of the request


def test_a_limit_makes_it_incomplete(respond):
    made = respond(model="reason/cot:lengthy", extra_body={"reason": {"thinking_tokens": 30}})
    assert (made.status, made.incomplete_details.reason, made.output_text) == ("incomplete", "max_output_tokens", "")


def test_a_conversation_goes_on(respond, models):
    first = respond(instructions="Be kind.")
    respond("And 7 * 7?", previous_response_id=first.id, instructions="Be brief.")
    turns = [(m.role, m.content) for m in models["plain"].last_request.prompt.messages]
    assert turns[:3] == [("system", "Be brief."), ("user", "What is 6 * 7?"), ("assistant", SAID)]
    assert turns[3][1].startswith("And 7 * 7?")


def test_items(respond, models):
    respond(
        [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            assistant([{"type": "output_text", "text": "1"}]),
            user("Two?"),
        ]
    )
    turns = [(m.role, m.content) for m in models["plain"].last_request.prompt.messages]
    assert turns[:3] == [("system", "Be brief."), ("user", "One?"), ("assistant", "1")]
    assert turns[3][1].startswith("Two?")


def test_events(client):
    with client.responses.stream(model="reason/cot:thinking", input="What is 6 * 7?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(e.type for e in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.completed",
    ]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == SAID
    assert (final.output_text, final.output[0].summary[0].text) == (SAID, THOUGHTS)
    kept = client.responses.retrieve(final.id)
    assert [item.id for item in kept.output] == [item.id for item in final.output]
    assert kept.output_text == SAID


def test_thoughts_that_follow_the_text_are_an_item_behind_it():
    events = ResponseEvents("r", {})
    told = [events.piece(Piece(kind, text)) for kind, text in (("content", "4"), ("reasoning", "hm"), ("content", "2"))]
    assert [[e["type"] for e in some][-1:] for some in told] == [
        ["response.output_text.delta"],
        [],
        ["response.output_text.delta"],
    ]
    end = events.end(EndedRun("r", Outcome(plain_answer("42"), "42", (), "stop", 0)))[-1]
    message, thoughts = end["response"]["output"]
    assert (message["content"][0]["text"], thoughts["summary"][0]["text"]) == ("42", "hm")


def test_what_fails(respond, client):
    with pytest.raises(openai.InternalServerError):
        respond(model="reason/cot:gone", stream=True)
    *events, last = respond(model="reason/cot:breaking", stream=True)
    assert (last.type, last.code) == ("error", "backend_unavailable")
    assert last.message.startswith("the model backend is not available (run ")
    assert last.sequence_number == len(events)


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("background", {"background": True, "stream": True}),
        ("truncation", {"truncation": "auto"}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("include", {"include": ["message.output_text.logprobs"]}),
        ("tool_choice", {"extra_body": {"tool_choice": {"type": "function"}}}),
        ("prompt", {"prompt": {"id": "p"}}),
        ("response_format", {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}),
        ("tools.0.type", {"tools": [{"type": "web_search"}]}),
        ("tools.0.parameters", {"tools": [{"type": "function", "name": "f", "parameters": []}]}),
        ("tools.0.server_label", {"tools": [{"type": "mcp"}]}),
        ("input.0.type", {"given": [{"type": "computer_call"}]}),
        ("input.0.content.0", {"given": [user([{"type": "input_image"}])]}),
        ("input", {"given": [assistant("hi")]}),
        ("inputs", {"extra_body": {"inputs": "hi"}}),
    ],
)
def test_what_would_not_be_done_is_refused_by_name(respond, param, fields):
    with pytest.raises(openai.BadRequestError) as refused:
        respond(**fields)
    assert refused.value.param == param


def test_a_response_that_is_not_there(client, respond):
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none")
    with pytest.raises(openai.NotFoundError) as missing:
        respond(previous_response_id="resp_none")
    assert missing.value.param == "previous_response_id"
