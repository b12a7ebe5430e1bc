"""A web service as a source, over a real socket: healthy, slow, broken, endless, and sending garbage."""

import asyncio
import contextlib
import json

import pytest
from reason.core.errors import BackendError, BackendTimeout, BackendUnavailable, InvalidResponse, RateLimited, UserError
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.sources.client import KnowledgeClient
from reason.reasoning.retrieval.sources.http import MAX_RESPONSE_BYTES, HttpSource

GOOD = {"snippets": [{"text": "one", "source_id": "p1", "score": 0.5}, {"text": "two"}, "three"]}


class Service:
    """Answers every request by `answer`, a function of the writer; keeps what was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.heads, self.bodies = [], []
        self.left = asyncio.Event()
        """Set when somebody who asked is gone."""

    async def connection(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(h.split(":")[1]) for h in head.lower().split("\r\n") if h.startswith("content-length")
                )
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(length)))
                await self.answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()


@contextlib.asynccontextmanager
async def serving(answer):
    service = Service(answer)
    tasks = set()

    async def connection(reader, writer):
        tasks.add(asyncio.current_task())
        await service.connection(reader, writer)

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ask"
        yield service
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(body, status="200 OK", *headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers]

    async def answer(writer):
        writer.write("\r\n".join([*head, "", ""]).encode() + content)

    return answer


@contextlib.asynccontextmanager
async def asked(answer, **how):
    async with serving(answer) as service:
        source = HttpSource(service.url, **how)
        try:
            yield source, service
        finally:
            await source.aclose()


async def test_what_is_sent_and_read():
    async with asked(reply(GOOD), headers={"Authorization": "Bearer secret"}) as (source, service):
        assert isinstance(source, KnowledgeSource)
        found = await source.query("Where?", 2, "a step")
        assert [(s.text, s.source_id, s.score) for s in found] == [("one", "p1", 0.5), ("two", service.url, 0.0)]
        assert [s.text for s in await source.query("Wörter \ud800", 3)] == ["one", "two", "three"]
        assert service.bodies[0] == {"query": "Where?", "k": 2, "context": "a step"}
        assert service.heads[0].startswith("POST /ask HTTP/1.1\r\n")
        assert "Authorization: Bearer secret" in service.heads[0]
        assert (source.kind, source.name) == ("http", service.url)
        assert "secret" not in source.name + source.identity
    with pytest.raises(BackendUnavailable, match="closed"):
        await source.query("q", 1)
    await source.aclose()


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (reply(b"no", "404 Not Found"), BackendError, "status 404"),
        (reply(b"", "500 Oh"), BackendError, "status 500"),
        (reply(b"", "204 None"), BackendError, "status 204"),
        (reply(b"", "302 Found", "Location: http://127.0.0.1:9/"), BackendError, "redirects to another URL"),
        (reply(b"", "429 Slow", "Retry-After: 3"), RateLimited, "rate limited"),
        (reply(b"", "429 Slow", "Retry-After: \xb2"), RateLimited, "rate limited"),
        (reply(b"<html>"), InvalidResponse, "not valid JSON"),
        (reply(b""), InvalidResponse, "not valid JSON"),
        (reply(b"\xff\xfe\x00"), InvalidResponse, "not valid JSON"),
        (reply(b"[" * 100_000), InvalidResponse, "not valid JSON"),
        (reply({"snippets": "text"}), InvalidResponse, "expected a list"),
        (reply({"snippet": []}), InvalidResponse, "got dict"),
        (reply({"snippets": [{"text": None}]}), InvalidResponse, "no text"),
        (reply(b"5"), InvalidResponse, "got int"),
        (reply(b" " * (MAX_RESPONSE_BYTES + 1)), InvalidResponse, "longer than 4 MiB"),
        (reply(b"{}", "200 OK", "Content-Encoding: gzip"), BackendError, "the connection to .* failed"),
    ],
)
async def test_broken_replies_are_typed_errors(answer, error, says):
    async with asked(answer) as (source, _):
        with pytest.raises(error, match=says) as raised:
            await source.query("q", 3)
        assert type(raised.value) is error
        assert source.name in raised.value.message
        if error is RateLimited:
            assert raised.value.retry_after_s in (3.0, None)


async def cut(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    writer.close()


async def garbage(writer):
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")


async def hang_up(writer):
    writer.transport.abort()


@pytest.mark.parametrize("answer", [cut, garbage, hang_up])
async def test_broken_connections_are_typed_errors(answer):
    async with asked(answer) as (source, _):
        with pytest.raises(BackendError, match="the connection to .* failed"):
            await source.query("q", 3)


async def test_an_endless_reply_is_cut_and_the_connection_closed():
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
            await writer.drain()

    async with asked(endless) as (source, service):
        with pytest.raises(InvalidResponse, match="longer"):
            await source.query("q", 3)
        await asyncio.wait_for(service.left.wait(), 30)


async def test_a_zip_bomb_is_cut_where_it_is_unpacked():
    import gzip

    bomb = gzip.compress(b" " * (64 << 20))
    async with asked(reply(bomb, "200 OK", "Content-Encoding: gzip")) as (source, _):
        with pytest.raises(InvalidResponse, match="longer"):
            await source.query("q", 3)


async def dripping(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)


async def test_a_slow_service_is_given_up():
    async with asked(dripping, timeout_s=0.05) as (source, service):
        with pytest.raises(BackendTimeout, match=r"within 0\.05 seconds"):
            await source.query("q", 3)
        await asyncio.wait_for(service.left.wait(), 30)


async def test_who_asks_may_have_less_patience_and_closes_the_connection(runs):
    async with asked(dripping) as (source, service):
        client = KnowledgeClient([source], await runs.run(), timeout_s=0.05)
        assert await client.query(["q"], 3) == [[]]
        assert (client.timeouts, client.errors) == (1, 0)
        await asyncio.wait_for(service.left.wait(), 30)


async def test_its_own_timeout_counts_as_one_too(runs):
    async with asked(dripping, timeout_s=0.05) as (source, _):
        client = KnowledgeClient([source], await runs.run())
        assert await client.query(["q"], 3) == [[]]
        assert (client.timeouts, client.errors) == (1, 0)


async def test_nobody_there():
    async with serving(reply(GOOD)) as service:
        source = HttpSource(service.url)
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await source.query("q", 3)
    await source.aclose()


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "https:///path", "http://x:0x", "http://x\n/", "localhost:80"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match="is not an HTTP URL"):
        HttpSource(url)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(UserError, match="headers") as raised:
        HttpSource("https://me:hunter2@host/")
    assert "hunter2" not in str(raised.value)
