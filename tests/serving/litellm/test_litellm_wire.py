"""The pieces between LiteLLM and the socket: events, parameters, replies that refuse."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import InvalidResponse
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.providers import find_target
from reason.serving.litellm.requests import MAX_CACHED_MAPPINGS, ParameterMap
from reason.serving.litellm.transport import ServerSentEvents

VALUES = st.lists(st.dictionaries(st.text(max_size=3), st.one_of(st.text(), st.integers(), st.none())), max_size=6)


@given(VALUES, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(1, 40)))
def test_events_do_not_depend_on_chunk_boundaries(values, end, cuts):
    text = f": a comment{end}{end}"
    for value in values:
        text += f"event: x{end}data: {json.dumps(value, ensure_ascii=False)}{end}{end}"
    whole = f"{text}data: [DONE]{end}{end}".encode()
    reader, found, rest = ServerSentEvents(), [], whole
    for cut in cuts:
        found += reader.feed(rest[:cut]) if rest[:cut] else []
        rest = rest[cut:]
    found += reader.feed(rest) if rest else []
    assert found + reader.end() == values
    assert reader.done


def test_an_event_of_several_lines_and_one_without_an_end():
    reader = ServerSentEvents()
    assert reader.feed(b'data: {"a":\ndata: 1}\n\ndata:{"b": 2}') == [{"a": 1}]
    assert not reader.done
    assert reader.end() == [{"b": 2}]
    assert reader.end() == []


def test_data_after_done_is_ignored():
    reader = ServerSentEvents()
    assert reader.feed(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"b": 2}\n\n') == [{"a": 1}]


def test_non_object_is_a_bad_response():
    with pytest.raises(InvalidResponse):
        ServerSentEvents().feed(b"data: [1]\n\n")
    with pytest.raises(ValueError, match="key must be a string"):
        ServerSentEvents().feed(b"data: {broken\n\n")


def parameters(name: str) -> ParameterMap:
    own = Settings(providers={name.partition("/")[0]: ProviderSettings(api_base="http://127.0.0.1:9/v1")})
    return ParameterMap(find_target(name, own))


def test_parameters_are_mapped_by_litellm_once_per_set(monkeypatch):
    mapped = parameters("openai/gpt-5-mini")
    asked: list[dict] = []
    real = mapped._litellm.get_optional_params
    monkeypatch.setattr(
        mapped,
        "_litellm",
        type("L", (), {"get_optional_params": staticmethod(lambda **named: asked.append(named) or real(**named))}),
    )
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 7, "stream": True, "seed": 1}
    first = mapped.chat(body)
    assert first["max_completion_tokens"] == 7
    assert "max_tokens" not in first
    assert mapped.chat({**body, "seed": 2, "messages": [{"role": "user", "content": "!"}]}) == {
        **first,
        "seed": 2,
        "messages": [{"role": "user", "content": "!"}],
    }
    assert len(asked) == 1
    mapped.chat({**body, "max_tokens": 8})
    assert len(asked) == 2
    for n in range(2 * MAX_CACHED_MAPPINGS):
        mapped.chat({**body, "max_tokens": 9 + n})
    assert len(mapped._sets) <= MAX_CACHED_MAPPINGS


def test_unsupported_parameters_are_rejected():
    mapped = parameters("openai/o3-mini")
    import litellm

    with pytest.raises(litellm.UnsupportedParamsError):
        mapped.chat({"messages": [{"role": "user", "content": "?"}], "top_p": 0.5})


async def test_connections_are_reused(opened):
    async with opened(pause_s=0.0) as (server, model):
        sampling = SamplingParams(max_tokens=20, seed=1)

        def kept() -> int:
            return sum(map(len, model.wire._poster._session.connector._conns.values()))

        await model.generate([Request(prompt=Prompt.user("colour?"), sampling=sampling)])
        before = kept()  # opening the model has left some
        for _ in range(5):
            await model.generate([Request(prompt=Prompt.user("colour?"), sampling=sampling)])
        assert kept() == before > 0
        assert server.count == 6


async def test_error_response_keeps_the_connection_usable(opened):
    async with opened(fault=lambda n: "500" if n == 0 else None) as (server, model):
        [[made]] = await model.generate(
            [Request(prompt=Prompt.user("colour?"), sampling=SamplingParams(max_tokens=20))]
        )
        assert made.ok
        assert server.count == 2
