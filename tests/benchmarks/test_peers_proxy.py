"""The proxy that counts for all peers: marks go no further, tokens are the server's, leaving clients are seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from peers_proxy import MARK, Call, Proxy, read_usage, unmarked
from sidecar_backend import Connection, Pace, RequestCounter

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@asynccontextmanager
async def proxied(upstream: str) -> AsyncIterator[str]:
    runner = web.AppRunner(Proxy(upstream).app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def before(desk: RequestCounter) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(desk), "127.0.0.1", 0)
    async with proxied(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as root:
        yield root
    server.close()


def asked(item: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": MARK.format(name=item) + "tag-here"}], **more}


async def ledger(session: aiohttp.ClientSession, root: str) -> list[dict[str, Any]]:
    async with session.post(f"{root}/ledger") as reply:
        return list(await reply.json())


def test_every_mark_is_removed_and_the_first_names_the_question():
    text = MARK.format(name="gsm8k-test-0746") + "How many?\n" + MARK.format(name="gsm8k-test-0746")
    body = json.dumps({"content": text}).encode()
    assert unmarked(body) == ("gsm8k-test-0746", json.dumps({"content": "How many?\n"}).encode())
    assert unmarked(b'{"content": "[[1, 2]]"}') == ("", b'{"content": "[[1, 2]]"}')


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_are_counted_by_question_and_forgotten_once_read(stream):
    desk = RequestCounter(Pace(tokens=5), None)
    async with before(desk) as root, aiohttp.ClientSession() as session:
        for item, n in (("a", 1), ("b", 3)):
            async with session.post(f"{root}/v1/chat/completions", json=asked(item, n=n, stream=stream)) as reply:
                text = await reply.text()
                assert reply.status == 200
                assert "word word" in text or '"word "' in text
        async with session.get(f"{root}/v1/models") as reply:
            assert (await reply.json())["data"][0]["id"] == "fake"
        calls = await ledger(session, root)
        assert await ledger(session, root) == []
    assert [(c["item"], c["samples"], c["prompt"], c["completion"]) for c in calls] == [
        ("a", 1, 14, 5),
        ("b", 3, 14, 15),
    ]
    assert all(c["status"] == 200 and not c["cut"] and 0 < c["first"] <= c["seconds"] for c in calls)
    assert desk.tags == {"tag-here": 2}  # the model saw what stood behind the mark


@pytest.mark.parametrize(
    ("reply", "streamed", "expected"),
    [
        (json.dumps({"usage": USAGE}).encode(), False, (7, 3, False)),
        (b"not JSON", False, (0, 0, True)),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', True, (0, 1, True)),
        (b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n", True, (7, 3, False)),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choi', True, (0, 1, True)),
    ],
)
def test_tokens_are_read_from_a_response(reply, streamed, expected):
    call = Call("a", 1)
    read_usage(call, reply, streamed)
    assert (call.prompt, call.completion, call.cut) == expected
