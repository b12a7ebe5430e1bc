"""Servers of one's own are found at their addresses, by name, with model strings that work as they are."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.servers.discovery import as_server, default_addresses, find_local_servers
from support.wires.http import HttpServer
from support.wires.kinds import KINDS, OTHER_KINDS
from support.wires.server import WireServer

PATIENT_S = 600.0
KNOWN = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
FOUND = {
    "plain": ("vLLM", "hosted_vllm/plain"),
    "Ollama": ("Ollama", "ollama/qwen3:8b"),
    "SGLang": ("SGLang", "openai/qwen3-8b"),
    "llama.cpp": ("llama.cpp", "openai/qwen3-8b-q4"),
    "raw tags, not vLLM": ("LM Studio", "openai/qwq-32b"),
}


class OtherPage(HttpServer):
    """Something else that listens: a status and a page."""

    def __init__(self, status: int, page: str) -> None:
        super().__init__()
        self.status, self.page = status, page

    async def _answer(self, reply, method, path, headers, body) -> None:
        self.requests.append((path, body))
        await reply.raw(self.status, "text/html", self.page.encode())

    async def _text(self, reply, path, body, number) -> None: ...


async def test_servers_are_found_by_their_models_owner_or_their_port():
    async with AsyncExitStack() as stack:
        addresses = {await stack.enter_async_context(WireServer(KNOWN[kind]).run()): kind for kind in FOUND}
        found = await find_local_servers(dict.fromkeys(addresses, "LM Studio"), PATIENT_S)
        assert [(s.name, s.address, s.models) for s in found] == [
            (FOUND[kind][0], address, (f"{FOUND[kind][1]}@{address}",)) for address, kind in addresses.items()
        ]


@pytest.mark.parametrize("kind", ["plain", "Ollama", "llama.cpp"])
async def test_the_model_strings_answer_without_settings(kind):
    server = WireServer(KNOWN[kind])
    async with server.run() as address:
        [found] = await find_local_servers({address: "any"}, PATIENT_S)
        for name in (found.models[0], address):  # the first model of the address is the same
            model = await load_litellm_model(name, Settings())
            try:
                sampling = SamplingParams(max_tokens=40, effort="none" if kind != "plain" else None)
                [[completion]] = await model.generate([Request(prompt=Prompt.user("5 + 7?"), sampling=sampling)])
            finally:
                await model.aclose()
            assert (model.name, completion.ok, completion.thought) == (found.models[0], True, None)


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (404, "none"),
        (200, "<html>"),
        (200, "[1]"),
        (200, '{"data": 3}'),
        (200, '{"data": ["a"]}'),
        (200, '{"data": [{}]}'),
    ],
)
async def test_what_lists_no_models_is_no_server(status, page):
    other = OtherPage(status, page)
    async with other.run() as address:
        assert await find_local_servers({address: "vLLM"}, PATIENT_S) == []
        assert [path for path, _ in other.requests] == ["/v1/models"]


async def test_a_server_that_has_loaded_nothing_is_one():
    async with OtherPage(200, '{"data": null}').run() as address:  # as a fresh Ollama
        [found] = await find_local_servers({address: "Ollama"}, PATIENT_S)
        assert (found.name, found.models) == ("Ollama", ())


async def test_closed_ports_and_silent_servers_are_nothing():
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        assert await find_local_servers({f"http://127.0.0.1:{port}/v1": "vLLM"}, 0.05) == []
    assert await find_local_servers({f"http://127.0.0.1:{port}/v1": "vLLM", "http://127.0.0.1:9/v1": ""}) == []


def test_embedding_models_are_last_and_names_keep_their_slashes():
    listed = [{"id": "text-embedding-nomic"}, {"id": "openai/gpt-oss-20b", "owned_by": "organization_owner"}]
    assert as_server(listed, "http://h:1/v1", "LM Studio").models == (
        "openai/openai/gpt-oss-20b@http://h:1/v1",
        "openai/text-embedding-nomic@http://h:1/v1",
    )


def test_ollama_is_looked_for_where_its_variable_says(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "box:5000")
    assert default_addresses() == {
        "http://box:5000/v1": "Ollama",
        "http://127.0.0.1:1234/v1": "LM Studio",
        "http://127.0.0.1:8080/v1": "llama.cpp",
        "http://127.0.0.1:8000/v1": "vLLM",
        "http://127.0.0.1:30000/v1": "SGLang",
    }
