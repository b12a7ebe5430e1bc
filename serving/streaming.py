"""`ChunkQueue`: chunks between an engine and a slow consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress

from ..core.concurrency import cancel_and_wait
from ..core.errors import ReasonError
from ..core.messages import Chunk, Completion, Request, Usage
from .model import Listener


class ChunkQueue:
    """Chunks that wait for their consumer; those of one sample are joined into one."""

    def __init__(self) -> None:
        self._waiting: dict[int, Chunk] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk; true, since the consumer keeps the text that it has."""
        before = self._waiting.get(chunk.sample_index)
        if before is not None:
            chunk = chunk.model_copy(
                update={
                    "text": before.text + chunk.text,
                    "token_ids": before.token_ids + chunk.token_ids,
                    "logprobs": before.logprobs + chunk.logprobs,
                    "tokens": before.tokens + chunk.tokens,
                    "thought": before.thought + chunk.thought,
                    "lost": chunk.lost if before.lost is None else before.lost + (chunk.lost or Usage()),
                }
            )
        self._waiting[chunk.sample_index] = chunk
        self._changed.set()
        return True

    def close(self) -> None:
        """Mark the end of the stream."""
        self._closed = True
        self._changed.set()

    def __aiter__(self) -> ChunkQueue:
        return self

    async def __anext__(self) -> Chunk:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.pop(next(iter(self._waiting)))


Generate = Callable[[Sequence[Request], Listener | None], Awaitable[list[list[Completion]]]]


async def stream_of(generate: Generate, request: Request) -> AsyncGenerator[Chunk, None]:
    """`LanguageModel.stream` from `LanguageModel.generate`: leaving it early cancels the work and waits for its end."""
    pieces = ChunkQueue()
    work = asyncio.ensure_future(generate([request], pieces.put))
    work.add_done_callback(lambda _: pieces.close())
    try:
        async for piece in pieces:
            yield piece
        await work
    finally:
        await cancel_and_wait(work)
        with suppress(asyncio.CancelledError, ReasonError):
            work.result()


class StopStrings:
    """Withholds possible starts of stop strings in a text that is being generated.

    Attributes:
        text: All text that is certain.
        stop_reason: The stop string that was completed, the first in the text if a piece completed several; "" if none.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.text = ""
        self.stop_reason = ""

    def push(self, piece: str) -> str:
        """Take a piece; returns the text that is now certain."""
        pending = self._held + piece
        matches = [(start, s) for s in self._stops if (start := pending.find(s)) >= 0]
        if matches:
            end, self.stop_reason = min(matches, key=lambda match: match[0])
            certain, self._held = pending[:end], ""
        else:
            keep = max((_overlap(pending, s) for s in self._stops), default=0)
            certain, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += certain
        return certain

    def finish(self) -> str:
        """The rest, at the end of the text."""
        rest, self._held = self._held, ""
        self.text += rest
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
