"""The KV connector's logic apart from vLLM: its requests, its scheduler half, and its worker half.

The scheduler half (`ConnectorScheduler`) chooses which blocks are read, written and pinned for which request. Requests,
block pool and scheduler output are used as vLLM passes them. Nothing in it may raise into the engine, which would end
it: what fails is reported in the request's own response, and its prompt is computed as usual.

The worker half (`BlockStorage`) copies blocks to and from files. A block is copied with the bytes it has in the engine:
only the engine's attention knows what they mean inside (on a CPU it packs them for its instruction set). So the layout
a file was written in must be the reader's own.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ...core.errors import BackendError, DataError, ReasonError, UserError
from ...core.messages import Frozen
from ...core.settings import user_error_of
from ..kv_store import PayloadFile, SavedPrefix
from ..prefix_directory import DESCRIPTION, PrefixDirectory, PrefixWriter

KEY = "reason"
"""Under this key of a request's and a response's `kv_transfer_params` is what is ours."""
LAYOUT_VERSION = 1
"""Raised when the files change their meaning."""
MAX_PINNED_SHARE = 0.5
"""Share of the engine's blocks that may be pinned."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# --- Requests and responses


class TransferRequest(Frozen):
    """A request's parameters for the connector.

    A server's clients use names: `save` and `restore`. A program that starts the engine itself keeps the names and
    names directories instead: `write` and `read`.

    Attributes:
        save: Write the prompt's keys and values to disk under this name.
        restore: Read what the prompt has in common with the prefix of this name from disk.
        write: Write the prompt's keys and values into this directory, which belongs to a `PrefixWriter`.
        read: Read keys and values from the prefix in this directory.
        pin: Pin the prompt's blocks under this name once they are computed.
        unpin: Unpin the blocks of these names.
        describe: Report how blocks are stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    save: str = ""
    restore: str = ""
    write: str = ""
    read: str = ""
    pin: str = ""
    unpin: tuple[str, ...] = ()
    describe: bool = False

    @model_validator(mode="after")
    def _one_source_and_one_target(self) -> TransferRequest:
        if (self.save and self.write) or (self.restore and self.read):
            raise ValueError("a prefix is given by its name or by its directory, not by both")
        return self

    @property
    def writes(self) -> bool:
        """Whether something is to be written."""
        return bool(self.save or self.write)

    def params(self) -> dict[str, Any]:
        """As `kv_transfer_params`."""
        return {KEY: self.model_dump(mode="json", exclude_defaults=True)}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> TransferRequest:
        """Read the `kv_transfer_params` of a request.

        Raises:
            UserError: They are invalid.
        """
        try:
            return cls.model_validate(params[KEY])
        except ValidationError as e:
            raise UserError(f"kv_transfer_params.{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e


class BlockLayout(Frozen):
    """How a worker, or all together, store a block of keys and values.

    Attributes:
        dtype: Number format, as torch names it.
        layout: What must be equal for its bytes to mean the same elsewhere.
        nbytes: Bytes of a block over all layers.
        refusal: Why blocks cannot be copied; empty if they can.
    """

    dtype: str = ""
    layout: str = ""
    nbytes: int = 0
    refusal: str = ""


class TransferResponse(Frozen):
    """What the connector reports in the response's `kv_transfer_params`.

    Attributes:
        read_tokens: Tokens whose keys and values were read from files.
        stored_tokens: Tokens whose keys and values were written; 0 while that is still in progress.
        pinned_blocks: Blocks that are pinned now for `pin`.
        code: Code of what failed; empty if nothing did. A request whose files fail is computed instead.
        message: What failed.
        layout: How the workers together store a block, if `describe` was set.
    """

    read_tokens: int = 0
    stored_tokens: int = 0
    pinned_blocks: int = 0
    code: str = ""
    message: str = ""
    layout: BlockLayout | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any] | None) -> TransferResponse | None:
        """Read the `kv_transfer_params` of a response; None if no connector of ours responded."""
        return cls.model_validate(params[KEY]) if params and KEY in params else None


# --- Between the halves


@dataclass(frozen=True)
class BlockRead:
    """Blocks to be filled from the files of a prefix before this step computes.

    Attributes:
        request_id: The request whose prompt it is.
        directory: Where the files are.
        files: Their sizes and checksums.
        token_hash: Hash of the tokens that the files belong to (`token_hash`).
        first: Block of the files for the first of `blocks`.
        blocks: Numbers of the engine's blocks.
    """

    request_id: str
    directory: Path
    files: tuple[PayloadFile, ...]
    token_hash: str
    first: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class BlockWrite:
    """Blocks to be written after this step has computed them."""

    request_id: str
    directory: Path
    token_hash: str
    blocks: tuple[int, ...]


@dataclass
class TransferReport:
    """What one worker did in a step, or several of them together.

    Attributes:
        written: Number of workers that have written a request's blocks, by request.
        failed: Code and message of what failed, by request.
    """

    written: dict[str, int] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def merge(self, other: TransferReport) -> None:
        """Add the report of another worker."""
        for request_id, count in other.written.items():
            self.written[request_id] = self.written.get(request_id, 0) + count
        self.failed = {**other.failed, **self.failed}


def rank_file(rank: int) -> str:
    """Name of the file of one worker."""
    return f"rank-{rank:04}.safetensors"


def token_hash(token_ids: Sequence[int]) -> str:
    """SHA-256 of tokens. It is written into the files, so that a damaged list of tokens is noticed too."""
    return hashlib.sha256(",".join(map(str, token_ids)).encode()).hexdigest()


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(first), len(second))
    return next((i for i in range(shorter) if first[i] != second[i]), shorter)


# --- The scheduler half


class PinnedBlocks:
    """Blocks that are pinned under names."""

    def __init__(self, pool: Any, max_blocks: int) -> None:
        self._pool, self._max_blocks = pool, max_blocks
        self._blocks: dict[str, list[Any]] = {}
        self._references: Counter[int] = Counter()

    @property
    def names(self) -> list[str]:
        """The names."""
        return list(self._blocks)

    def pin(self, name: str, numbers: Sequence[int]) -> None:
        """Pin blocks; those that were pinned under the name before are released.

        Raises:
            UserError: They would be too many (`prefix_too_large`).
            BackendError: They are not in the prefix cache.
        """
        blocks = [self._pool.blocks[n] for n in numbers]
        if any(b.is_null or b.block_hash is None for b in blocks):
            raise BackendError("the engine's prefix cache does not have the prompt's blocks")
        added = sum(self._references[n] == 0 for n in set(numbers))
        if len(self._references) + added > self._max_blocks:
            raise TooManyPinned(
                f"{added} more blocks would be pinned in addition to {len(self._references)}; "
                f"the maximum is {self._max_blocks}",
                hint="drop other prefixes, or give the engine more memory (setting vllm.kv_cache_bytes)",
            )
        self._pool.touch(blocks)
        self._references.update(numbers)
        self.release([name])
        self._blocks[name] = blocks

    def release(self, names: Sequence[str]) -> None:
        """Unpin the blocks of names; unknown ones are ignored."""
        for name in names:
            blocks = self._blocks.pop(name, [])
            self._references.subtract(b.block_id for b in blocks)
            self._references = +self._references
            self._pool.free_blocks(reversed(blocks))  # the tail is evicted first


class TooManyPinned(UserError):
    """The engine's cache cannot pin that much."""

    code = "prefix_too_large"


