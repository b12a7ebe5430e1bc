"""How responses are written to connections: few system calls, and a slow client delays its own stream alone."""

from __future__ import annotations

import asyncio
import json

import pytest
from reason.core.events import TextDelta
from reason.sidecar.native.routes import event_line
from reason.sidecar.server import GatheredWrites
from reason.sidecar.sse import MAX_BUFFERED, _Keepalive, _Outbox, encode_json


class Wire:
    """A transport that notes what is done with it."""

    def __init__(self):
        self.done, self.closing = [], False

    def write(self, data):
        self.done.append(data)

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True
        self.done.append("closed")


async def test_what_is_written_in_one_turn_is_sent_together_and_in_order():
    wire = Wire()
    writes = GatheredWrites(wire, asyncio.get_running_loop())
    writes.write(b"head ")
    writes.write(b"body ")
    assert wire.done == []
    await asyncio.sleep(0)
    writes.write(b"end")
    await asyncio.sleep(0)
    assert wire.done == [b"head body ", b"end"]


async def test_closing_sends_what_waits_first_and_a_closed_connection_gets_nothing():
    wire = Wire()
    writes = GatheredWrites(wire, asyncio.get_running_loop())
    writes.write(b"refused")
    writes.close()
    assert wire.done == [b"refused", "closed"]
    writes.write(b"late")
    await asyncio.sleep(0)
    assert wire.done == [b"refused", "closed"]
    assert writes.is_closing()  # everything else is the transport's


async def test_an_outbox_gives_everything_in_order_and_then_ends():
    outbox = _Outbox()
    await outbox.put(b"1")
    await outbox.put(b"2")
    assert (await outbox.take(), outbox.is_complete) == (b"12", False)
    taking = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.end(b"3")
    assert (await taking, outbox.is_complete) == (b"3", True)
    assert await outbox.take() is None


async def test_an_outbox_whose_producer_failed_gives_what_it_had():
    outbox = _Outbox()
    outbox.put_now(b"1")
    outbox.close()
    assert (await outbox.take(), await outbox.take(), outbox.is_complete) == (b"1", None, False)


async def test_producers_wait_for_a_slow_client():
    outbox, added = _Outbox(), []

    async def produce(name):
        for _ in range(MAX_BUFFERED):
            await outbox.put(b".")
            added.append(name)

    producers = [asyncio.ensure_future(produce(name)) for name in "ab"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(added) == MAX_BUFFERED
    total = 0
    while total < 2 * MAX_BUFFERED:
        total += len(await outbox.take())
        await asyncio.sleep(0)
    await asyncio.gather(*producers)
    assert len(added) == total == 2 * MAX_BUFFERED


@pytest.mark.parametrize("is_admitted", [True, False])
async def test_pings_fill_silence_once_the_request_has_its_run(is_admitted):
    outbox, admitted = _Outbox(), asyncio.Event()
    if is_admitted:
        admitted.set()
    timer = _Keepalive(outbox, b"ping", admitted, 0.01)
    await asyncio.sleep(0.1)
    timer.stop()
    assert outbox.is_empty is not is_admitted
    if is_admitted:
        assert await outbox.take() == b"ping"  # one waits at most


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
