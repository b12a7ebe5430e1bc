"""`VllmKVStore`: saved prefixes on vLLM: what is pinned in the engine, and what is on disk.

The engine's half is our KV connector. This half keeps the names: it creates the directories that the connector writes
to and reads from, publishes what is complete, and records the engine's pin of each name. vLLM reuses
only full blocks, so of a prefix the full blocks are saved, and the few tokens after them are computed again with every
prompt.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import BackendError, BackendUnavailable, DataError, ReasonError, UnknownName, UserError
from ...core.messages import Prompt, Usage
from ..kv_store import PinResult, PrefixState, PrefixTooLarge, SavedPrefix, check_name
from ..local.config import ContextLimits
from ..model_files.downloads import run_pull
from ..prefix_directory import DESCRIPTION, PrefixDirectory, PrefixWriter
from .generation import last_output
from .kv_transfer import TransferRequest, TransferResponse

_ERRORS: dict[str, type[ReasonError]] = {
    e.code: e for e in (UserError, PrefixTooLarge, DataError, BackendUnavailable, BackendError)
}


@dataclass(frozen=True)
class KVStoreHost:
    """What saved prefixes need of the model they belong to.

    Attributes:
        engine: Returns vLLM's `AsyncLLM`; raises once it is closed.
        run: Runs work as the model's own: its errors are translated, and it is cancelled when the model is closed.
        prompt_ids: Tokens of a prompt.
        encode: Tokens of a text by itself.
        limits: What fits the engine.
        block_bytes: Bytes of a block.
        report_tokens: Tokens of a request by whose end the workers' report of its first step has come.
    """

    engine: Callable[[], Any]
    run: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
    prompt_ids: Callable[[Prompt], Sequence[int]]
    encode: Callable[[str], Sequence[int]]
    limits: ContextLimits
    block_tokens: int
    block_bytes: int
    report_tokens: int


@dataclass(frozen=True)
class _EnginePin:
    """A prefix that is pinned in the engine."""

    saved: SavedPrefix
    pin: str
    salt: str = ""


def report_tokens(speculative_config: Any) -> int:
    """Tokens of a request by whose end the workers' report of its first step has come.

    It comes with that step's output, which is read once its tokens have been: so a second step must follow. With
    speculative decoding vLLM finishes a step's transfers after its report, which then comes one step later; and a step
    may have all of its draft tokens and one more.

    Args:
        speculative_config: vLLM's `SpeculativeConfig`; None without speculative decoding.
    """
    return 2 if speculative_config is None else 3 + int(speculative_config.num_speculative_tokens)


async def describe_engine(engine: Any) -> TransferResponse | None:
    """How an engine stores blocks; None if it has no connector of ours."""
    response, _ = await transfer(engine, (0,), TransferRequest(describe=True), 1)
    return response


async def transfer(
    engine: Any, token_ids: Sequence[int], request: TransferRequest, max_tokens: int, salt: str = ""
) -> tuple[TransferResponse | None, Usage]:
    """Send a request with parameters for the connector.

    Args:
        max_tokens: Tokens to generate: 1, or `report_tokens` where the workers' report is waited for.
        salt: Only requests with the same one reuse what it computes or reads.

    Returns:
        The connector's response, and the request's tokens.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={"kv_transfer_params": request.params()},
    )
    last = await last_output(engine, token_ids, params, f"reason-kv-{uuid.uuid4().hex}", salt=salt)
    if last is None:
        raise BackendError("vLLM aborted a request for a saved prefix")
    cached = last.num_cached_tokens or 0
    usage = Usage(prompt_tokens=len(token_ids), cached_tokens=cached, completion_tokens=max_tokens)
    return TransferResponse.from_params(last.kv_transfer_params), usage


