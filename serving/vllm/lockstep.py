"""Lockstep groups: requests that start in one step of vLLM's engine.

The engine schedules nothing between `pause_generation` and `resume_generation`, so all requests that reach it in
between are considered in the same step. Running requests are suspended meanwhile, for some 40 ms; groups that arrive
while a pause is being waited for share the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...core.concurrency import shielded
from ...core.messages import Chunk
from ..model import Listener

POLL_S = 0.001
"""Seconds between two looks at which requests have arrived."""

SubmitGroup = Callable[[], Awaitable[None]]


class LockstepAdmission:
    """Admits groups of requests to one engine."""

    def __init__(self, engine: Callable[[], Any]) -> None:
        self._engine = engine
        self._lock = asyncio.Lock()
        self._waiting: list[SubmitGroup] = []

    async def admit(self, submit: SubmitGroup) -> None:
        """Run `submit` while the engine schedules nothing.

        Args:
            submit: Submits requests and returns when the engine has them all; it must not raise.
        """
        self._waiting.append(submit)
        try:
            async with self._lock:
                if submit in self._waiting:  # else an earlier group's pause has run it too
                    await self._admit_all()
        finally:
            if submit in self._waiting:
                self._waiting.remove(submit)

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
    """Resume the engine once the pause has taken effect: a later pause would stay."""
    await asyncio.wait([paused])
    await engine.resume_generation()


class AttemptBuffer:
    """Chunks of an attempt to start a group: withheld as long as it may still fail at the start.

    A member that is out of step generates nothing but the end of the text, from its first token on.

    Attributes:
        has_emitted: Whether a chunk has reached the listener.
    """

    def __init__(self, listener: Listener | None, eos: frozenset[int]) -> None:
        self._listener, self._eos = listener, eos
        self._held: dict[int, list[Chunk]] = {}
        self._passing: set[int] = set()
        self.has_emitted = False

    def add(self, chunk: Chunk) -> None:
        """Take a chunk of a member's sample."""
        held = self._held.setdefault(chunk.request, [])
        if chunk.request not in self._passing and chunk.token_ids and not held and chunk.token_ids[0] not in self._eos:
            self._passing.add(chunk.request)
        if chunk.request in self._passing and chunk.completion is None:
            self.has_emitted = True
            if self._listener is not None:
                self._listener(chunk)
        else:
            held.append(chunk)

    def emit_rest(self) -> None:
        """Emit what was withheld: the attempt has succeeded."""
        for chunk in (c for held in self._held.values() for c in held):
            if self._listener is not None:
                self._listener(chunk)
        self._held.clear()


async def wait_until_entered(engine: Any, request_ids: list[str], tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until the engine knows of all requests, or their tasks have ended.

    A request that the engine's front end has entered is already on its way to the scheduler, ahead of whatever is
    sent to it later.
    """
    entered = engine.output_processor.external_req_ids
    while True:
        if all(name in entered or task.done() for name, task in zip(request_ids, tasks, strict=True)):
            return
        await asyncio.sleep(POLL_S)
