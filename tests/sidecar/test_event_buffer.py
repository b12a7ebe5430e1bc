from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import StoreError
from reason.core.events import EventsDropped, StageStarted, TextDelta
from reason.sidecar.runs import EventBuffer


def stage(number):
    return StageStarted(stage="s", number=number)


def delta(number):
    return TextDelta(request=0, sample=0, text="x", tokens=1, number=number)


class Stored:
    """An event store whose contents the test sets."""

    def __init__(self):
        self.saved, self.asked = [], 0

    async def __call__(self, after, limit):
        self.asked += 1
        return [e for e in self.saved if e.number > after][:limit]


def stages(count):
    return [stage(n) for n in range(1, count + 1)]


def buffer_of(events, stored=None, **options):
    """A buffer that got these events."""
    buffer = EventBuffer(stored or Stored(), **options)
    for event in events:
        buffer(event)
    return buffer


async def numbers(buffer, after=0, **options):
    return [e.number async for batch in buffer.read(after, **options) for e in batch]


async def test_a_reader_that_fell_behind_reads_the_store_and_then_what_is_kept():
    stored = Stored()
    buffer = buffer_of(stages(10), stored, max_events=4)
    stored.saved = stages(7)  # 8 to 10 are not stored yet; the buffer has 7 to 10
    buffer.close()
    assert await numbers(buffer) == list(range(1, 11))
    assert stored.asked == 1
    assert await numbers(buffer, after=6) == [7, 8, 9, 10]
    assert stored.asked == 1  # buffered events need no store read


async def test_a_reader_that_fell_behind_waits_until_the_store_has_what_it_missed(clock):
    stored = Stored()
    buffer = buffer_of(stages(6), stored, max_events=2)
    reading = asyncio.ensure_future(numbers(buffer))
    await clock.advance(1)
    assert stored.asked > 1
    stored.saved = stages(6)
    await clock.advance(1)
    buffer.close()
    assert await reading == [1, 2, 3, 4, 5, 6]


async def test_what_neither_store_nor_board_has_is_an_error_and_no_gap():
    buffer = buffer_of(stages(6), max_events=2)
    buffer.close()
    with pytest.raises(StoreError, match="after number 0"):
        await numbers(buffer)


async def test_text_deltas_come_in_their_place_and_only_to_those_who_want_them():
    told = []
    buffer = EventBuffer(Stored(), told.append)
    assert not buffer.wants_text
    reading = asyncio.ensure_future(numbers(buffer, text=True))
    await asyncio.sleep(0)
    assert buffer.wants_text
    plain = asyncio.ensure_future(numbers(buffer))
    for event in (stage(1), delta(2), delta(3), stage(4), delta(5)):
        buffer(event)
    buffer.close()
    assert await reading == [1, 2, 3, 4, 5]
    assert await plain == [1, 4]
    assert told == [True, False]
    assert not buffer.wants_text


async def test_text_that_is_expected_is_kept_for_the_first_reader():
    buffer = EventBuffer(Stored())
    buffer.expect_text()
    for event in (stage(1), delta(2), stage(3)):
        buffer(event)
    buffer.close()
    assert await numbers(buffer, text=True) == [1, 2, 3]
    assert await numbers(buffer, text=True) == [1, 3]


async def test_a_slow_reader_of_text_is_told_how_much_it_missed_and_holds_nobody_up():
    buffer = EventBuffer(Stored(), max_text_deltas=3)
    reader = buffer.read(text=True)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    buffer(stage(1))
    assert [e.number for e in await first] == [1]
    for n in range(2, 12):
        buffer(delta(n))
    buffer.close()
    rest = [e async for batch in reader for e in batch]
    assert [type(e) for e in rest] == [EventsDropped, TextDelta, TextDelta, TextDelta]
    assert rest[0].count == 7
    assert [e.number for e in rest[1:]] == [9, 10, 11]


async def test_leaving_early_takes_the_reader_off():
    buffer = EventBuffer(Stored())
    reader = buffer.read(text=True)
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await reader.aclose()
    assert not buffer.wants_text
    buffer(stage(1))  # no reader waits
    buffer.close()
    assert await numbers(buffer) == [1]


async def test_a_run_that_went_on_has_its_earlier_events_in_the_store():
    stored = Stored()
    stored.saved = stages(2)
    buffer = EventBuffer(stored)
    buffer.skip_to(2)
    buffer(stage(100_003))  # numbers may have gaps
    buffer.close()
    assert await numbers(buffer) == [1, 2, 100_003]
    assert await numbers(buffer, after=2) == [100_003]


@given(st.lists(st.sampled_from(["event", "text", "read", "save"]), max_size=60), st.integers(1, 5))
def test_any_interleaving_gives_each_event_once_and_in_order(steps, max_events):
    async def play():
        stored = Stored()
        buffer = EventBuffer(stored, max_events=max_events)
        events, readers, n = [], [], 0
        for step in steps:
            if step == "read":
                readers.append(asyncio.ensure_future(numbers(buffer, text=len(readers) % 2 == 0)))
            elif step == "save":
                stored.saved = list(events)
                await asyncio.sleep(0)
            else:
                n += 1
                event = stage(n) if step == "event" else delta(n)
                if step == "event":
                    events.append(event)
                buffer(event)
        stored.saved = list(events)
        buffer.close()
        expected = [e.number for e in events]
        for seen in await asyncio.gather(*readers):
            assert seen == sorted(set(seen))
            assert [n for n in seen if n in set(expected)] == expected

    asyncio.run(play())