class VllmKVStore:
    """The saved prefixes of a model on vLLM (see `KVStore`). Operations run one at a time."""

    def __init__(self, directory: PrefixDirectory, host: KVStoreHost) -> None:
        self._directory, self._host = directory, host
        self._pins: dict[str, _EnginePin] = {}
        self._lock = asyncio.Lock()

    async def save(self, name: str, prompt: Prompt) -> PinResult:
        check_name(name)
        token_ids = tuple(self._host.prompt_ids(prompt))
        async with self._lock:
            return await self._save(name, token_ids, prompt.cache_salt)

    async def restore(self, name: str, *, cache_salt: str = "") -> PinResult:
        check_name(name)
        async with self._lock:
            return await self._restore(name, cache_salt)

    async def fork(
        self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = ""
    ) -> PinResult:
        check_name(name)
        if check_name(new_name) == name:
            raise UserError(f"{name!r} cannot be forked to its own name")
        added = tuple(self._host.encode(more) if isinstance(more, str) else more)
        self._host.limits.check_token_ids(added)
        async with self._lock:
            base = (await self._restore(name, cache_salt)).saved
            return await self._save(new_name, base.token_ids + added, cache_salt)

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        check_name(name)
        async with self._lock:
            pinned = self._pins.get(name)
            if keep_file:
                if pinned is None and await self._description(name) is None:
                    raise self._directory.unknown(name, list(self._pins))
                self._pins.pop(name, None)
            else:
                existed = await run_pull(
                    lambda cancel: self._directory.remove(name, lambda: _discard(self._pins, name), cancel)
                )
                if not existed and pinned is None:
                    raise self._directory.unknown(name, list(self._pins))
            if pinned is not None:
                await self._unpin(pinned.pin)

    async def saved(self) -> list[PrefixState]:
        states = {s.saved.name: s for s in await run_pull(lambda cancel: self._directory.states(cancel))}
        for name, pinned in self._pins.items():
            if name in states and states[name].saved.token_ids == pinned.saved.token_ids:
                states[name] = states[name].model_copy(update={"pinned": True})
            else:
                states[name] = PrefixState(saved=pinned.saved, pinned=True, directory=None, used_at=0.0)
        return [states[name] for name in sorted(states)]

    # -- within, under the lock

    async def _save(self, name: str, token_ids: tuple[int, ...], salt: str) -> PinResult:
        num_blocks = self._num_blocks(name, token_ids)
        description = await self._description(name)
        pinned = self._pins.get(name)
        if description is not None and description.token_ids == token_ids:
            if pinned is not None and pinned.saved.token_ids == token_ids and pinned.salt == salt:
                return _unchanged(pinned.saved)
            if pinned is None or pinned.salt != salt:
                try:
                    return await self._restore(name, salt)
                except (DataError, UnknownName):
                    pass  # damaged, or gone since: it is computed and written again
        others = self._other_names(name)
        async with _TemporaryDirectory(self._directory, name, num_blocks * self._host.block_bytes, others) as writer:
            pin = f"{name}={uuid.uuid4().hex}"
            try:
                request = TransferRequest(write=str(writer.directory), pin=pin)
                usage, _ = await self._transfer(token_ids, request, self._host.report_tokens, salt)
                stored = num_blocks * self._host.block_tokens

                def publish(cancel: threading.Event) -> SavedPrefix:
                    def keep(saved: SavedPrefix) -> None:
                        self._pins[name] = _EnginePin(saved, pin, salt)

                    return self._directory.publish(writer, token_ids, stored, others, keep, cancel)

                saved = await run_pull(publish)
            except BaseException:
                await self._undo(name, pin)
                raise
        if pinned is not None:
            await self._unpin(pinned.pin)
        return PinResult(saved=saved, usage=usage)

    async def _restore(self, name: str, salt: str) -> PinResult:
        if (pinned := self._pins.get(name)) is not None and pinned.salt == salt:
            return _unchanged(pinned.saved)
        if await self._description(name) is None:
            # No prefix of this model: reading it raises what there is instead.
            await run_pull(lambda cancel: self._directory.read(name, lambda saved, directory: None, cancel))
        async with _TemporaryDirectory(self._directory, name, 0, self._other_names(name)) as writer:

            def link(cancel: threading.Event) -> tuple[SavedPrefix, None]:
                return self._directory.read(
                    name, lambda saved, directory: _link(saved, directory, writer.directory), cancel
                )

            saved, _ = await run_pull(link)
            token_ids = saved.token_ids
            prompt_ids = [*token_ids[: saved.stored], *(token_ids[saved.stored : saved.stored + 1] or (0,))]
            num_blocks = self._num_blocks(name, prompt_ids)
            pin = f"{name}={uuid.uuid4().hex}"
            try:
                _, response = await self._transfer(
                    prompt_ids, TransferRequest(read=str(writer.directory), pin=pin), 1, salt
                )
                if response.pinned_blocks != num_blocks:
                    raise BackendError(
                        f"vLLM pinned {response.pinned_blocks} blocks of {num_blocks} of prefix {name!r}"
                    )
                self._pins[name] = _EnginePin(saved, pin, salt)
            except BaseException:
                await self._undo(name, pin)
                raise
        if pinned is not None:
            await self._unpin(pinned.pin)
        usage = Usage(prompt_tokens=len(token_ids), cached_tokens=saved.stored, completion_tokens=1)
        return PinResult(saved=saved, usage=usage)

    async def _transfer(
        self, token_ids: Sequence[int], request: TransferRequest, max_tokens: int, salt: str = ""
    ) -> tuple[Usage, TransferResponse]:
        """Send a request to the connector, and raise the error that it reports."""
        response, usage = await self._host.run(transfer(self._host.engine(), token_ids, request, max_tokens, salt))
        if response is None:
            raise BackendError("vLLM runs without the connector of saved prefixes")
        if response.code:
            raise _ERRORS.get(response.code, BackendError)(response.message)
        return usage, response

    async def _undo(self, name: str, pin: str) -> None:
        """Release a pin, unless the name has it."""
        pinned = self._pins.get(name)
        if pinned is None or pinned.pin != pin:
            await self._unpin(pin)

    async def _unpin(self, pin: str) -> None:
        """Have the engine release a pin. When it responds, it works on no request for that pin any more."""
        work = asyncio.ensure_future(self._transfer((0,), TransferRequest(unpin=(pin,)), 1))
        try:
            await asyncio.shield(work)
        except ReasonError:
            return  # the engine is gone, and the pin with it
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def _description(self, name: str) -> SavedPrefix | None:
        return await run_pull(lambda cancel: self._directory.describe(name, cancel))

    def _other_names(self, name: str) -> list[str]:
        return [n for n in self._pins if n != name]

    def _num_blocks(self, name: str, token_ids: Sequence[int]) -> int:
        """Full blocks of a prefix, which is checked."""
        self._host.limits.check_token_ids(token_ids)
        more = self._host.report_tokens
        self._host.limits.check_length(len(token_ids) + more, f"prefix {name!r} and {more} more tokens")
        num_blocks = len(token_ids) // self._host.block_tokens
        if not num_blocks:
            raise UserError(
                f"prefix {name!r} has {len(token_ids)} tokens; vLLM keeps full blocks of {self._host.block_tokens}",
                hint="so short a prefix is computed as fast as it is looked up",
            )
        return num_blocks


