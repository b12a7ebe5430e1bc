"""`stream_of`: the stream of a model that only generates."""

import asyncio

import pytest
from reason.core.errors import BackendError
from reason.core.messages import Chunk, Prompt, Request
from reason.serving.streaming import stream_of

REQUEST = Request(prompt=Prompt(text="?"))
CHUNK = Chunk(sample_index=0, text="a", tokens=1)


class Slow:
    """Writes a chunk, and takes its time to end when it is cancelled."""

    def __init__(self):
        self.cancelled, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), False

    async def generate(self, requests, listener):
        listener(CHUNK)
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await self.may_end.wait()
            self.ended = True


async def test_leaving_early_cancels_the_work_and_waits_for_its_end():
    slow = Slow()
    stream = stream_of(slow.generate, REQUEST)
    assert await anext(stream) == CHUNK
    closing = asyncio.ensure_future(stream.aclose())
    await slow.cancelled.wait()
    assert not closing.done()
    slow.may_end.set()
    await closing
    assert slow.ended


async def test_a_cancellation_while_the_work_ends_is_not_lost():
    slow, after = Slow(), []

    async def read():
        stream = stream_of(slow.generate, REQUEST)
        await anext(stream)
        await stream.aclose()
        after.append(slow.ended)

    reading = asyncio.ensure_future(read())
    await slow.cancelled.wait()
    reading.cancel()
    await asyncio.sleep(0)
    slow.may_end.set()
    await asyncio.wait([reading])
    assert (reading.cancelled(), slow.ended, after) == (True, True, [])


async def test_an_error_comes_after_the_chunks_before_it():
    async def generate(requests, listener):
        listener(CHUNK)
        raise BackendError("the engine is gone")

    heard = []
    with pytest.raises(BackendError, match="the engine is gone"):
        async for chunk in stream_of(generate, REQUEST):
            heard.append(chunk)
    assert heard == [CHUNK]
