"""`LocalKVStore`: the saved prefixes of the embedded engine (`kv_store.KVStore`).

A pinned prefix is a sequence that stays in a KV cache of its own, so that it is never evicted. Its slots are in the
order of a prompt computed by itself, and every call copies them as it would those of an earlier call's prompt: a
completion has the same bits with a pin and without. Files hold these slots as they are.
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
from ..kv_store import PinResult, PrefixState, SavedPrefix, check_name
from ..model_files.downloads import PullTask, disk_errors, run_pull
from ..prefix_directory import PrefixDirectory
from .config import ContextLimits, ModelConfig
from .engine_thread import CallQueue, PendingCall
from .prefix_cache import CachedSequence
from .safetensors_file import read_layers, write_layers
from .tasks import LoadPrefixTask, PinnedPrefix, PinTask, Task, UnpinTask
from .tokenizer import Tokenizer

LAYOUT = "local/1"
"""Per layer one tensor `[2, num_kv_heads, tokens, head_dim]`: keys, rotated at their absolute position, then values."""
FILE = "kv.safetensors"


@dataclass(frozen=True)
class _NamedPin:
    """A name, and the pinned sequence of its tokens."""

    saved: SavedPrefix
    sequence: CachedSequence

    @property
    def salt(self) -> str:
        """The salt of the prompts that reuse it."""
        return self.sequence.tree.salt


class _PinGuard:
    """Unpins a prefix unless it is claimed, even if its caller has been cancelled."""

    def __init__(self, calls: CallQueue) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._prefix: PinnedPrefix | None = None
        self._closed = False

    def put(self, prefix: PinnedPrefix) -> None:
        """On the engine's thread: guard a prefix."""
        with self._lock:
            if not self._closed:
                self._prefix = prefix
                return
        self._calls.submit_detached([UnpinTask([prefix.sequence])])

    @property
    def prefix(self) -> PinnedPrefix:
        """The guarded prefix, which is not claimed yet."""
        if self._prefix is None:
            raise RuntimeError("no prefix is guarded")
        return self._prefix

    def take(self) -> CachedSequence:
        """The sequence, which the caller must unpin."""
        with self._lock:
            prefix = self.prefix
            self._prefix = None
        return prefix.sequence

    def close(self) -> None:
        """Unpin what was not claimed; idempotent."""
        with self._lock:
            prefix, self._prefix, self._closed = self._prefix, None, True
        if prefix is not None:
            self._calls.submit_detached([UnpinTask([prefix.sequence])])


