"""`Admission`: requests that begin in one step of vLLM's engine.

The engine schedules nothing between `pause_generation` and `resume_generation`, so all requests that reach it in
between are considered in the same step. What was under way stands still meanwhile, for some 40 ms; those who come while
a pause is being waited for share the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...core.messages import Chunk
from ...core.unbroken import shielded
from ..model import Listener

POLL_S = 0.001
"""Seconds between two looks at which requests have arrived."""

Start = Callable[[], Awaitable[None]]


class Admission:
    """Admits groups of requests to one engine.

    Args:
        engine: Gives vLLM's `AsyncLLM`, or raises if it is closed.
    """

    def __init__(self, engine: Callable[[], Any]) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()
        self._waiting: list[Start] = []

    async def admit(self, start: Start) -> None:
        """Run `start` while the engine schedules nothing.

        Args:
            start: Hands over requests and returns when the engine has them all; it must not raise.
        """
        self._waiting.append(start)
        try:
            async with self._turn:
                if start in self._waiting:  # else whoever came before has run it too
                    await self._admit_all()
        finally:
            if start in self._waiting:
                self._waiting.remove(start)

    async def _admit_all(self) -> None:
        engine = self._engine()
        paused = asyncio.ensure_future(engine.pause_generation(mode="keep", clear_cache=False))
        try:
            await asyncio.shield(paused)
            while self._waiting:
                await self._waiting[0]()
                self._waiting.pop(0)
        finally:
            await shielded(_resume(engine, paused))  # else the engine would stay paused


async def _resume(engine: Any, paused: asyncio.Task[None]) -> None:
    """Let the engine go on once the pause has taken hold: a pause that came after would stay."""
    await asyncio.wait([paused])
    await engine.resume_generation()


class Attempt:
    """What an attempt to begin a group tells: held back as long as it may turn out to have failed at once.

    A member that is not in step says nothing but the end of the text, from its first token on.

    Args:
        listener: Who is told.
        eos: Tokens that end a text.
    """

    def __init__(self, listener: Listener | None, eos: frozenset[int]) -> None:
        self._listener, self._eos = listener, eos
        self._held: dict[int, list[Chunk]] = {}
        self._open: set[int] = set()
        self.told = False

    def hear(self, chunk: Chunk) -> None:
        """Take a piece of a member's sample."""
        held = self._held.setdefault(chunk.request, [])
        if chunk.request not in self._open and chunk.token_ids and not held and chunk.token_ids[0] not in self._eos:
            self._open.add(chunk.request)
        if chunk.request in self._open and chunk.completion is None:
            self.told = True
            if self._listener is not None:
                self._listener(chunk)
        else:
            held.append(chunk)

    def tell_rest(self) -> None:
        """Tell what was held back: the attempt counts."""
        for chunk in (c for held in self._held.values() for c in held):
            if self._listener is not None:
                self._listener(chunk)
        self._held.clear()


async def reached(engine: Any, names: list[str], tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until the engine knows of all requests, or their tasks have ended.

    A request that the engine's front end has entered is already on its way to the scheduler, in front of whatever is
    sent to it after.
    """
    entered = engine.output_processor.external_req_ids
    while True:
        if all(name in entered or task.done() for name, task in zip(names, tasks, strict=True)):
            return
        await asyncio.sleep(POLL_S)
