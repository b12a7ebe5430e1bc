"""Streamed chat completions: thoughts, final content, errors and disconnects."""

import itertools
import json

import httpx
import openai
import pytest
from reason.reasoning.strategy import STRATEGIES
from support.chats import user
from support.waiting import wait_blocking

SAID, THOUGHTS = "The answer is 42.", "Six sevens."


def gathered(stream):
    """The chunks of a stream, and the joined thoughts and content of each choice."""
    chunks, content, thoughts, ends = list(stream), {}, {}, {}
    for choice in itertools.chain.from_iterable(chunk.choices for chunk in chunks):
        content[choice.index] = content.get(choice.index, "") + (choice.delta.content or "")
        thoughts[choice.index] = thoughts.get(choice.index, "") + (getattr(choice.delta, "reasoning", None) or "")
        if choice.finish_reason is not None:
            ends[choice.index] = choice.finish_reason
    return chunks, content, thoughts, ends


def lines(server, **body):
    """The raw lines of a stream."""
    asked = {"model": "reason/cot", "messages": [user("What?")], "stream": True, **body}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, timeout=30) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-accel-buffering"] == "no"
        yield from reply.iter_lines()


def test_chunks(ask):
    chunks, content, thoughts, ends = gathered(
        ask(model="reason/cot:thinking", stream=True, stream_options={"include_usage": True})
    )
    assert (content, ends) == ({0: SAID}, {0: "stop"})
    assert thoughts[0].strip() == THOUGHTS
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:-1])
    assert all(c.usage is None and "usage" in c.model_fields_set for c in chunks[:-1])
    end, last = chunks[-2:]
    assert (end.choices[0].finish_reason, end.choices[0].delta.content) == ("stop", None)
    assert end.reason["answer"] == "42"
    assert last.choices == []
    whole = ask(model="reason/cot:thinking").usage
    assert last.usage == whole


def test_no_usage_where_none_is_asked_for(ask):
    assert all("usage" not in chunk.model_fields_set for chunk in ask(stream=True))


def test_one_chain_is_content_as_it_is_written(ask):
    pieces = [c.choices[0].delta.content for c in ask(stream=True) if c.choices[0].delta.content]
    assert len(pieces) > 10
    assert "".join(pieces) == SAID


def test_what_is_chosen_at_the_end_is_thought_before(ask):
    fields = {"model": "reason/self-consistency:thinking", "reason": {"parameters": {"n": 3}}}
    chunks, content, thoughts, _ = gathered(ask(**fields, stream=True))
    assert content == {0: SAID}
    assert [f"[{i}] {THOUGHTS}\n\n{SAID}" in thoughts[0] for i in (1, 2, 3)] == [True] * 3
    assert thoughts[0].count(SAID) == 3  # each sample once, not interleaved
    kinds = [("content" if c.choices[0].delta.content else "") for c in chunks]
    assert "content" not in kinds[: kinds.index("content")]
    whole = ask(**fields).choices[0].message.reasoning
    assert sorted(whole.split("\n")) == sorted(thoughts[0].strip().split("\n"))


def test_a_search_tells_its_steps(ask):
    fields = {"reason": {"parameters": {"score": "arithmetic", "k": 2, "width": 2}}}
    _, content, thoughts, _ = gathered(ask(model="reason/beam", stream=True, extra_body=fields))
    assert content[0].endswith(SAID)
    assert "beam: " in thoughts[0]


@pytest.mark.parametrize("strategy", ["self-consistency", "best-of-n"])
def test_a_single_chain_of_any_sampling_strategy_is_never_taken_back(ask, strategy):
    parameters = {"n": 1}
    if "score" in STRATEGIES.load(strategy).Config.model_fields:
        parameters["score"] = "logprob"
    fields = {"model": f"reason/{strategy}:thinking", "reason": {"parameters": parameters}}
    _, content, _, ends = gathered(ask(**fields, stream=True))
    assert (content, ends) == ({0: SAID}, {0: "stop"})


def test_a_stop_string_is_not_passed(ask):
    _, content, _, ends = gathered(ask(stop=" is", stream=True))
    assert (content, ends) == ({0: "The answer"}, {0: "stop"})


def test_thoughts_that_the_chat_template_opens_are_no_content(ask):
    chunks, content, thoughts, _ = gathered(ask(model="reason/cot:opened", stream=True))
    assert (content, thoughts[0].strip()) == ({0: SAID}, THOUGHTS)
    assert chunks[-1].reason["degraded"] == []
    assert ask(model="reason/cot:opened").choices[0].message.content == SAID


def test_the_wire(server):
    # on a busy machine there may be keep-alive comments
    found = [line for line in lines(server, stream_options={"include_usage": True}) if line != ": ping"]
    assert found[-2:] == ["data: [DONE]", ""]
    assert all(line == "" or line.startswith("data: ") for line in found)
    assert json.loads(found[-4].removeprefix("data: "))["choices"] == []


def test_a_silence_is_kept_alive(server, models):
    models["silent"].left = 0
    stream = lines(server, model="reason/cot:silent")
    assert next(stream) == ": ping"
    stream.close()
    wait_blocking(lambda: models["silent"].running == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_what_fails_before_the_first_word_is_an_error_status(ask, stream):
    with pytest.raises(openai.InternalServerError) as failed:
        ask(model="reason/cot:gone", stream=stream)
    assert (failed.value.status_code, failed.value.code) == (503, "backend_unavailable")


def test_what_fails_later_ends_without_an_end(server, ask):
    with pytest.raises(openai.APIError, match="the model backend is not available"):
        list(ask(model="reason/cot:breaking", stream=True))
    found = [line for line in lines(server, model="reason/cot:breaking") if line.startswith("data: ")]
    told = json.loads(found[-1].removeprefix("data: "))
    assert told["error"]["code"] == "backend_unavailable"
    assert all(json.loads(line[6:])["choices"][0]["finish_reason"] is None for line in found[:-1])
