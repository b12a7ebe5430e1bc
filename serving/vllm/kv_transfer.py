"""What a request asks of our KV connector, and what its two halves tell one another: plain values, without vLLM.

`PrefixDesk`: the connector's half beside vLLM's scheduler: which blocks are read, written and held for whom.

It is apart from vLLM: requests, block pool and scheduler output are taken as they come. Nothing here may raise into the
engine, which would end it: what fails is told in the request's own reply, and its prompt is computed as if nothing had
been asked.

`BlockFiles`: a worker's blocks of keys and values to and from files, checked, apart from vLLM.

A block is copied whole, as the bytes it has in the engine: what they mean inside, the engine's attention alone knows
(on a processor it packs them for its instruction set). So the layout a file was written in must be the reader's own.
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
from ..prefix_folder import DESCRIPTION, Attempt, PrefixFolder

KEY = "reason"
"""Under this key of a request's and a reply's `kv_transfer_params` lies what is ours."""

LAYOUT_VERSION = 1
"""Raised when the files change their meaning."""


class Ask(Frozen):
    """What a request asks of the connector.

    A server's clients go by names: `save` and `restore`. A program that starts the engine itself keeps the names and
    gives folders instead: `write` and `read`.

    Attributes:
        save: Keep the prompt's keys and values on disk under this name.
        restore: Take what the prompt has in common with the prefix of this name from disk.
        write: Write the prompt's keys and values into this folder, which belongs to an attempt of `PrefixFolder`.
        read: Take keys and values from the prefix in this folder.
        pin: Hold the prompt's blocks under this name once they are computed.
        unpin: Give up what is held under these names.
        describe: Tell how blocks are kept.
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
    def _one_source_and_one_target(self) -> Ask:
        if (self.save and self.write) or (self.restore and self.read):
            raise ValueError("a prefix goes by its name or by its folder, not by both")
        return self

    @property
    def stores(self) -> bool:
        """Whether something is to be written."""
        return bool(self.save or self.write)

    def params(self) -> dict[str, Any]:
        """As `kv_transfer_params`."""
        return {KEY: self.model_dump(mode="json", exclude_defaults=True)}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Ask:
        """What the `kv_transfer_params` of a request ask.

        Raises:
            UserError: They make no sense.
        """
        try:
            return cls.model_validate(params[KEY])
        except ValidationError as e:
            raise UserError(f"kv_transfer_params.{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e


class BlockShape(Frozen):
    """How a worker, or all together, keep a block of keys and values.

    Attributes:
        dtype: Number format, as torch calls it.
        layout: What must be equal for its bytes to mean the same elsewhere.
        nbytes: Bytes of a block over all layers.
        refusal: Why blocks cannot be copied; empty if they can.
    """

    dtype: str = ""
    layout: str = ""
    nbytes: int = 0
    refusal: str = ""


class Told(Frozen):
    """What the connector answers, in the reply's `kv_transfer_params`.

    Attributes:
        read_tokens: Tokens whose keys and values were taken from files.
        stored_tokens: Tokens whose keys and values were written; 0 while that is still under way.
        pinned_blocks: Blocks that are held now for `pin`.
        code: Code of what failed; empty if nothing did. A request whose files fail is computed instead.
        message: What failed.
        shape: How the workers together keep a block, if that was asked.
    """

    read_tokens: int = 0
    stored_tokens: int = 0
    pinned_blocks: int = 0
    code: str = ""
    message: str = ""
    shape: BlockShape | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any] | None) -> Told | None:
        """What the `kv_transfer_params` of a reply tell; None if no connector of ours answered."""
        return cls.model_validate(params[KEY]) if params and KEY in params else None


@dataclass(frozen=True)
class ReadOrder:
    """Blocks to be filled from the files of a prefix before this step computes.

    Attributes:
        request: Whose prompt it is.
        folder: Where the files are.
        files: Their sizes and sums.
        tokens: Sum of the tokens that the files belong to (`tokens_sum`).
        first: Block of the files that goes into the first of `blocks`.
        blocks: Numbers of the engine's blocks.
    """

    request: str
    folder: Path
    files: tuple[PayloadFile, ...]
    tokens: str
    first: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class WriteOrder:
    """Blocks to be written after this step has computed them."""

    request: str
    folder: Path
    tokens: str
    blocks: tuple[int, ...]


