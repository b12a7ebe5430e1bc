"""Clients that send incomplete or invalid HTTP over a socket to a real server."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from reason.core.settings import ServeSettings
from reason.sidecar import server as reason_server
from reason.sidecar.auth import MAX_HEADER_BYTES
from reason.sidecar.connections import RESERVED, ConnectionTable, ServerOverloaded, TooManyConnections, network_of
from reason.sidecar.server import max_connections, raise_file_limit, server_protocol, uvicorn_options
from support.authenticated_app import guarded_app
from support.scripted_model import ScriptedModel, replies

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Listening:
    """A server on its own socket."""

    def __init__(self, server, key, guarded, table):
        self.server, self.key, self.guarded, self.table = server, key, guarded, table
        self.port = server.servers[0].sockets[0].getsockname()[1]

    async def open(self, address="127.0.0.1"):
        """Open a connection, from an address of the loopback network."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

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
async def listening(tmp_path, headers_s=30.0, *models, limit=None, linger_s=60.0, **serve):
    async with guarded_app(tmp_path, *models, serve=serve) as g:
        key = (await g.key())["Authorization"]
        table = ConnectionTable(max_connections(g.app.state.serve) if limit is None else limit)
        options = {
            **uvicorn_options(g.app.state.serve),
            "port": 0,
            "http": server_protocol(table, headers_s=headers_s, linger_s=linger_s),
            "lifespan": "off",
        }
        server = uvicorn.Server(uvicorn.Config(g.app, **options))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve())
            try:
                while not server.started:
                    await asyncio.sleep(0.01)
                yield Listening(server, key.encode(), g, table)
            finally:
                server.should_exit = True


async def until_closed(s):
    """Wait until the server has no connection, for less time than it lingers."""
    async with asyncio.timeout(30):
        while len(s.table):
            await asyncio.sleep(0.01)


def statuses(told):
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", told)]


async def test_a_client_that_dawdles_over_its_headers_is_closed_and_others_are_served(tmp_path):
    async with listening(tmp_path, headers_s=0.3) as s:
        slow = [await s.open() for _ in range(20)]
        for i, (_, writer) in enumerate(slow):
            writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: " if i % 2 else b"GET /")
        silent = [await s.open() for _ in range(5)]
        assert statuses(await s.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) == [200]

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


async def test_a_body_that_does_not_come_ends_the_request(tmp_path, monkeypatch):
    monkeypatch.setattr("reason.sidecar.middleware.BODY_TIMEOUT_S", 0.2)
    async with listening(tmp_path) as s:
        told = await s.send(
            b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nAuthorization: " + s.key + b"\r\n\r\n{"
        )
        assert statuses(told) == [408]
        assert b"connection: close" in told.lower()


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
        (GET + b"\x00garbage\r\n\r\n", [200, 400]),
        (b"GET /healthz HTTP/1.1\r\n\r\n", [400]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", [400]),
        (b"xxx", [400]),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused_and_the_connection_closed(tmp_path, data, wanted):
    async with listening(tmp_path) as s:
        told = await s.send(data)
        # headers that are too large are refused by the parser or by the application, whichever sees them first
        assert statuses(told) == wanted or (len(data) > MAX_HEADER_BYTES and statuses(told) == [400])
        assert b"uvicorn" not in told.lower()
        assert b"server:" not in told.lower()


async def test_a_chunked_body_is_cut_at_the_largest_size(tmp_path):
    async with listening(tmp_path, max_body_bytes=2048) as s:
        head = (
            b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: "
            + s.key
            + b"\r\n\r\n"
        )
        told = await s.send(head + (b"400\r\n" + b"x" * 0x400 + b"\r\n") * 3)
        assert statuses(told) == [413]
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    "flood",
    [b"X: y\r\n" * 500_000, b"X: " + b"y" * MAX_HEADER_BYTES * 100],
)
async def test_what_follows_a_chunked_body_is_bounded_like_headers(tmp_path, flood):
    async with listening(tmp_path) as s:
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: " + s.key
        told = await s.send(head + b"\r\n\r\n2\r\n{}\r\n0\r\n" + flood)
        assert statuses(told) in ([400], [431])


async def test_an_extension_of_a_chunk_is_bounded_like_headers(tmp_path):
    async with listening(tmp_path) as s:
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: " + s.key
        told = await s.send(head + b"\r\n\r\n2;x=" + b"y" * MAX_HEADER_BYTES * 100)
        assert statuses(told) == [400]


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
        async with listening(tmp_path, max_body_bytes=2048) as s:
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


async def test_a_client_that_does_not_stop_sending_is_closed(tmp_path):
    async with listening(tmp_path, max_body_bytes=2048, linger_s=0.2) as s:
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 50)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(send_and_read, s.port, head, 1 << 50)
        assert len(s.table) == 0


