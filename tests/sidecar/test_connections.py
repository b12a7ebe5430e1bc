"""Clients that send incomplete or invalid HTTP over a socket to a real server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from reason.core.settings import ServeSettings
from reason.sidecar import server as reason_server
from reason.sidecar.auth import MAX_HEADER_BYTES
from reason.sidecar.server import max_connections, uvicorn_options
from support.authenticated_app import guarded_app
from support.waiting import wait_until

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Listening:
    """A server on its own socket."""

    def __init__(self, server, key):
        self.server, self.key = server, key
        self.port = server.servers[0].sockets[0].getsockname()[1]

    @property
    def connections(self):
        """The open connections."""
        return self.server.server_state.connections

    async def open(self):
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, data, *, half=False):
        """Send bytes and return the response up to the end of the connection."""
        reader, writer = await self.open()
        writer.write(data)
        if half:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def listening(tmp_path, headers_s=30.0, **serve):
    async with guarded_app(tmp_path, serve=serve) as g:
        key = (await g.key())["Authorization"]
        options = uvicorn_options(g.app.state.serve)
        options |= {
            "port": 0,
            "http": type("Protocol", (options["http"],), {"headers_s": headers_s}),
            "lifespan": "off",
        }
        server = uvicorn.Server(uvicorn.Config(g.app, **options))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve())
            try:
                await wait_until(lambda: server.started)
                yield Listening(server, key.encode())
            finally:
                server.should_exit = True


async def until_closed(s):
    """Wait until the server has no connection, for less time than it lingers."""
    await wait_until(lambda: not len(s.connections))


def statuses(told):
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", told)]


async def test_a_client_that_dawdles_over_its_headers_is_closed_and_others_are_served(tmp_path):
    async with listening(tmp_path, headers_s=0.3) as s:
        slow = [await s.open() for _ in range(20)]
        for i, (_, writer) in enumerate(slow):
            writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: " if i % 2 else b"GET /")
        silent = [await s.open() for _ in range(5)]
        assert statuses(await s.send(CLOSING)) == [200]

        async def dribble(reader, writer):
            """Send single bytes, each of which restarts uvicorn's own timeout."""
            closed = asyncio.ensure_future(reader.read())
            while not closed.done():
                writer.write(b"x")
                await asyncio.wait([closed], timeout=0.05)
            try:
                return closed.result()
            except ConnectionError:
                return b""

        assert await asyncio.gather(*(dribble(*one) for one in slow)) == [b""] * 20
        assert await asyncio.gather(*(reader.read() for reader, _ in silent)) == [b""] * 5


async def test_a_second_request_is_waited_for_no_longer_than_the_first(tmp_path):
    async with listening(tmp_path, headers_s=0.3) as s:
        reader, writer = await s.open()
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"\r\n")
        await reader.readuntil(b'{"status":"ok"}')
        writer.write(b"GET /heal")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),  # TLS
        (b"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", [400]),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", [400]),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", [400]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", [431]),
        (b"GET /" + b"a" * (MAX_HEADER_BYTES * 2) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [431]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200_000 + b"\r\n", [400]),
        (b"xxx", [400]),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused_and_the_connection_closed(tmp_path, data, wanted):
    async with listening(tmp_path) as s:
        told = await s.send(data)
        # too large headers are refused by the parser or by the application, whichever sees them first; the connection
        # is closed, and a client that is still sending may miss the response
        assert statuses(told) == wanted or (len(data) > MAX_HEADER_BYTES and statuses(told) in ([400], []))
        assert b"uvicorn" not in told.lower()
        assert b"server:" not in told.lower()


@pytest.mark.parametrize(
    ("flood", "refusals"),
    [
        (b"\r\n{}\r\n0\r\n" + b"X: y\r\n" * 500_000, ([400], [431], [])),
        (b"\r\n{}\r\n0\r\nX: " + b"y" * MAX_HEADER_BYTES * 100, ([400], [431], [])),
        (b";x=" + b"y" * MAX_HEADER_BYTES * 100, ([400], [])),
    ],
    ids=["trailers", "a long trailer", "an extension of a chunk"],
)
async def test_what_is_around_the_chunks_of_a_body_is_bounded_like_headers(tmp_path, flood, refusals):
    async with listening(tmp_path) as s:
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: " + s.key
        assert statuses(await s.send(head + b"\r\n\r\n2" + flood)) in refusals  # it is closed


def send_and_read(port, head, body_bytes):
    """Send a whole request in a blocking way, and then read the response, as simple clients do."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        piece = bytes(1 << 16)
        for _ in range(body_bytes // len(piece)):
            connection.sendall(piece)
        told = b""
        while data := connection.recv(1 << 16):
            told += data
        return told


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, reason_server.new_event_loop])
@pytest.mark.parametrize(("has_key", "status", "code"), [(True, 413, "too_large"), (False, 401, "invalid_api_key")])
def test_a_client_that_sends_all_before_it_reads_gets_its_refusal(tmp_path, new_event_loop, has_key, status, code):
    async def ask():
        async with listening(tmp_path) as s:
            size = 32 << 20  # more than the buffers of both sides
            head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size
            head += b"Authorization: " + s.key + b"\r\n\r\n" if has_key else b"\r\n"
            told = await asyncio.to_thread(send_and_read, s.port, head, size)
            await until_closed(s)
            return told

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        told = runner.run(ask())
    assert statuses(told) == [status]
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == code


async def test_a_client_that_does_not_stop_sending_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("reason.sidecar.errors.UNREAD_S", 0.2)
    async with listening(tmp_path) as s:
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 50)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(send_and_read, s.port, head, 1 << 50)
        assert len(s.connections) == 0


def test_the_maximum_leaves_half_of_the_files_to_others(monkeypatch):
    serve = ServeSettings(max_runs=64)
    limits = {"files": 1024}
    monkeypatch.setattr("resource.getrlimit", lambda _: (limits["files"], 4096))
    assert max_connections(serve) == 512
    limits["files"] = 1 << 20
    assert max_connections(serve) == 64 + 256 + 2048


async def test_connections_beyond_the_maximum_get_503_until_others_close(tmp_path, monkeypatch):
    monkeypatch.setattr(reason_server, "SPARE_CONNECTIONS", 3)
    monkeypatch.setattr("reason.core.settings.QUEUED_PER_RUN", 0)
    async with listening(tmp_path, max_runs=1) as s:
        held = [await s.open() for _ in range(4)]
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nAuthorization: " + s.key
        for _, writer in held:  # their bodies do not come
            writer.write(head + b"\r\n\r\n")
        await wait_until(lambda: len(s.connections) >= 4)
        assert statuses(await s.send(CLOSING)) == [503]
        for _, writer in held:
            writer.close()
        await until_closed(s)
        assert statuses(await s.send(CLOSING)) == [200]


async def test_a_client_that_does_not_read_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("reason.sidecar.server.ServerProtocol.write_s", 0.2)
    async with listening(tmp_path) as s:
        page = b"GET /ui/assets/app.js HTTP/1.1\r\nHost: x\r\n\r\n"
        _, writer = await s.open()
        writer.transport.pause_reading()
        writer.write(page * 200)
        await wait_until(lambda: not len(s.connections))
        writer.close()