class _TemporaryDirectory:
    """A directory that the connector may write to or read from. It is created and removed off the event loop."""

    def __init__(self, directory: PrefixDirectory, name: str, nbytes: int, pinned: Sequence[str]) -> None:
        self._arguments = directory, name, nbytes, pinned
        self._writer: PrefixWriter | None = None

    async def __aenter__(self) -> PrefixWriter:
        directory, name, nbytes, pinned = self._arguments
        self._writer = await run_pull(lambda cancel: directory.begin(name, nbytes, pinned, cancel), _close)
        return self._writer

    async def __aexit__(self, *exception: object) -> None:
        if self._writer is not None:
            await asyncio.shield(asyncio.ensure_future(_close(self._writer)))


async def _close(writer: PrefixWriter) -> None:
    await asyncio.to_thread(writer.__exit__, None, None, None)


def _link(saved: SavedPrefix, directory: Path, target: Path) -> None:
    """Link the files of a prefix into another directory, where they stay when the name is replaced meanwhile."""
    for name in (DESCRIPTION, *(f.name for f in saved.files)):
        try:
            os.link(directory / name, target / name)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(directory / name, target / name)


def _discard(pins: dict[str, _EnginePin], name: str) -> None:
    pins.pop(name, None)


def _unchanged(saved: SavedPrefix) -> PinResult:
    count = len(saved.token_ids)
    return PinResult(saved=saved, usage=Usage(prompt_tokens=count, cached_tokens=count))
