"""`VllmPrefixes`: named prefixes on vLLM: what is pinned in the engine, and what lies on disk.

The engine's half is our KV connector. This half keeps the names: it opens the folders that the connector writes to and
reads from, publishes what is complete, and knows under which of the engine's pins a name is held. vLLM reuses whole
blocks alone, so of a prefix the whole blocks are kept, and the few tokens behind them are computed again with every
prompt.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    DataError,
    ReasonError,
    UnknownName,
    UserError,
)
from ...core.messages import Prompt, Usage
from ..kv_store import Pinned, PrefixState, PrefixTooLarge, SavedPrefix, check_name
from ..model_files.downloads import run_pull
from ..prefix_folder import DESCRIPTION, Attempt, PrefixFolder
from .generation import outputs_of
from .kv_transfer import Ask, Told

_ERRORS: dict[str, type[ReasonError]] = {
    e.code: e for e in (UserError, PrefixTooLarge, DataError, BackendUnavailable, BackendError)
}


@dataclass(frozen=True)
class Host:
    """What named prefixes need of the model they belong to.

    Attributes:
        engine: vLLM's `AsyncLLM`; raises once it is closed.
        run: Runs work as the model's own: its errors are translated, and it is cancelled when the model is closed.
        ids_of: Tokens of a prompt.
        encode: Tokens of a text by itself.
        check_ids: Refuses tokens that the vocabulary does not have.
        context_tokens: Tokens that fit.
        block_tokens: Tokens in a block.
        block_bytes: Bytes of a block.
    """

    engine: Callable[[], Any]
    run: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
    ids_of: Callable[[Prompt], Sequence[int]]
    encode: Callable[[str], Sequence[int]]
    check_ids: Callable[[Sequence[int]], None]
    context_tokens: int
    block_tokens: int
    block_bytes: int


@dataclass(frozen=True)
class _Held:
    """A prefix that the engine holds under a pin of its own."""

    saved: SavedPrefix
    pin: str
    salt: str = ""


async def describe(engine: Any) -> Told | None:
    """How an engine keeps blocks; None if it has no connector of ours."""
    told, _ = await ask_engine(engine, (0,), Ask(describe=True), 1)
    return told


async def ask_engine(
    engine: Any, ids: Sequence[int], ask: Ask, max_tokens: int, salt: str = ""
) -> tuple[Told | None, Usage]:
    """Send a request that asks something of the connector.

    Args:
        engine: vLLM's `AsyncLLM`.
        ids: The prompt.
        ask: What is asked.
        max_tokens: Tokens to generate: 1, or 2 where the workers' report is waited for.
        salt: Requests with the same one alone take over what it computes or reads.

    Returns:
        The connector's answer, and the request's tokens.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={"kv_transfer_params": ask.params()},
    )
    last: Any = None
    async with aclosing(outputs_of(engine, ids, params, f"reason-kv-{uuid.uuid4().hex}", salt=salt)) as outputs:
        async for output in outputs:
            last = output
    if last is None:
        raise BackendError("vLLM gave a request for a named prefix up")
    usage = Usage(prompt_tokens=len(ids), cached_tokens=last.num_cached_tokens or 0, completion_tokens=max_tokens)
    return Told.of(last.kv_transfer_params), usage


