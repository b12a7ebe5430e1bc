"""`MeteredPrefixes`: named prefixes as a strategy sees them, with budget, run store and trace between the two."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

from pydantic import JsonValue

from ..core.budget import CostBound
from ..core.errors import StoreError, UnknownName
from ..core.events import CallStarted
from ..core.messages import Prompt, Usage
from ..core.store import call_key
from .kv_store import MOST_NAME_CHARS, KVStore, Pinned, PrefixState, check_name
from .metered.model import Meter


class MeteredPrefixes:
    """Named prefixes of a model in one role of one run. It is a `KVStore` itself, with the differences named here.

    Prompt tokens are charged that had to be computed. A pin is no model call: a run with a limit of calls comes as far
    with pins as without. What was done is recorded with the run. A resumed run does it again, since the engine may be
    another, and does not pay again; a run that is shown without its model takes it from the record.

    The names of a tenant's runs are its own: in the engine and on disk they carry its mark, so that no tenant gets at
    another's prefixes, and none learns which there are.

    Args:
        store: The model's prefixes; None if the run is shown without its model.
        meter: What pays.

    Raises:
        LimitExceeded: By `save`, `restore` and `fork`, when the time is spent.
    """

    def __init__(self, store: KVStore | None, meter: Meter) -> None:
        self._store, self._meter, self._tenant = store, meter, meter.run.config.tenant
        self._paid: set[str] = set()
        """What this run has paid for since it began or went on, by its key in the run store."""

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        """See `KVStore.save`."""
        asked: JsonValue = {"save_prefix": name, "prompt": prompt.model_dump(mode="json")}
        missing = StoreError(f"the store holds no record of the prefix {name!r}", hint="resume the run instead")
        own, salted = self._own(name), prompt.salted(self._tenant)
        return await self._charged("save_prefix", asked, lambda store: store.save(own, salted), missing)

    async def restore(self, name: str, *, cache_salt: str = "") -> Pinned:
        """See `KVStore.restore`; a run's tenant stands in the place of any salt."""
        asked: JsonValue = {"restore_prefix": name}
        own, salt = self._own(name), self._tenant or cache_salt
        return await self._charged(
            "restore_prefix", asked, lambda store: store.restore(own, cache_salt=salt), _unknown(name)
        )

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = "") -> Pinned:
        """See `KVStore.fork`; likewise."""
        added: JsonValue = more if isinstance(more, str) else list(more)
        asked: JsonValue = {"fork_prefix": name, "new_name": new_name, "more": added}
        own, new, salt = self._own(name), self._own(new_name), self._tenant or cache_salt
        return await self._charged(
            "fork_prefix", asked, lambda s: s.fork(own, new, more, cache_salt=salt), _unknown(name)
        )

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """See `KVStore.drop`. Without the model nothing is done."""
        if self._store is not None:
            await self._store.drop(self._own(name), keep_file=keep_file)

    async def saved(self) -> list[PrefixState]:
        """See `KVStore.saved`, of the run's tenant alone. Without the model there are none."""
        if self._store is None:
            return []
        found = await self._store.saved()
        return [s for s in found if s.saved.name.endswith(_mark(self._tenant))] if self._tenant else found

    def _own(self, name: str) -> str:
        """A name as the engine and the disk have it; too long a one is told by a sum of it.

        Raises:
            UserError: The name is not allowed.
        """
        check_name(name)
        if not self._tenant:
            return name
        mark = _mark(self._tenant)
        short = name if len(name) + len(mark) <= MOST_NAME_CHARS else hashlib.sha256(name.encode()).hexdigest()[:32]
        return short + mark

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
        with run.ledger.reserve(CostBound()):
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


def _mark(tenant: str) -> str:
    """Behind every name of a tenant's."""
    return f".of-{hashlib.sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _computed(usage: Usage) -> Usage:
    """What was computed: a prefix that was there already is no hit of a prompt."""
    return usage.model_copy(update={"prompt_tokens": usage.prompt_tokens - usage.cached_tokens, "cached_tokens": 0})


def _unknown(name: str) -> UnknownName:
    return UnknownName("prefix", name, hint="the run that is shown found none either")
