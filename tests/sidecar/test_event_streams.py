"""How event streams are written: a slow client delays its own stream alone, and pings fill silence."""

from __future__ import annotations

import asyncio
import json

import pytest
from reason.core.events import TextDelta
from reason.sidecar.native.routes import event_line
from reason.sidecar.sse import KEEPALIVE_S, _Body, _keep_alive, encode_json


class SlowClient:
    """An ASGI send channel that waits for its client to read before each part."""

    def __init__(self, clock):
        self.clock, self.parts, self.reads = clock, [], asyncio.Semaphore(0)

    async def __call__(self, message):
        await self.reads.acquire()
        self.parts.append(message.get("body", message["type"]))

    async def read(self, number):
        for _ in range(number):
            self.reads.release()
        await self.clock.settle()


START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_the_start_of_a_response_precedes_its_first_part_whoever_sends_it(clock):
    client = SlowClient(clock)
    body = _Body(client, START)
    sending = [asyncio.ensure_future(body.send(data)) for data in (b"1", b"2")]
    await client.read(3)
    assert client.parts == [START["type"], b"1", b"2"]
    assert all(one.done() for one in sending)


async def test_producers_wait_for_a_slow_client(clock):
    client = SlowClient(clock)
    body, added = _Body(client, START), []

    async def produce(name):
        for _ in range(3):
            await body.send(name)
            added.append(name)

    producers = [asyncio.ensure_future(produce(name)) for name in (b"a", b"b")]
    await client.read(3)
    assert len(added) == 2
    await client.read(4)
    await asyncio.gather(*producers)
    assert client.parts[1:] == added


@pytest.mark.parametrize("is_admitted", [True, False])
async def test_pings_fill_silence_once_the_request_has_its_run(is_admitted, clock):
    client, admitted = SlowClient(clock), asyncio.Event()
    if is_admitted:
        admitted.set()
    body = _Body(client, START)
    keepalive = asyncio.ensure_future(_keep_alive(body, b"ping", admitted))
    await clock.advance(10 * KEEPALIVE_S)
    assert body.is_sending is is_admitted
    await client.read(2)
    keepalive.cancel()
    assert client.parts == ([START["type"], b"ping"] if is_admitted else [])  # one waits at most


BREAKS = "a\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"
"""Everything at which Python's `splitlines`, and with it httpx, ends a line."""


def test_json_is_one_line_for_every_client():
    for value in ({"text": BREAKS}, {"text": BREAKS, "n": 1 << 70}):
        data = encode_json(value)
        assert data.decode().splitlines() == [data.decode()]
        assert json.loads(data) == value


def test_native_events_are_one_line_of_data():
    line = event_line(TextDelta(number=3, request=0, sample=0, text=BREAKS, tokens=1)).decode()
    (data,) = [one for one in line.splitlines() if one.startswith("data: ")]
    assert json.loads(data.removeprefix("data: "))["text"] == BREAKS