class VllmPrefixes:
    """The named prefixes of a model on vLLM (see `KVStore`).

    Operations run one at a time.

    Args:
        folder: What lies on disk.
        host: The model.
    """

    def __init__(self, folder: PrefixFolder, host: Host) -> None:
        self._folder, self._host = folder, host
        self._held: dict[str, _Held] = {}
        self._turn = asyncio.Lock()

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        """See `KVStore.save`. A prompt must fill a block."""
        check_name(name)
        ids = tuple(self._host.ids_of(prompt))
        async with self._turn:
            return await self._save(name, ids, prompt.cache_salt)

    async def restore(self, name: str, *, cache_salt: str = "") -> Pinned:
        """See `KVStore.restore`."""
        check_name(name)
        async with self._turn:
            return await self._restore(name, cache_salt)

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = "") -> Pinned:
        """See `KVStore.fork`."""
        check_name(name)
        if check_name(new_name) == name:
            raise UserError(f"{name!r} cannot be forked to its own name")
        further = tuple(self._host.encode(more) if isinstance(more, str) else more)
        self._host.check_ids(further)
        async with self._turn:
            base = (await self._restore(name, cache_salt)).saved
            return await self._save(new_name, base.token_ids + further, cache_salt)

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """See `KVStore.drop`."""
        check_name(name)
        async with self._turn:
            held = self._held.get(name)
            if keep_file:
                if held is None and await self._described(name) is None:
                    raise self._folder.unknown(name, list(self._held))
                self._held.pop(name, None)
            else:
                there = await run_pull(
                    lambda cancel: self._folder.remove(name, lambda: _forget(self._held, name), cancel)
                )
                if not there and held is None:
                    raise self._folder.unknown(name, list(self._held))
            if held is not None:
                await self._give_back(held.pin)

    async def saved(self) -> list[PrefixState]:
        """See `KVStore.saved`."""
        found = {s.saved.name: s for s in await run_pull(lambda cancel: self._folder.states(cancel))}
        for name, held in self._held.items():
            if name in found and found[name].saved.token_ids == held.saved.token_ids:
                found[name] = found[name].model_copy(update={"pinned": True})
            else:
                found[name] = PrefixState(saved=held.saved, pinned=True, folder=None, used_at=0.0)
        return [found[name] for name in sorted(found)]

    # -- within, in turn

    async def _save(self, name: str, ids: tuple[int, ...], salt: str) -> Pinned:
        blocks = self._check(name, ids)
        described = await self._described(name)
        held = self._held.get(name)
        if described is not None and described.token_ids == ids:
            if held is not None and held.saved.token_ids == ids and held.salt == salt:
                return _pinned(held.saved)
            if held is None or held.salt != salt:
                try:
                    return await self._restore(name, salt)
                except (DataError, UnknownName):
                    pass  # damaged, or gone since: it is computed and written again
        pinned = self._others(name)
        async with _Folder(self._folder, name, blocks * self._host.block_bytes, pinned) as attempt:
            pin = f"{name}={uuid.uuid4().hex}"
            try:
                usage, _ = await self._ask(ids, Ask(write=str(attempt.folder), pin=pin), 2, salt)
                stored = blocks * self._host.block_tokens

                def publish(cancel: threading.Event) -> SavedPrefix:
                    def keep(saved: SavedPrefix) -> None:
                        self._held[name] = _Held(saved, pin, salt)

                    return self._folder.publish(attempt, ids, stored, pinned, keep, cancel)

                saved = await run_pull(publish)
            except BaseException:
                await self._undo(name, pin)
                raise
        if held is not None:
            await self._give_back(held.pin)
        return Pinned(saved=saved, usage=usage)

    async def _restore(self, name: str, salt: str) -> Pinned:
        if (held := self._held.get(name)) is not None and held.salt == salt:
            return _pinned(held.saved)
        if await self._described(name) is None:
            # Nothing of ours: the error says what there is instead.
            await run_pull(lambda cancel: self._folder.read(name, lambda saved, place: None, cancel))
        async with _Folder(self._folder, name, 0, self._others(name)) as attempt:
            saved, _ = await run_pull(
                lambda cancel: self._folder.read(name, lambda saved, place: _link(saved, place, attempt.folder), cancel)
            )
            ids = saved.token_ids
            prompt = [*ids[: saved.stored], *(ids[saved.stored : saved.stored + 1] or (0,))]
            blocks = self._check(name, prompt)
            pin = f"{name}={uuid.uuid4().hex}"
            try:
                _, told = await self._ask(prompt, Ask(read=str(attempt.folder), pin=pin), 1, salt)
                if told.pinned_blocks != blocks:
                    raise BackendError(f"vLLM pinned {told.pinned_blocks} blocks of {blocks} of prefix {name!r}")
                self._held[name] = _Held(saved, pin, salt)
            except BaseException:
                await self._undo(name, pin)
                raise
        if held is not None:
            await self._give_back(held.pin)
        usage = Usage(prompt_tokens=len(ids), cached_tokens=saved.stored, completion_tokens=1)
        return Pinned(saved=saved, usage=usage)

    async def _ask(self, ids: Sequence[int], ask: Ask, max_tokens: int, salt: str = "") -> tuple[Usage, Told]:
        """Send a request to the connector, and raise what it says went wrong."""
        told, usage = await self._host.run(ask_engine(self._host.engine(), ids, ask, max_tokens, salt))
        if told is None:
            raise BackendError("vLLM runs without the connector of named prefixes")
        if told.code:
            raise _ERRORS.get(told.code, BackendError)(told.message)
        return usage, told

    async def _undo(self, name: str, pin: str) -> None:
        """Give a pin back, unless the name has it."""
        held = self._held.get(name)
        if held is None or held.pin != pin:
            await self._give_back(pin)

    async def _give_back(self, pin: str) -> None:
        """Have the engine give up a pin. When it answers, it works on no request for that pin any more."""
        work = asyncio.ensure_future(self._ask((0,), Ask(unpin=(pin,)), 1))
        try:
            await asyncio.shield(work)
        except ReasonError:
            return  # the engine is gone, and the pin with it
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def _described(self, name: str) -> SavedPrefix | None:
        return await run_pull(lambda cancel: self._folder.describe(name, cancel))

    def _others(self, name: str) -> list[str]:
        return [n for n in self._held if n != name]

    def _check(self, name: str, ids: Sequence[int]) -> int:
        """Whole blocks of a prefix."""
        self._host.check_ids(ids)
        if len(ids) + 2 > self._host.context_tokens:
            raise ContextTooLong(
                f"prefix {name!r} of {len(ids)} tokens and two tokens more do not fit into {self._host.context_tokens}",
                tokens=len(ids) + 2,
                limit=self._host.context_tokens,
                hint="shorten it, or raise the setting vllm.max_model_len",
            )
        blocks = len(ids) // self._host.block_tokens
        if not blocks:
            raise UserError(
                f"prefix {name!r} has {len(ids)} tokens; vLLM keeps whole blocks of {self._host.block_tokens}",
                hint="so short a prefix is computed as fast as it is looked up",
            )
        return blocks


