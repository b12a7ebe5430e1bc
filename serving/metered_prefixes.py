"""`MeteredPrefixes`: named prefixes as a strategy sees them, with budget, run store and trace between the two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pydantic import JsonValue

from ..core.budget import Need
from ..core.errors import StoreError, UnknownName
from ..core.events import CallStarted
from ..core.messages import Prompt, Usage
from ..core.store import call_key
from .kv_store import KVStore, Pinned, PrefixState
from .meter import Meter


class MeteredPrefixes:
    """Named prefixes of a model in one role of one run. It is a `KVStore` itself, with the differences named here.

    Prompt tokens are charged that had to be computed. A pin is no model call: a run with a limit of calls comes as far
    with pins as without. What was done is recorded with the run. A resumed run does it again, since the engine may be
    another, and does not pay again; a run that is shown without its model takes it from the record.

    Args:
        store: The model's prefixes; None if the run is shown without its model.
        meter: What pays.

    Raises:
        LimitExceeded: By `save`, `restore` and `fork`, when the time is spent.
    """

    def __init__(self, store: KVStore | None, meter: Meter) -> None:
        self._store, self._meter = store, meter
        self._paid: set[str] = set()
        """What this run has paid for since it began or went on, by its key in the run store."""

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        """See `KVStore.save`."""
        asked: JsonValue = {"save_prefix": name, "prompt": prompt.model_dump(mode="json")}
        missing = StoreError(f"the store holds no record of the prefix {name!r}", hint="resume the run instead")
        return await self._charged("save_prefix", asked, lambda store: store.save(name, prompt), missing)

    async def restore(self, name: str) -> Pinned:
        """See `KVStore.restore`."""
        asked: JsonValue = {"restore_prefix": name}
        return await self._charged("restore_prefix", asked, lambda store: store.restore(name), _unknown(name))

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = ()) -> Pinned:
        """See `KVStore.fork`."""
        added: JsonValue = more if isinstance(more, str) else list(more)
        asked: JsonValue = {"fork_prefix": name, "new_name": new_name, "more": added}
        return await self._charged("fork_prefix", asked, lambda s: s.fork(name, new_name, more), _unknown(name))

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """See `KVStore.drop`. Without the model nothing is done."""
        if self._store is not None:
            await self._store.drop(name, keep_file=keep_file)

    async def saved(self) -> list[PrefixState]:
        """See `KVStore.saved`. Without the model there are none."""
        return [] if self._store is None else await self._store.saved()

    async def _charged(
        self,
        operation: str,
        asked: JsonValue,
        act: Callable[[KVStore], Awaitable[Pinned]],
        missing: StoreError | UnknownName,
    ) -> Pinned:
        """Do it, or take it from the record; charge what had to be computed.

        Args:
            operation: Its name in the trace.
            asked: What is asked, which names the record.
            act: Does it.
            missing: What is raised without a model and without a record: that it was not done, or failed.
        """
        meter, run = self._meter, self._meter.run
        key = call_key(meter.model.identity, [meter.role, asked], None, 0)
        with run.ledger.reserve(Need()):
            record = (await run.stored([key])).get(key)
            known = None if record is None else Pinned.model_validate(record.reply)
            call = run.emit(
                CallStarted(
                    role=meter.role,
                    model=meter.model.name,
                    operation=operation,
                    requests=1,
                    samples=0,
                    replayed=0,
                )
            )
            started = time.monotonic()
            try:
                if self._store is not None:
                    async with asyncio.timeout(run.ledger.seconds_left()):
                        made = await act(self._store)
                elif known is not None:
                    made = known
                else:
                    raise missing
            except TimeoutError:
                raise run.ledger.refuse("seconds") from None
            if known is None:
                stored = meter.measured_call(key, asked, made.model_dump(mode="json"))
                await run.store.add_calls(run.id, [stored])
            usage = self._due(key, made, known)
            meter.charge(call, usage, calls=0, replayed_calls=0, seconds=time.monotonic() - started)
            await run.save_events()
        return made

    def _due(self, key: str, made: Pinned, known: Pinned | None) -> Usage:
        """What is to be charged: the first time in a run that goes on or is shown, what was paid for it then."""
        again = key in self._paid
        self._paid.add(key)
        if again:
            return Usage() if self._store is None else _computed(made.usage)
        return _computed((known or made).usage)


def _computed(usage: Usage) -> Usage:
    """What was computed: a prefix that was there already is no hit of a prompt."""
    return usage.model_copy(update={"prompt_tokens": usage.prompt_tokens - usage.cached_tokens, "cached_tokens": 0})


def _unknown(name: str) -> UnknownName:
    return UnknownName("prefix", name, hint="the run that is shown found none either")
