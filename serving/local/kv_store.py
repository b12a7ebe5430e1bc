"""`LocalPrefixes`: the named prefixes of the embedded engine (`kv_store.KVStore`).

A pinned prefix is a sequence that stays under way in a log of its own, so that it is never evicted. Its columns stand
in the order of a prompt computed alone, and every call copies them as it would those of an earlier call's prompt: a
completion has the same bits with a pin and without. Files hold these columns as they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...core.errors import DataError, ReasonError, UnknownName, UserError
from ...core.messages import Prompt, Usage
from ..kv_store import Pinned, PrefixState, SavedPrefix, check_name
from ..model_files.downloads import Pulling, disk_errors, run_pull
from ..prefix_folder import PrefixFolder
from .config import Bounds, ModelShape
from .engine_thread import Call, Calls
from .prefix_cache import Sequenced
from .safetensors_file import read_layers, write_layers
from .tasks import AdoptTask, Held, HoldTask, ReleaseTask, Task
from .tokenizer import Tokenizer

LAYOUT = "local/1"
"""Per layer one tensor `[2, kv_heads, tokens, head_dim]`: keys, rotated at their absolute position, then values."""
FILE = "kv.safetensors"


@dataclass(frozen=True)
class _Pin:
    """A name, what holds its tokens in memory, and under which salt."""

    saved: SavedPrefix
    sequence: Sequenced

    @property
    def salt(self) -> str:
        """Prompts of which salt take it over."""
        return self.sequence.tree.salt


class _Box:
    """What the engine's thread holds for a caller who may be gone; it is given back unless it is taken.

    Args:
        calls: Where to give it back.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._closed = False

    def put(self, held: Held) -> None:
        """On the engine's thread: here it is."""
        with self._lock:
            if not self._closed:
                self._held = held
                return
        self._calls.leave([ReleaseTask([held.sequence])])

    @property
    def held(self) -> Held:
        """What was put, which is not taken yet."""
        if self._held is None:
            raise RuntimeError("nothing is held")
        return self._held

    def take(self) -> Sequenced:
        """The sequence; from now on it is the taker's to give back."""
        with self._lock:
            held = self.held
            self._held = None
        return held.sequence

    def close(self) -> None:
        """Give back what was not taken. Idempotent."""
        with self._lock:
            held, self._held, self._closed = self._held, None, True
        if held is not None:
            self._calls.leave([ReleaseTask([held.sequence])])