@dataclass(eq=False)
class _Transfer:
    """A request with parameters for the connector."""

    request: TransferRequest
    prompt_ids: Sequence[int]
    source: tuple[SavedPrefix, Path] | None = None
    writer: PrefixWriter | None = None
    target: Path | None = None
    num_computed: int = 0
    pending_read: tuple[int, tuple[int, ...]] | None = None
    is_write_scheduled: bool = False
    num_workers_written: int = 0
    response: TransferResponse = field(default_factory=TransferResponse)

    def report(self, **values: Any) -> None:
        self.response = self.response.model_copy(update=values)

    def fail(self, code: str, message: str) -> None:
        if not self.response.code:
            self.report(code=code, message=message)

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Report what fails in the response."""
        try:
            yield
        except ReasonError as e:
            self.fail(e.code, str(e))
        except OSError as e:
            self.fail("backend_error", str(e))

    def close(self) -> None:
        """Remove what was not published."""
        if self.writer is not None:
            self.writer.__exit__(None, None, None)
            self.writer = None


class ConnectorScheduler:
    """The scheduler half.

    Args:
        root: Directory of the prefixes; directories that a request names must be in it.
        open_directory: Opens the directory that names are looked up in, from the workers' layout; None where names are
            not accepted.
    """

    def __init__(
        self, root: Path, block_tokens: int, open_directory: Callable[[BlockLayout], PrefixDirectory] | None = None
    ) -> None:
        self._root, self._block_tokens, self._open_directory = root, block_tokens, open_directory
        self._directory: PrefixDirectory | None = None
        self._layout = BlockLayout(refusal="no worker has reported its layout")
        self._num_workers = 1
        self._pins: PinnedBlocks | None = None
        self._refusal = ""
        self._transfers: dict[str, _Transfer] = {}
        self._finishing: dict[str, _Transfer] = {}

    # -- the engine

    def set_layout(self, layout: BlockLayout, num_workers: int) -> None:
        """Take how the workers store blocks."""
        self._layout, self._num_workers, self._refusal = layout, num_workers, self._refusal or layout.refusal
        if self._open_directory is not None and not layout.refusal:
            self._directory = self._open_directory(layout)

    def bind(self, manager: Any, context_tokens: int) -> None:
        """Take vLLM's cache manager."""
        pool = manager.block_pool
        context = -(-context_tokens // self._block_tokens)
        max_blocks = min(int(pool.num_gpu_blocks * MAX_PINNED_SHARE), pool.num_gpu_blocks - 1 - context)
        self._manager, self._pins = manager, PinnedBlocks(pool, max(0, max_blocks))
        if not pool.enable_caching:
            self._refusal = "its prefix cache is off"

    def refuse(self, reason: str) -> None:
        """Respond to every request with a refusal."""
        self._refusal = reason

    @property
    def pinned(self) -> list[str]:
        """Names under which blocks are pinned."""
        return [] if self._pins is None else self._pins.names

    # -- the life of a request

    def add_request(self, request: Any) -> None:
        """A request has arrived."""
        params = request.kv_transfer_params
        if not params or KEY not in params:
            return
        transfer = _Transfer(TransferRequest(), request.prompt_token_ids or ())
        self._transfers[request.request_id] = transfer
        with transfer.reporting_errors():
            transfer.request = TransferRequest.from_params(params)
            if transfer.request.describe:
                transfer.report(layout=BlockLayout(refusal=self._refusal) if self._refusal else self._layout)
                return
            if self._refusal:
                raise UserError(f"this engine saves no prefixes: {self._refusal}")
            if self._pins is not None:
                self._pins.release(transfer.request.unpin)
            self._start(transfer)

    def num_matched_tokens(self, request: Any, num_computed: int) -> int:
        """Tokens beyond the first `num_computed` that files hold: full blocks, and at least one token remains."""
        transfer = self._transfers.get(request.request_id)
        if transfer is None or transfer.source is None or transfer.response.code:
            return 0
        saved, _ = transfer.source
        matched = common_prefix(saved.token_ids[: saved.stored], transfer.prompt_ids)
        matched = min(matched, len(transfer.prompt_ids) - 1) // self._block_tokens * self._block_tokens
        transfer.num_computed = num_computed
        return max(0, matched - num_computed)

    def blocks_allocated(self, request: Any, blocks: Callable[[], Sequence[int]], num_tokens: int) -> None:
        """Blocks were allocated; `num_tokens` of their tokens are to be read."""
        transfer = self._transfers.get(request.request_id)
        if transfer is not None and num_tokens > 0:
            first = transfer.num_computed // self._block_tokens
            numbers = tuple(blocks()[first : first + num_tokens // self._block_tokens])
            transfer.pending_read = first, numbers
            transfer.report(read_tokens=num_tokens)

    def schedule(self, scheduler_output: Any) -> tuple[list[BlockRead], list[BlockWrite]]:
        """What the workers are to do in this step."""
        if not self._transfers:
            return [], []
        reads = []
        for request_id, transfer in self._transfers.items():
            if transfer.pending_read is not None and transfer.source is not None:
                (first, blocks), (saved, directory) = transfer.pending_read, transfer.source
                transfer.pending_read = None
                tokens = token_hash(saved.token_ids[: saved.stored])
                reads.append(BlockRead(request_id, directory, saved.files, tokens, first, blocks))
        writes = []
        for request_id, num_computed in _computed_after(scheduler_output):
            one = self._transfers.get(request_id)
            if one is None or one.is_write_scheduled or one.target is None or one.response.code:
                continue
            if num_computed < len(one.prompt_ids):
                continue
            one.is_write_scheduled = True
            count = len(one.prompt_ids) // self._block_tokens
            tokens = token_hash(one.prompt_ids[: count * self._block_tokens])
            numbers = tuple(self._manager.get_block_ids(request_id)[0][:count])
            writes.append(BlockWrite(request_id, one.target, tokens, numbers))
        return reads, writes

    def add_report(self, report: TransferReport) -> None:
        """Take the workers' report of a step."""
        for request_id, (code, message) in report.failed.items():
            transfer = self._transfers.get(request_id) or self._finishing.get(request_id)
            if transfer is not None:
                transfer.fail(code, message)
                transfer.report(read_tokens=0)
                self._finish(request_id)
        for request_id, count in report.written.items():
            transfer = self._transfers.get(request_id) or self._finishing.get(request_id)
            if transfer is not None:
                transfer.num_workers_written += count
                if transfer.num_workers_written == self._num_workers and not transfer.response.code:
                    self._publish(transfer)
                    self._finish(request_id)

    def finish_request(self, request: Any, blocks: Sequence[int], completed: bool) -> dict[str, Any] | None:
        """A request has ended.

        Returns:
            Parameters of the response; None without parameters of the request.
        """
        transfer = self._transfers.pop(request.request_id, None)
        if transfer is None:
            return None
        if transfer.request.pin and completed and not transfer.response.code and self._pins is not None:
            with transfer.reporting_errors():
                own = blocks[: len(transfer.prompt_ids) // self._block_tokens]
                self._pins.pin(transfer.request.pin, own)
                transfer.report(pinned_blocks=len(own))
        is_written = transfer.num_workers_written >= self._num_workers
        if transfer.is_write_scheduled and not is_written and not transfer.response.code and completed:
            self._finishing[request.request_id] = transfer  # the workers' report of its only step comes next
        else:
            transfer.close()
        return {KEY: transfer.response.model_dump(mode="json")}

    def close(self) -> None:
        """The engine ends."""
        for transfer in [*self._transfers.values(), *self._finishing.values()]:
            transfer.close()
        self._transfers, self._finishing = {}, {}

    def _start(self, transfer: _Transfer) -> None:
        """Look up what is to be read, and free disk space for what is to be written."""
        request = transfer.request
        if request.read:
            directory = self._checked_directory(request.read)
            transfer.source = _read_description(directory), directory
        elif request.restore:
            # Checked here; the workers check again the very bytes that they put into the cache.
            transfer.source = self._named_prefixes().read(request.restore, lambda saved, directory: directory)
        if not request.writes:
            return
        count = len(transfer.prompt_ids) // self._block_tokens
        if not count:
            raise UserError(f"a prompt of {len(transfer.prompt_ids)} tokens has no full block of {self._block_tokens}")
        if request.write:
            transfer.target = self._checked_directory(request.write)
        else:
            transfer.writer = self._named_prefixes().begin(request.save, count * self._layout.nbytes, self.pinned)
            transfer.target = transfer.writer.directory

    def _named_prefixes(self) -> PrefixDirectory:
        if self._directory is None:
            raise UserError("this engine accepts no names of prefixes")
        return self._directory

    def _checked_directory(self, name: str) -> Path:
        """The directory of a `PrefixWriter`.

        Raises:
            UserError: It is something else: no request may read or write elsewhere.
        """
        path = Path(name)
        if path.parent.parent != self._root or not path.name.startswith(".partial-") or path.is_symlink():
            raise UserError(f"{name} is no directory for prefixes")
        return path

    def _publish(self, transfer: _Transfer) -> None:
        stored = len(transfer.prompt_ids) // self._block_tokens * self._block_tokens
        with transfer.reporting_errors():
            if transfer.writer is not None:
                token_ids = tuple(transfer.prompt_ids)
                self._named_prefixes().publish(transfer.writer, token_ids, stored, self.pinned)
            transfer.report(stored_tokens=stored)

    def _finish(self, request_id: str) -> None:
        transfer = self._finishing.pop(request_id, None)
        if transfer is not None:
            transfer.close()


def _computed_after(scheduler_output: Any) -> Iterator[tuple[str, int]]:
    """Per request of a step, its tokens that will be computed when the step is over."""
    num_scheduled = scheduler_output.num_scheduled_tokens
    for request in scheduler_output.scheduled_new_reqs:
        yield request.req_id, request.num_computed_tokens + num_scheduled[request.req_id]
    cached = scheduler_output.scheduled_cached_reqs
    for request_id, before in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
        yield request_id, before + num_scheduled[request_id]


def _read_description(directory: Path) -> SavedPrefix:
    try:
        return SavedPrefix.model_validate_json((directory / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as e:
        raise DataError(f"{directory / DESCRIPTION} cannot be read") from e


# --- The worker half


class BlockStorage:
    """Blocks of one worker to and from files.

    Args:
        caches: Keys and values by layer, `[blocks, …]`.
        attention: What else decides the arrangement inside a block: the device, the attention and its variant.
    """

    def __init__(
        self,
        caches: Mapping[str, Tensor],
        num_blocks: int,
        block_tokens: int,
        attention: str,
        rank: int,
        num_workers: int,
    ) -> None:
        self._rank, self._num_workers, self._block_tokens, self._attention = rank, num_workers, block_tokens, attention
        self._caches, self._refusal = _distinct_caches(caches, num_blocks)
        self._report = TransferReport()
        self._failed_blocks: set[int] = set()

    @property
    def layout(self) -> BlockLayout:
        """How a block is stored."""
        if self._refusal:
            return BlockLayout(refusal=self._refusal)
        first = next(iter(self._caches.values()))
        inner = "x".join(map(str, first.shape[1:]))
        strides = ",".join(map(str, first.stride()[1:]))
        return BlockLayout(
            dtype=str(first.dtype).removeprefix("torch."),
            layout=f"vllm/{LAYOUT_VERSION} {self._attention} {self._block_tokens} tokens {inner} by {strides} "
            f"in {len(self._caches)} layers on {self._num_workers}",
            nbytes=sum(c[0].numel() * c.element_size() for c in self._caches.values()),
        )

    def read(self, read: BlockRead) -> None:
        """Fill blocks from a file; if that fails, the engine has to compute them (`take_failed_blocks`)."""
        try:
            self._fill(read, self._checked_tensors(read))
        except DataError as e:
            self._failed_blocks |= set(read.blocks)
            self._report.failed[read.request_id] = e.code, str(e)

    def write(self, write: BlockWrite) -> None:
        """Write blocks to a file."""
        path = write.directory / rank_file(self._rank)
        numbers = torch.tensor(write.blocks, dtype=torch.long)
        try:
            tensors = {name: cache[numbers.to(cache.device)].cpu() for name, cache in self._caches.items()}
            save_file(tensors, path, {"tokens": write.token_hash})
        except (OSError, SafetensorError) as e:
            is_full = (isinstance(e, OSError) and e.errno in _DISK_FULL) or "No space left" in str(e)
            code = "backend_unavailable" if is_full else "backend_error"
            message = f"keys and values cannot be written to {write.directory}: {e}"
            self._report.failed[write.request_id] = code, message
        else:
            self._report.written[write.request_id] = 1

    def take_report(self) -> TransferReport | None:
        """What happened since the last report; None if nothing did."""
        report, self._report = self._report, TransferReport()
        return report if report.written or report.failed else None

    def take_failed_blocks(self) -> set[int]:
        """Blocks that could not be filled since the last call."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    def _checked_tensors(self, read: BlockRead) -> dict[str, Tensor]:
        """The tensors of this worker's file, from the very bytes whose checksum was compared.

        Raises:
            DataError: They are not those that were written.
        """
        name = rank_file(self._rank)
        expected = next((f for f in read.files if f.name == name), None)
        if expected is None or len(read.files) != self._num_workers:
            raise DataError(f"the prefix in {read.directory} was written by another number of workers")
        data = _checked_bytes(read.directory / name, expected)
        try:
            length = int.from_bytes(data[:8], "little")
            tokens = json.loads(data[8 : 8 + length])["__metadata__"]["tokens"]
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as e:
            raise DataError(f"{read.directory / name} is no saved prefix: {e}") from e
        if tokens != read.token_hash:
            raise DataError(f"{read.directory / name} was written for other tokens")
        return tensors

    def _fill(self, read: BlockRead, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != self._caches.keys():
            raise DataError(f"the prefix in {read.directory} has other layers")
        end = read.first + len(read.blocks)
        for name, cache in self._caches.items():
            tensor = tensors[name]
            if tensor.dtype != cache.dtype or tensor.shape[1:] != cache.shape[1:] or len(tensor) < end:
                raise DataError(f"the prefix in {read.directory} has other blocks")
        numbers = torch.tensor(read.blocks, dtype=torch.long)
        for name, cache in self._caches.items():
            cache[numbers.to(cache.device)] = tensors[name][read.first : end].to(cache.device)


def _distinct_caches(caches: Mapping[str, Tensor], num_blocks: int) -> tuple[dict[str, Tensor], str]:
    """The caches without those that several layers share, and why they cannot be copied, if so."""
    distinct: dict[str, Tensor] = {}
    seen: set[tuple[int, ...]] = set()
    for name, cache in caches.items():
        if not isinstance(cache, Tensor) or cache.dim() < 2 or cache.shape[0] != num_blocks:
            return {}, f"the cache of layer {name} does not consist of the engine's blocks"
        memory = (cache.data_ptr(), *cache.shape)
        if memory not in seen:
            distinct[name] = cache
        seen.add(memory)
    shapes = {(c.dtype, c.shape[1:], c.stride()[1:]) for c in distinct.values()}
    if len(shapes) != 1:
        return {}, "its layers store blocks of several shapes"
    return distinct, ""


def _checked_bytes(path: Path, expected: PayloadFile) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: Their checksum is not the expected one.
    """
    try:
        if (size := path.stat().st_size) != expected.nbytes:
            raise DataError(f"{path} has {size} bytes instead of {expected.nbytes}")
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}") from e
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        raise DataError(f"the SHA-256 of {path} is not that of what was saved")
    return data


def combined_layout(layouts: Sequence[BlockLayout]) -> BlockLayout:
    """How all workers together store a block."""
    no_layout = "" if layouts else "no worker has reported its layout"
    refusal = next((layout.refusal for layout in layouts if layout.refusal), no_layout)
    if refusal:
        return BlockLayout(refusal=refusal)
    return BlockLayout(
        dtype=layouts[0].dtype,
        layout="; ".join(sorted({layout.layout for layout in layouts})),
        nbytes=sum(layout.nbytes for layout in layouts),
    )