@dataclass
class WorkerReport:
    """What one worker did in a step, or several of them together.

    Attributes:
        written: Workers that have written a request's blocks, by request.
        failed: Code and message of what failed, by request.
    """

    written: dict[str, int] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, other: WorkerReport) -> None:
        """Take the report of another worker in."""
        for request, count in other.written.items():
            self.written[request] = self.written.get(request, 0) + count
        self.failed = {**other.failed, **self.failed}


def file_name(rank: int) -> str:
    """Name of the file of one worker."""
    return f"rank-{rank:04}.safetensors"


def tokens_sum(ids: Sequence[int]) -> str:
    """SHA-256 of tokens. It is written into the files, so that a damaged list of tokens beside them is noticed too."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    most = min(len(first), len(second))
    return next((i for i in range(most) if first[i] != second[i]), most)


MOST_PINNED = 0.5
"""Share of the engine's blocks that may be held for named prefixes."""


class Pins:
    """Blocks that are held under names.

    Args:
        pool: vLLM's block pool.
        most: Most blocks that may be held.
    """

    def __init__(self, pool: Any, most: int) -> None:
        self._pool, self._most = pool, most
        self._held: dict[str, list[Any]] = {}
        self._uses: Counter[int] = Counter()

    @property
    def names(self) -> list[str]:
        """What is held."""
        return list(self._held)

    def hold(self, name: str, numbers: Sequence[int]) -> None:
        """Hold blocks; those that were held under the name before are given up.

        Raises:
            UserError: They would be too many (`prefix_too_large`).
            BackendError: The cache does not know them.
        """
        blocks = [self._pool.blocks[n] for n in numbers]
        if any(b.is_null or b.block_hash is None for b in blocks):
            raise BackendError("the engine's prefix cache does not have the prompt's blocks")
        fresh = sum(self._uses[n] == 0 for n in set(numbers))
        if len(self._uses) + fresh > self._most:
            raise TooManyPinned(
                f"{fresh} blocks more would be held, beside {len(self._uses)}; at most {self._most} may be",
                hint="drop other prefixes, or give the engine more memory (setting vllm.kv_bytes)",
            )
        self._pool.touch(blocks)
        self._uses.update(numbers)
        self.release([name])
        self._held[name] = blocks

    def release(self, names: Sequence[str]) -> None:
        """Give up what is held under names; unknown ones are passed over."""
        for name in names:
            blocks = self._held.pop(name, [])
            self._uses.subtract(b.block_id for b in blocks)
            self._uses = +self._uses
            self._pool.free_blocks(reversed(blocks))  # the tail is evicted first


class TooManyPinned(UserError):
    """The engine's cache cannot hold so much."""

    code = "prefix_too_large"