class LocalPrefixes:
    """Named prefixes of an engine, in memory and on disk.

    Args:
        calls: The engine.
        tokenizer: Its tokenizer.
        bounds: What fits it.
        shape: Sizes of its model.
        folder: Where the files are.
    """

    def __init__(
        self, calls: Calls, tokenizer: Tokenizer, bounds: Bounds, shape: ModelShape, folder: PrefixFolder
    ) -> None:
        self._calls, self._tokenizer, self._bounds, self._shape = calls, tokenizer, bounds, shape
        self._folder = folder
        self._pins: dict[str, _Pin] = {}
        self._lock = threading.Lock()

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        """See `KVStore.save`."""
        check_name(name)
        ids = tuple(self._tokenizer.prompt_ids(prompt))
        return await self._save(name, ids, prompt.cache_salt)

    async def restore(self, name: str, *, cache_salt: str = "") -> Pinned:
        """See `KVStore.restore`."""
        check_name(name)
        pin = self._pins.get(name)
        if pin is not None and pin.salt == cache_salt:
            return _untouched(pin.saved)
        return await self._adopt(name, cache_salt)

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = "") -> Pinned:
        """See `KVStore.fork`."""
        check_name(name)
        check_name(new_name)
        if name == new_name:
            raise UserError(f"prefix {name!r} cannot be forked to its own name", hint="give another one, or save it")
        added = tuple(self._tokenizer.encode(more)) if isinstance(more, str) else more
        base = (await self.restore(name, cache_salt=cache_salt)).saved
        return await self._save(new_name, (*base.token_ids, *added), cache_salt)

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """See `KVStore.drop`."""
        check_name(name)
        found = False

        def let_go() -> None:
            nonlocal found
            found = self._let_go(name)

        def work(cancel: threading.Event) -> None:
            if keep_file:
                let_go()
                there = found or self._folder.describe(name, cancel) is not None
            else:
                there = self._folder.remove(name, let_go, cancel) or found
            if not there:
                raise self._folder.unknown(name, self._names())

        await run_pull(work)

    async def saved(self) -> list[PrefixState]:
        """See `KVStore.saved`."""
        states = {s.saved.name: s for s in await run_pull(self._folder.states)}
        with self._lock:
            pins = dict(self._pins)
        for name, pin in pins.items():
            on_disk = states.get(name)
            if on_disk is not None and on_disk.saved.token_ids == pin.saved.token_ids:
                states[name] = on_disk.model_copy(update={"pinned": True})
            else:
                states[name] = PrefixState(saved=pin.saved, pinned=True, folder=None, used_at=0.0)
        return [states[name] for name in sorted(states)]

    # --- Within

    async def _save(self, name: str, ids: tuple[int, ...], salt: str) -> Pinned:
        """Save tokens under a name, for prompts of a salt."""
        self._bounds.check_ids(ids)
        self._bounds.check_length(len(ids), f"prefix {name!r} would")
        pin = self._pins.get(name)
        on_disk = await run_pull(lambda cancel: self._folder.describe(name, cancel))
        written = on_disk is not None and on_disk.token_ids == ids
        if pin is not None and pin.saved.token_ids == ids and pin.salt == salt:
            if written:
                return _untouched(pin.saved)
        elif written:
            with suppress(DataError, UnknownName):  # damaged, or gone since: it is computed again
                restored = await self._adopt(name, salt)
                if restored.saved.token_ids == ids:
                    return restored
        box = await self._held(lambda told, failed: HoldTask(ids=ids, told=told, failed=failed, salt=salt))
        try:
            usage = box.held.usage
            saved = await run_pull(lambda cancel: self._write(name, ids, box, cancel))
        finally:
            box.close()
        return Pinned(saved=saved, usage=usage)

    async def _adopt(self, name: str, salt: str) -> Pinned:
        """Read a name from disk and pin it, instead of what it holds now, unless that changes meanwhile."""
        before = self._pins.get(name)
        saved, layers = await run_pull(lambda cancel: self._folder.read(name, self._load, cancel))
        box = await self._held(
            lambda told, failed: AdoptTask(tokens=saved.token_ids, layers=layers, told=told, failed=failed, salt=salt)
        )
        try:
            if self._pins.get(name) is before:
                self._keep(saved, box)
        finally:
            box.close()
        return _untouched(saved)

    async def _held(self, make: Callable[[Callable[[Held], None], Callable[[ReasonError], None]], Task]) -> _Box:
        """Have the engine hold something; the box must be closed."""
        box = _Box(self._calls)
        call = Call(lambda _: call.finish())

        def told(held: Held) -> None:
            box.put(held)
            call.tell(None)

        call.tasks.append(make(told, call.tell))
        try:
            await self._calls.run(call)
        except (ReasonError, asyncio.CancelledError):
            box.close()
            raise
        return box

    def _write(self, name: str, ids: tuple[int, ...], box: _Box, cancel: threading.Event) -> SavedPrefix:
        """In a thread: write what is held, and keep it under the name."""
        layers = box.held.layers
        pinned = self._names()
        with self._folder.begin(name, sum(t.nbytes for t in layers), pinned, cancel) as attempt:
            with disk_errors(attempt.folder, "prefixes"):
                write_layers(attempt.folder / FILE, layers, Pulling(cancel=cancel))
            return self._folder.publish(
                attempt, ids, len(ids), pinned, lambda saved: self._keep(saved, box), cancel=cancel
            )

    def _load(self, saved: SavedPrefix, folder: Path) -> list[Tensor]:
        """In a thread: keys and values of a checked prefix."""
        count, shape = len(saved.token_ids), self._shape
        try:
            self._bounds.check_ids(saved.token_ids)
            self._bounds.check_length(count, f"prefix {saved.name!r} would")
        except UserError as e:
            raise DataError(f"prefix {saved.name!r} is damaged: {e.message}", hint="save it again") from e
        return read_layers(folder / FILE, shape.layers, (2, shape.kv_heads, count, shape.head_dim), saved.dtype)

    def _keep(self, saved: SavedPrefix, box: _Box) -> None:
        """Let a name hold what is in the box, and give back what it held."""
        with self._lock:
            old = self._pins.get(saved.name)
            self._pins[saved.name] = _Pin(saved, box.take())
        if old is not None:
            self._calls.leave([ReleaseTask([old.sequence])])

    def _let_go(self, name: str) -> bool:
        with self._lock:
            pin = self._pins.pop(name, None)
        if pin is None:
            return False
        self._calls.leave([ReleaseTask([pin.sequence])])
        return True

    def _names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._pins)


def _untouched(saved: SavedPrefix) -> Pinned:
    """Nothing had to be computed."""
    return Pinned(saved=saved, usage=Usage(prompt_tokens=len(saved.token_ids), cached_tokens=len(saved.token_ids)))