class _Folder:
    """A folder that the connector may write to or read from, for a while. It is opened and removed off the loop."""

    def __init__(self, folder: PrefixFolder, name: str, nbytes: int, pinned: Sequence[str]) -> None:
        self._arguments = folder, name, nbytes, pinned
        self._attempt: Attempt | None = None

    async def __aenter__(self) -> Attempt:
        folder, name, nbytes, pinned = self._arguments
        self._attempt = await run_pull(lambda cancel: folder.begin(name, nbytes, pinned, cancel), _end)
        return self._attempt

    async def __aexit__(self, *exception: object) -> None:
        if self._attempt is not None:
            await asyncio.shield(asyncio.ensure_future(_end(self._attempt)))


async def _end(attempt: Attempt) -> None:
    await asyncio.to_thread(attempt.__exit__, None, None, None)


def _link(saved: SavedPrefix, place: Path, target: Path) -> None:
    """Give the files of a prefix a second place, where they stay when the name is replaced meanwhile."""
    for name in (DESCRIPTION, *(f.name for f in saved.files)):
        try:
            os.link(place / name, target / name)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(place / name, target / name)


def _forget(held: dict[str, _Held], name: str) -> None:
    held.pop(name, None)


def _pinned(saved: SavedPrefix) -> Pinned:
    count = len(saved.token_ids)
    return Pinned(saved=saved, usage=Usage(prompt_tokens=count, cached_tokens=count))