async def test_a_refused_client_that_is_still_sending_gives_its_place_to_others(tmp_path):
    async with listening(tmp_path) as s:
        reader, writer = await s.open()
        writer.write(b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert statuses(await reader.read()) == [401]
        (connection,) = s.table._without_key
        assert connection.peer.is_idle()
        connection.peer.drop()
        await until_closed(s)
        writer.close()


async def test_a_length_that_is_a_lie_gets_no_answer_from_what_follows(tmp_path):
    """A request inside the body of another is not parsed as a request."""
    async with listening(tmp_path) as s:
        hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        head = b"POST /v1/reason HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: " + s.key
        length = b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(hidden)
        told = await s.send(head + length + hidden)
        assert len(statuses(told)) == 1
        assert statuses(told)[0] in (400, 422)


async def test_pipelined_requests_are_answered_in_order(tmp_path):
    async with listening(tmp_path) as s:
        last = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert statuses(await s.send(GET * 3 + last)) == [200, 200, 200, 404]


# -- too many connections


class Client:
    """The transport side of a connection in a table."""

    def __init__(self, is_idle=True):
        self.busy, self.closed = not is_idle, False

    def is_idle(self):
        return not self.busy

    def drop(self):
        self.closed = True


class Table(ConnectionTable):
    def __init__(self, limit):
        self.now = 100.0
        super().__init__(limit, clock=lambda: self.now)

    def connect(self, number, address="a", *, is_idle=True, key=None):
        """Open connections one after another."""
        peers = [Client(is_idle) for _ in range(number)]
        for peer in peers:
            self.now += 1
            connection = self.open(peer, address)
            if key is not None:
                connection.authenticate(key)
        return peers


def closed(peers):
    return [i for i, peer in enumerate(peers) if peer.closed]


def test_an_address_beyond_its_maximum_loses_the_connections_that_were_idle_for_longest():
    table = Table(40)
    other = table.connect(1, "b")
    peers = table.connect(12)
    assert closed(peers) == [0, 1]
    assert closed(other) == []
    assert len(table) == 11


def test_a_burst_of_new_connections_is_given_time_to_send_its_requests():
    table = Table(40)
    peers = [Client() for _ in range(30)]
    for peer in peers:
        table.open(peer, "a")
    assert closed(peers) == []
    table.connect(1)
    assert closed(peers) == list(range(21))


def test_an_address_whose_connections_are_all_in_use_is_refused_until_it_sends_a_key():
    table = Table(40)
    table.connect(10, is_idle=False)
    one = table.open(Client(is_idle=False), "a")
    with pytest.raises(TooManyConnections, match="the address has 10 connections without a key"):
        one.require_room()
    one.authenticate("k")


def test_a_flood_from_one_address_does_not_close_the_connections_of_others():
    table = Table(40)
    others = [*table.connect(1, "b"), *table.connect(4, "c", key="k")]
    flood = [Client() for _ in range(500)]
    for peer in flood:  # at one moment
        table.open(peer, "a")
    assert closed(others) == []
    assert len(table) == 40 + RESERVED
    assert closed(flood) == list(range(500 - (40 + RESERVED - 5)))


def test_of_all_idle_connections_those_without_a_key_are_closed_first():
    table = Table(4)
    keyed = table.connect(4, "a", key="")
    without = [peer for i in range(RESERVED) for peer in table.connect(1, f"10.0.0.{i}")]
    assert closed(keyed + without) == []
    table.connect(1, "d")
    assert (closed(keyed), closed(without)) == ([], [0])
    for peer in without:
        peer.busy = True
    table.connect(1, "e", is_idle=False)  # instead of the one from d
    table.connect(1, "f")
    assert (closed(keyed), closed(without)) == ([0], [0])


def test_without_an_idle_connection_a_new_one_is_refused():
    table = Table(4)
    for i in range(4 + RESERVED):
        table.connect(1, f"10.0.0.{i}", is_idle=False)
    assert table.open(Client(), "a") is None
    assert len(table) == 4 + RESERVED


def test_a_key_has_at_most_half_of_the_connections():
    table = Table(8)
    peers = table.connect(4, key="k")
    fifth = table.open(Client(), "a")
    fifth.authenticate("k")
    assert closed(peers) == [0]
    for peer in peers:
        peer.busy = True
    sixth = table.open(Client(), "a")
    fifth.peer.busy = True
    for _ in range(2):  # with each request
        with pytest.raises(TooManyConnections, match="the key has 4 connections in use"):
            sixth.authenticate("k")
    sixth.authenticate("other")


def test_callers_with_keys_leave_the_reserved_connections_to_others():
    table = Table(4)
    for key in ("k", "k", "l", "l"):
        table.connect(1, key=key, is_idle=False)
    with pytest.raises(ServerOverloaded, match="all 4 connections"):
        table.open(Client(is_idle=False), "a").authenticate("m")
    assert table.open(Client(), "a") is not None


def test_a_connection_that_is_closed_leaves_its_place():
    table = Table(4)
    one = table.open(Client(), "a")
    one.authenticate("k")
    one.close()
    one.close()
    one.touch()
    assert len(table) == 0


def test_addresses_of_one_network_in_ipv6_count_together():
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::"
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("") == ""


def test_the_maximum_leaves_half_of_the_files_to_others(monkeypatch):
    serve = ServeSettings(max_runs=64, max_queued=256)
    limits = {"files": 1024}
    monkeypatch.setattr("resource.getrlimit", lambda _: (limits["files"], 4096))
    assert max_connections(serve) == 512 - RESERVED
    limits["files"] = 1 << 20
    assert max_connections(serve) == 64 + 256 + 2048


READY = GET.replace(b"/healthz", b"/readyz").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
HEALTH = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def runs_of(s):
    return b"GET /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + s.key + b"\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /v1/runs HTTP/1.1\r\nHost: "])
async def test_fifteen_hundred_idle_connections_keep_no_caller_out(tmp_path, sent):
    """Beyond 1,000 connections, every request had been refused with 503 in plain text, health checks too."""
    raise_file_limit()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < 4096:
        pytest.skip(f"both ends of 1,500 connections need more than the {files} files that a process may open here")
    async with listening(tmp_path, limit=832) as s:
        idle = [await s.open() for _ in range(1500)]
        for _, writer in idle:
            writer.write(sent)
        for request in (HEALTH, READY, runs_of(s)):
            assert statuses(await s.send(request)) == [200]
        assert len(s.table) <= 832 + RESERVED
        for _, writer in idle:
            writer.close()


async def test_connections_from_many_addresses_keep_no_caller_out(tmp_path):
    async with listening(tmp_path, limit=20) as s:
        client = await s.open()
        client[1].write(runs_of(s).replace(b"Connection: close\r\n", b""))
        assert b"200 OK" in await client[0].readuntil(b"\r\n")
        idle = [await s.open(f"127.0.1.{i + 1}") for i in range(150)]
        for request in (HEALTH, READY, runs_of(s)):
            assert statuses(await s.send(request)) == [200]
        client[1].write(runs_of(s))  # its connection was idle too, but with a key
        assert b"HTTP/1.1 200 OK" in await client[0].read()
        for _, writer in (*idle, client):
            writer.close()


async def test_a_request_whose_body_does_not_come_holds_no_place(tmp_path):
    async with listening(tmp_path, limit=20) as s:
        head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        slow = [await s.open(f"127.0.1.{i + 1}") for i in range(150)]
        for _, writer in slow:
            writer.write(head)
        assert statuses(await s.send(HEALTH)) == [200]
        for _, writer in slow:
            writer.close()


async def test_when_all_connections_are_in_use_callers_are_told_when_to_come_again_and_health_checks_are_served(
    tmp_path,
):
    release = asyncio.Event()
    model = ScriptedModel(replies("The answer is 4."), step=release.wait)
    async with listening(tmp_path, 30.0, model, limit=4) as s:
        keys = [s.key, (await s.guarded.key())["Authorization"].encode()]
        body = b'{"question": "q"}'
        head = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        asked = await s.send(head % len(body) + b"Connection: close\r\nAuthorization: " + s.key + b"\r\n\r\n" + body)
        run_id = json.loads(asked.partition(b"\r\n\r\n")[2])["id"].encode()
        streams = []
        for key in keys * 2:
            reader, writer = await s.open()
            writer.write(
                b"GET /v1/runs/" + run_id + b"/events HTTP/1.1\r\nHost: x\r\nAuthorization: " + key + b"\r\n\r\n"
            )
            assert b"200 OK" in await reader.readuntil(b"\r\n")
            streams.append(writer)
        for request, status, code in (
            (runs_of(s), 429, "too_many_connections"),
            (runs_of(s).replace(s.key, (await s.guarded.key())["Authorization"].encode()), 503, "server_overloaded"),
        ):
            told = await s.send(request)
            told_head, _, told_body = told.partition(b"\r\n\r\n")
            assert statuses(told) == [status]
            assert b"retry-after: 1" in told_head.lower()
            assert b"content-type: application/json" in told_head.lower()
            assert json.loads(told_body)["error"]["code"] == code
        assert statuses(await s.send(HEALTH)) == [200]
        assert statuses(await s.send(READY)) == [200]
        release.set()
        for writer in streams:
            writer.close()


async def test_without_authentication_all_callers_are_served_as_if_they_had_a_key(tmp_path):
    async with listening(tmp_path, limit=40, auth=False) as s:  # 10 connections of an address without a key
        get = b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        told = await asyncio.gather(*(s.send(get) for _ in range(30)))
        assert [statuses(one) for one in told] == [[200]] * 30


async def test_a_connection_without_a_place_is_refused_in_json(tmp_path, monkeypatch):
    async with listening(tmp_path) as s:
        monkeypatch.setattr(s.table, "open", lambda *_: None)
        head, _, body = (await s.send(b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert json.loads(body)["error"]["code"] == "server_overloaded"


async def test_a_client_that_does_not_read_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("reason.sidecar.server.ServerProtocol.write_s", 0.2)
    async with listening(tmp_path) as s:
        page = b"GET /ui/assets/app.js HTTP/1.1\r\nHost: x\r\n\r\n"
        _, writer = await s.open()
        writer.transport.pause_reading()
        writer.write(page * 200)
        while len(s.table):
            await asyncio.sleep(0.01)
        writer.close()


async def test_what_is_no_request_is_refused_in_json(tmp_path):
    async with listening(tmp_path) as s:
        head, _, body = (await s.send(b"xxx")).partition(b"\r\n\r\n")
        assert b"content-type: application/json" in head
        assert json.loads(body)["error"] == {
            "message": "Invalid HTTP request received.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_http",
        }