class LocalKVStore:
    """Saved prefixes of an engine, in memory and on disk."""

    def __init__(
        self,
        calls: CallQueue,
        tokenizer: Tokenizer,
        limits: ContextLimits,
        config: ModelConfig,
        directory: PrefixDirectory,
    ) -> None:
        self._calls, self._tokenizer, self._limits, self._config = calls, tokenizer, limits, config
        self._directory = directory
        self._pins: dict[str, _NamedPin] = {}
        self._lock = threading.Lock()

    async def save(self, name: str, prompt: Prompt) -> PinResult:
        check_name(name)
        token_ids = tuple(self._tokenizer.prompt_ids(prompt))
        return await self._save(name, token_ids, prompt.cache_salt)

    async def restore(self, name: str, *, cache_salt: str = "") -> PinResult:
        check_name(name)
        pin = self._pins.get(name)
        if pin is not None and pin.salt == cache_salt:
            return _unchanged(pin.saved)
        return await self._load_and_pin(name, cache_salt)

    async def fork(
        self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = ""
    ) -> PinResult:
        check_name(name)
        check_name(new_name)
        if name == new_name:
            raise UserError(f"prefix {name!r} cannot be forked to its own name", hint="give another one, or save it")
        added = tuple(self._tokenizer.encode(more)) if isinstance(more, str) else more
        base = (await self.restore(name, cache_salt=cache_salt)).saved
        return await self._save(new_name, (*base.token_ids, *added), cache_salt)

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        check_name(name)
        was_pinned = False

        def unpin() -> None:
            nonlocal was_pinned
            was_pinned = self._unpin(name)

        def work(cancel: threading.Event) -> None:
            if keep_file:
                unpin()
                exists = was_pinned or self._directory.describe(name, cancel) is not None
            else:
                exists = self._directory.remove(name, unpin, cancel) or was_pinned
            if not exists:
                raise self._directory.unknown(name, self._pinned_names())

        await run_pull(work)

    async def saved(self) -> list[PrefixState]:
        states = {s.saved.name: s for s in await run_pull(self._directory.states)}
        with self._lock:
            pins = dict(self._pins)
        for name, pin in pins.items():
            on_disk = states.get(name)
            if on_disk is not None and on_disk.saved.token_ids == pin.saved.token_ids:
                states[name] = on_disk.model_copy(update={"pinned": True})
            else:
                states[name] = PrefixState(saved=pin.saved, pinned=True, directory=None, used_at=0.0)
        return [states[name] for name in sorted(states)]

    async def _save(self, name: str, token_ids: tuple[int, ...], salt: str) -> PinResult:
        """Save tokens under a name, for prompts of a salt."""
        self._limits.check_token_ids(token_ids)
        self._limits.check_length(len(token_ids), f"prefix {name!r} would")
        pin = self._pins.get(name)
        on_disk = await run_pull(lambda cancel: self._directory.describe(name, cancel))
        is_written = on_disk is not None and on_disk.token_ids == token_ids
        if pin is not None and pin.saved.token_ids == token_ids and pin.salt == salt:
            if is_written:
                return _unchanged(pin.saved)
        elif is_written:
            with suppress(DataError, UnknownName):  # damaged, or gone since: it is computed again
                restored = await self._load_and_pin(name, salt)
                if restored.saved.token_ids == token_ids:
                    return restored
        guard = await self._run(lambda on_result, on_error: PinTask(token_ids, on_result, on_error, salt))
        try:
            usage = guard.prefix.usage
            saved = await run_pull(lambda cancel: self._write(name, token_ids, guard, cancel))
        finally:
            guard.close()
        return PinResult(saved=saved, usage=usage)

    async def _load_and_pin(self, name: str, salt: str) -> PinResult:
        """Read a name from disk and pin it instead of the name's current prefix, unless that changes meanwhile."""
        before = self._pins.get(name)
        saved, layers = await run_pull(lambda cancel: self._directory.read(name, self._load, cancel))
        guard = await self._run(
            lambda on_result, on_error: LoadPrefixTask(saved.token_ids, layers, on_result, on_error, salt)
        )
        try:
            if self._pins.get(name) is before:
                self._keep(saved, guard)
        finally:
            guard.close()
        return _unchanged(saved)

    async def _run(
        self, create: Callable[[Callable[[PinnedPrefix], None], Callable[[ReasonError], None]], Task]
    ) -> _PinGuard:
        """Have the engine pin something; the guard must be closed."""
        guard = _PinGuard(self._calls)
        call = PendingCall(lambda _: call.finish())

        def on_result(prefix: PinnedPrefix) -> None:
            guard.put(prefix)
            call.emit(None)

        call.tasks.append(create(on_result, call.emit))
        try:
            await self._calls.run(call)
        except (ReasonError, asyncio.CancelledError):
            guard.close()
            raise
        return guard

    def _write(self, name: str, token_ids: tuple[int, ...], guard: _PinGuard, cancel: threading.Event) -> SavedPrefix:
        """In a thread: write the guarded prefix, and pin it under the name."""
        layers = guard.prefix.layers
        pinned = self._pinned_names()
        with self._directory.begin(name, sum(t.nbytes for t in layers), pinned, cancel) as writer:
            with disk_errors(writer.directory, "prefixes"):
                write_layers(writer.directory / FILE, layers, PullTask(cancel=cancel))
            return self._directory.publish(
                writer, token_ids, len(token_ids), pinned, lambda saved: self._keep(saved, guard), cancel=cancel
            )

    def _load(self, saved: SavedPrefix, directory: Path) -> list[Tensor]:
        """In a thread: keys and values of a checked prefix."""
        count, config = len(saved.token_ids), self._config
        try:
            self._limits.check_token_ids(saved.token_ids)
            self._limits.check_length(count, f"prefix {saved.name!r} would")
        except UserError as e:
            raise DataError(f"prefix {saved.name!r} is damaged: {e.message}", hint="save it again") from e
        shape = (2, config.num_kv_heads, count, config.head_dim)
        return read_layers(directory / FILE, config.num_layers, shape, saved.dtype)

    def _keep(self, saved: SavedPrefix, guard: _PinGuard) -> None:
        """Pin the guarded prefix under its name, and unpin the name's earlier prefix."""
        with self._lock:
            old = self._pins.get(saved.name)
            self._pins[saved.name] = _NamedPin(saved, guard.take())
        if old is not None:
            self._calls.submit_detached([UnpinTask([old.sequence])])

    def _unpin(self, name: str) -> bool:
        with self._lock:
            pin = self._pins.pop(name, None)
        if pin is None:
            return False
        self._calls.submit_detached([UnpinTask([pin.sequence])])
        return True

    def _pinned_names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._pins)


def _unchanged(saved: SavedPrefix) -> PinResult:
    """Nothing had to be computed."""
    return PinResult(saved=saved, usage=Usage(prompt_tokens=len(saved.token_ids), cached_tokens=len(saved.token_ids)))