@dataclass(eq=False)
class _Job:
    """A request that asks something of the connector."""

    ask: Ask
    prompt: Sequence[int]
    source: tuple[SavedPrefix, Path] | None = None
    attempt: Attempt | None = None
    target: Path | None = None
    computed: int = 0
    reading: tuple[int, tuple[int, ...]] | None = None
    ordered: bool = False
    workers: int = 0
    told: Told = field(default_factory=Told)

    def note(self, **values: Any) -> None:
        self.told = self.told.model_copy(update=values)

    def fail(self, code: str, message: str) -> None:
        if not self.told.code:
            self.note(code=code, message=message)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Keep what goes wrong for the reply."""
        try:
            yield
        except ReasonError as e:
            self.fail(e.code, str(e))
        except OSError as e:
            self.fail("backend_error", str(e))

    def close(self) -> None:
        """Remove what was not published."""
        if self.attempt is not None:
            self.attempt.__exit__(None, None, None)
            self.attempt = None


class PrefixDesk:
    """The connector beside the scheduler.

    Args:
        root: Folder of the prefixes; folders that a request names must lie in it.
        block_tokens: Tokens in a block.
        folder: Makes the folder that names are looked up in, from the workers' layout; None where names are not taken.
    """

    def __init__(
        self, root: Path, block_tokens: int, folder: Callable[[BlockShape], PrefixFolder] | None = None
    ) -> None:
        self._root, self._block, self._make_folder = root, block_tokens, folder
        self._folder: PrefixFolder | None = None
        self._shape = BlockShape(refusal="no worker has told its layout")
        self._ranks = 1
        self._pins: Pins | None = None
        self._refusal = ""
        self._jobs: dict[str, _Job] = {}
        self._leaving: dict[str, _Job] = {}

    # -- what the engine is like

    def meet(self, shape: BlockShape, ranks: int) -> None:
        """Learn how the workers keep blocks."""
        self._shape, self._ranks, self._refusal = shape, ranks, self._refusal or shape.refusal
        if self._make_folder is not None and not shape.refusal:
            self._folder = self._make_folder(shape)

    def bind(self, manager: Any, context_tokens: int) -> None:
        """Learn of vLLM's cache manager."""
        pool = manager.block_pool
        context = -(-context_tokens // self._block)
        most = min(int(pool.num_gpu_blocks * MOST_PINNED), pool.num_gpu_blocks - 1 - context)
        self._manager, self._pins = manager, Pins(pool, max(0, most))
        if not pool.enable_caching:
            self._refusal = "its prefix cache is off"

    def refuse(self, why: str) -> None:
        """Answer every request with a refusal."""
        self._refusal = why

    @property
    def pinned(self) -> list[str]:
        """Names under which blocks are held."""
        return [] if self._pins is None else self._pins.names

    # -- the life of a request

    def enter(self, request: Any) -> None:
        """A request has come."""
        params = request.kv_transfer_params
        if not params or KEY not in params:
            return
        job = _Job(Ask(), request.prompt_token_ids or ())
        self._jobs[request.request_id] = job
        with job.failing():
            job.ask = Ask.of(params)
            if job.ask.describe:
                job.note(shape=BlockShape(refusal=self._refusal) if self._refusal else self._shape)
                return
            if self._refusal:
                raise UserError(f"this engine keeps no named prefixes: {self._refusal}")
            if self._pins is not None:
                self._pins.release(job.ask.unpin)
            self._open(job)

    def matched(self, request: Any, computed: int) -> int:
        """Tokens beyond the first `computed` that files hold: whole blocks, and at least one token is left over."""
        job = self._jobs.get(request.request_id)
        if job is None or job.source is None or job.told.code:
            return 0
        saved, _ = job.source
        same = common(saved.token_ids[: saved.stored], job.prompt)
        same = min(same, len(job.prompt) - 1) // self._block * self._block
        job.computed = computed
        return max(0, same - computed)

    def allotted(self, request: Any, blocks: Callable[[], Sequence[int]], tokens: int) -> None:
        """Blocks were set aside; `tokens` of them are to be read."""
        job = self._jobs.get(request.request_id)
        if job is not None and tokens > 0:
            first = job.computed // self._block
            job.reading = first, tuple(blocks()[first : first + tokens // self._block])
            job.note(read_tokens=tokens)

    def orders(self, scheduled: Any) -> tuple[list[ReadOrder], list[WriteOrder]]:
        """What the workers are to do in this step."""
        if not self._jobs:
            return [], []
        reads = []
        for name, job in self._jobs.items():
            if job.reading is not None and job.source is not None:
                (first, blocks), (saved, folder) = job.reading, job.source
                job.reading = None
                tokens = tokens_sum(saved.token_ids[: saved.stored])
                reads.append(ReadOrder(name, folder, saved.files, tokens, first, blocks))
        writes = []
        for name, computed in _computed_after(scheduled):
            one = self._jobs.get(name)
            if one is None or one.ordered or one.target is None or one.told.code or computed < len(one.prompt):
                continue
            one.ordered = True
            whole = len(one.prompt) // self._block
            tokens = tokens_sum(one.prompt[: whole * self._block])
            writes.append(WriteOrder(name, one.target, tokens, tuple(self._manager.get_block_ids(name)[0][:whole])))
        return reads, writes

    def hear(self, report: WorkerReport) -> None:
        """The workers' report of a step."""
        for name, (code, message) in report.failed.items():
            job = self._jobs.get(name) or self._leaving.get(name)
            if job is not None:
                job.fail(code, message)
                job.note(read_tokens=0)
                self._settle(name)
        for name, count in report.written.items():
            job = self._jobs.get(name) or self._leaving.get(name)
            if job is not None:
                job.workers += count
                if job.workers == self._ranks and not job.told.code:
                    self._written(job)
                    self._settle(name)

    def leave(self, request: Any, blocks: Sequence[int], whole: bool) -> dict[str, Any] | None:
        """A request has ended.

        Args:
            request: The request.
            blocks: Its blocks.
            whole: Whether it ran to its end.

        Returns:
            Parameters of the reply; None if it asked nothing.
        """
        job = self._jobs.pop(request.request_id, None)
        if job is None:
            return None
        if job.ask.pin and whole and not job.told.code and self._pins is not None:
            with job.failing():
                mine = blocks[: len(job.prompt) // self._block]
                self._pins.hold(job.ask.pin, mine)
                job.note(pinned_blocks=len(mine))
        if job.ordered and job.workers < self._ranks and not job.told.code and whole:
            self._leaving[request.request_id] = job  # the workers' report of its only step comes next
        else:
            job.close()
        return {KEY: job.told.model_dump(mode="json")}

    def close(self) -> None:
        """The engine ends."""
        for job in [*self._jobs.values(), *self._leaving.values()]:
            job.close()
        self._jobs, self._leaving = {}, {}

    # -- within

    def _open(self, job: _Job) -> None:
        """Look for what is to be read, and make place for what is to be written."""
        ask = job.ask
        if ask.read:
            place = self._inside(ask.read)
            job.source = _described(place), place
        elif ask.restore:
            # Checked here; the workers check again the very bytes that they put into the cache.
            job.source = self._named().read(ask.restore, lambda saved, place: place)
        if not ask.stores:
            return
        whole = len(job.prompt) // self._block
        if not whole:
            raise UserError(f"a prompt of {len(job.prompt)} tokens has no whole block of {self._block}")
        if ask.write:
            job.target = self._inside(ask.write)
        else:
            job.attempt = self._named().begin(ask.save, whole * self._shape.nbytes, self.pinned)
            job.target = job.attempt.folder

    def _named(self) -> PrefixFolder:
        if self._folder is None:
            raise UserError("this engine takes no names of prefixes")
        return self._folder

    def _inside(self, place: str) -> Path:
        """A folder of an attempt.

        Raises:
            UserError: It is something else: no request may read or write elsewhere.
        """
        path = Path(place)
        if path.parent.parent != self._root or not path.name.startswith(".partial-") or path.is_symlink():
            raise UserError(f"{place} is no folder for prefixes")
        return path

    def _written(self, job: _Job) -> None:
        stored = len(job.prompt) // self._block * self._block
        with job.failing():
            if job.attempt is not None:
                self._named().publish(job.attempt, tuple(job.prompt), stored, self.pinned)
            job.note(stored_tokens=stored)

    def _settle(self, name: str) -> None:
        job = self._leaving.pop(name, None)
        if job is not None:
            job.close()


def _computed_after(scheduled: Any) -> Iterator[tuple[str, int]]:
    """Per request of a step, its tokens that will be computed when the step is over."""
    now = scheduled.num_scheduled_tokens
    for request in scheduled.scheduled_new_reqs:
        yield request.req_id, request.num_computed_tokens + now[request.req_id]
    old = scheduled.scheduled_cached_reqs
    for name, before in zip(old.req_ids, old.num_computed_tokens, strict=True):
        yield name, before + now[name]


def _described(folder: Path) -> SavedPrefix:
    try:
        return SavedPrefix.model_validate_json((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as e:
        raise DataError(f"{folder / DESCRIPTION} cannot be read") from e


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class BlockFiles:
    """The files of one worker.

    Args:
        caches: Keys and values by layer, `[blocks, …]`.
        blocks: Blocks that the engine counts.
        block_tokens: Tokens in a block.
        attention: What else decides the arrangement inside a block: the device, the attention and its variant.
        rank: Which worker this is.
        ranks: How many workers share the model.
    """

    def __init__(
        self, caches: Mapping[str, Tensor], blocks: int, block_tokens: int, attention: str, rank: int, ranks: int
    ) -> None:
        self._rank, self._ranks, self._block_tokens, self._attention = rank, ranks, block_tokens, attention
        self._caches, self._refusal = _own(caches, blocks)
        self._report = WorkerReport()
        self._bad: set[int] = set()

    @property
    def shape(self) -> BlockShape:
        """How a block is kept."""
        if self._refusal:
            return BlockShape(refusal=self._refusal)
        first = next(iter(self._caches.values()))
        inner = "x".join(map(str, first.shape[1:]))
        strides = ",".join(map(str, first.stride()[1:]))
        return BlockShape(
            dtype=str(first.dtype).removeprefix("torch."),
            layout=f"vllm/{LAYOUT_VERSION} {self._attention} {self._block_tokens} tokens {inner} by {strides} "
            f"in {len(self._caches)} layers on {self._ranks}",
            nbytes=sum(c[0].numel() * c.element_size() for c in self._caches.values()),
        )

    def read(self, order: ReadOrder) -> None:
        """Fill blocks from a file; if that fails, the engine is told to compute them (`take_bad_blocks`)."""
        try:
            self._fill(order, self._checked(order))
        except DataError as e:
            self._bad |= set(order.blocks)
            self._report.failed[order.request] = e.code, str(e)

    def write(self, order: WriteOrder) -> None:
        """Write blocks to a file."""
        path = order.folder / file_name(self._rank)
        numbers = torch.tensor(order.blocks, dtype=torch.long)
        try:
            tensors = {name: cache[numbers.to(cache.device)].cpu() for name, cache in self._caches.items()}
            save_file(tensors, path, {"tokens": order.tokens})
        except (OSError, SafetensorError) as e:
            full = isinstance(e, OSError) and e.errno in _FULL
            code = "backend_unavailable" if full or "No space left" in str(e) else "backend_error"
            self._report.failed[order.request] = code, f"keys and values cannot be written to {order.folder}: {e}"
        else:
            self._report.written[order.request] = 1

    def take_report(self) -> WorkerReport | None:
        """What happened since the last report; None if nothing did."""
        report, self._report = self._report, WorkerReport()
        return report if report.written or report.failed else None

    def take_bad_blocks(self) -> set[int]:
        """Blocks that could not be filled since the last call."""
        bad, self._bad = self._bad, set()
        return bad

    def _checked(self, order: ReadOrder) -> dict[str, Tensor]:
        """The tensors of this worker's file, whose very bytes have been summed.

        Raises:
            DataError: They are not those that were written.
        """
        name = file_name(self._rank)
        told = next((f for f in order.files if f.name == name), None)
        if told is None or len(order.files) != self._ranks:
            raise DataError(f"the prefix in {order.folder} was written by another number of workers")
        data = _bytes_of(order.folder / name, told)
        try:
            length = int.from_bytes(data[:8], "little")
            tokens = json.loads(data[8 : 8 + length])["__metadata__"]["tokens"]
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as e:
            raise DataError(f"{order.folder / name} is no file of ours: {e}") from e
        if tokens != order.tokens:
            raise DataError(f"{order.folder / name} was written for other tokens")
        return tensors

    def _fill(self, order: ReadOrder, tensors: Mapping[str, Tensor]) -> None:
        if tensors.keys() != self._caches.keys():
            raise DataError(f"the prefix in {order.folder} has other layers")
        end = order.first + len(order.blocks)
        for name, cache in self._caches.items():
            tensor = tensors[name]
            if tensor.dtype != cache.dtype or tensor.shape[1:] != cache.shape[1:] or len(tensor) < end:
                raise DataError(f"the prefix in {order.folder} has other blocks")
        numbers = torch.tensor(order.blocks, dtype=torch.long)
        for name, cache in self._caches.items():
            cache[numbers.to(cache.device)] = tensors[name][order.first : end].to(cache.device)


def _own(caches: Mapping[str, Tensor], blocks: int) -> tuple[dict[str, Tensor], str]:
    """The caches without those that several layers share, and why they cannot be copied, if so."""
    own: dict[str, Tensor] = {}
    seen: set[tuple[int, ...]] = set()
    for name, cache in caches.items():
        if not isinstance(cache, Tensor) or cache.dim() < 2 or cache.shape[0] != blocks:
            return {}, f"the cache of layer {name} does not consist of the engine's blocks"
        place = (cache.data_ptr(), *cache.shape)
        if place not in seen:
            own[name] = cache
        seen.add(place)
    shapes = {(c.dtype, c.shape[1:], c.stride()[1:]) for c in own.values()}
    if len(shapes) != 1:
        return {}, "its layers keep blocks of several kinds"
    return own, ""


def _bytes_of(path: Path, told: PayloadFile) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: They are not those whose sum is told.
    """
    try:
        if (size := path.stat().st_size) != told.nbytes:
            raise DataError(f"{path} has {size} bytes instead of {told.nbytes}")
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}") from e
    if hashlib.sha256(data).hexdigest() != told.sha256:
        raise DataError(f"the SHA-256 of {path} is not that of what was saved")
    return data


def shared_shape(shapes: Sequence[BlockShape]) -> BlockShape:
    """How all workers together keep a block."""
    refusal = next((s.refusal for s in shapes if s.refusal), "" if shapes else "no worker has told its layout")
    if refusal:
        return BlockShape(refusal=refusal)
    return BlockShape(
        dtype=shapes[0].dtype,
        layout="; ".join(sorted({s.layout for s in shapes})),
        nbytes=sum(s.nbytes for s in shapes),
    )
