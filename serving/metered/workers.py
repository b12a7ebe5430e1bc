"""`MeteredWorkers`: workers on one cache as a strategy sees them, with budget, run store and trace between the two."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress

from pydantic import JsonValue, TypeAdapter

from ...core.budget import CostBound
from ...core.errors import UserError
from ...core.events import CallStarted, TextDelta
from ...core.messages import Frozen, Usage
from ...core.store import StoredCall, call_key
from ...core.unbroken import shielded
from ..worker_group import Drawn, Opening, Pass, SharesCache, WorkerGroup
from .model import Meter

STRETCH = 32
"""Passes that are stored together. So many are run again at most where a run is killed; none where it is cancelled."""


class _Passed(Frozen):
    """A pass as the store keeps it."""

    step: Pass
    drawn: tuple[Drawn | None, ...]


class _Stretch(Frozen):
    """Passes in a row, and the prompt tokens that were charged with them."""

    passes: tuple[_Passed, ...]
    prompt_tokens: int = 0


_STRETCH = TypeAdapter(_Stretch)


class MeteredWorkers:
    """Workers of a model in one role of one run. It is a `WorkerGroup` itself, with the differences named here.

    The whole group is one model call. Before a pass its tokens, one for each worker that reads, are fitted into the
    budget. What was drawn is stored, some passes at a time: a resumed run takes it from there without computing
    anything, as long as it asks for the same passes. Where it comes to one that is not stored, the group is opened, and
    is led through all that was before once more, which is not charged again.

    Args:
        model: The model.
        opening: How the workers begin.
        meter: What pays.

    Raises:
        LimitExceeded: By `advance`, when a pass does not fit the budget or the time is over.
    """

    def __init__(self, model: SharesCache, opening: Opening, meter: Meter) -> None:
        self._model, self._opening, self._meter = model, opening, meter
        self._run = meter.run
        self._group: WorkerGroup | None = None
        self._past: list[_Passed] = []
        self._paid_prompt = 0
        self._replaying: list[_Passed] = []
        self._fresh: list[_Passed] = []
        self._digest = hashlib.sha256()
        self._fresh_key = ""
        self._replayed_tokens = 0
        self._tokens = 0
        self._told_tokens = 0
        self._working = 0.0
        self._booked_s = 0.0
        self._call: int | None = None
        self._closed = False

    @property
    def workers(self) -> int:
        """How many there are."""
        return self._opening.workers

    @property
    def usage(self) -> Usage:
        """What was charged so far."""
        return Usage(prompt_tokens=self._paid_prompt, completion_tokens=self._tokens)

    async def advance(self, step: Pass) -> list[Drawn | None]:
        """One pass (see `WorkerGroup.advance`)."""
        if self._closed:
            raise UserError("these workers are closed", hint="open others")
        run, reading = self._run, sum(fed is not None for fed in step.feeds)
        with run.ledger.reserve(CostBound(tokens=reading, calls=1 if self._call is None else 0)):
            if self._call is None:
                self._call = self._begin()
            drawn = await self._stored(step)
            replayed = drawn is not None
            if drawn is None:
                drawn = await self._compute(step)
                self._keep(step, drawn)
            self._past.append(_Passed(step=step, drawn=tuple(drawn)))
            self._digest.update(step.model_dump_json().encode())
            self._charge(sum(d is not None for d in drawn), replayed)
        for worker, token in enumerate(drawn):
            if token is not None and run.wants_text:
                run.emit(TextDelta(request=worker, sample=0, text=token.text, tokens=1), parent=self._call)
        if len(self._fresh) >= STRETCH:
            await self._store()
        return drawn

    async def aclose(self) -> None:
        """Store what is not stored yet, tell what it took, and free what the workers hold; idempotent."""
        if not self._closed:
            self._closed = True
            await shielded(self._end())

    # -- from the store

    async def _stored(self, step: Pass) -> list[Drawn | None] | None:
        """What the store says of this pass; None if it says nothing, or if it knows another one here."""
        if self._group is not None or self._fresh:
            return None  # what comes after a pass that was not stored, is not stored
        if not self._replaying or self._replaying[0].step != step:
            found = await self._run.stored([key := self._key()])
            stretch = _STRETCH.validate_python(found[key].reply) if key in found else _Stretch(passes=())
            self._replaying = list(stretch.passes)
            if not self._replaying or self._replaying[0].step != step:
                self._replaying = []
                return None
            self._pay_prompt(stretch.prompt_tokens)
        return list(self._replaying.pop(0).drawn)

    def _key(self) -> str:
        """Key of the passes that follow on those so far."""
        asked: JsonValue = {
            "workers": self._opening.model_dump(mode="json", exclude={"seed"}),
            "after": self._digest.hexdigest(),
        }
        return call_key(self._meter.model.identity, asked, self._opening.seed, len(self._past))

    # -- from the model

    async def _compute(self, step: Pass) -> list[Drawn | None]:
        """Run the pass; before the first one, everything that was taken from the store."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._run.ledger.seconds_left()):
                if self._group is None:
                    self._group = await self._model.open_workers(self._opening)
                    for passed in self._past:
                        await self._group.advance(passed.step)
                return await self._group.advance(step)
        except TimeoutError:
            raise self._run.ledger.refuse("seconds") from None
        finally:
            self._working += time.monotonic() - started

    def _keep(self, step: Pass, drawn: list[Drawn | None]) -> None:
        if not self._fresh:
            self._fresh_key = self._key()
        self._fresh.append(_Passed(step=step, drawn=tuple(drawn)))

    async def _store(self) -> None:
        if not self._fresh:
            return
        owed = self._group.usage.prompt_tokens - self._paid_prompt if self._group is not None else 0
        self._pay_prompt(owed)
        stretch = _Stretch(passes=tuple(self._fresh), prompt_tokens=max(0, owed))
        call = StoredCall(
            key=self._fresh_key,
            role=self._meter.role,
            model=self._meter.model.name,
            request={"workers": self._opening.model_dump(mode="json"), "first": len(self._past) - len(self._fresh)},
            reply=stretch.model_dump(mode="json"),
        )
        await self._run.store.add_calls(self._run.id, [call])
        self._fresh = []
        if self._call is not None:
            self._tell_budget(self._call)
        await self._run.save_events()

    # -- budget and trace

    def _begin(self) -> int:
        call = self._run.emit(
            CallStarted(
                role=self._meter.role,
                model=self._meter.model.name,
                operation="workers",
                requests=self.workers,
                samples=self.workers,
                replayed=0,
            )
        )
        self._book(Usage(), calls=1)
        return call

    def _charge(self, tokens: int, replayed: bool) -> None:
        self._tokens += tokens
        self._replayed_tokens += tokens if replayed else 0
        self._book(Usage(completion_tokens=tokens), replayed_tokens=tokens if replayed else 0)

    def _pay_prompt(self, tokens: int) -> None:
        if tokens > 0:
            self._paid_prompt += tokens
            self._book(Usage(prompt_tokens=tokens))

    def _book(self, usage: Usage, *, calls: int = 0, replayed_calls: int = 0, replayed_tokens: int = 0) -> None:
        self._run.ledger.charge(
            self._meter.role,
            self._meter.model.name,
            usage,
            calls=calls,
            replayed_calls=replayed_calls,
            replayed_tokens=replayed_tokens,
            working_s=self._working - self._booked_s,
        )
        self._booked_s = self._working

    def _tell_budget(self, call: int) -> None:
        self._meter.tell_budget(call, self._tokens - self._told_tokens, 0 if self._told_tokens else 1)
        self._told_tokens = self._tokens

    async def _end(self) -> None:
        try:
            await self._store()
        finally:
            group, self._group = self._group, None
            if group is not None:
                with suppress(Exception):  # its engine may be closed, and then nothing is held
                    await group.aclose()
            if self._call is not None:
                self._book(Usage(), replayed_calls=1 if self._tokens == self._replayed_tokens else 0)
                self._meter.tell_end(self._call, self.usage, seconds=self._working)
                self._tell_budget(self._call)
                await self._run.save_events()
