"""Workers on one shared cache inside vLLM (experimental), as far as it does not need vLLM.

A worker is a session of vLLM's engine that runs one pass after another, and whose attention reads what the others of
its group have written. vLLM gives each worker's tokens positions of its own sequence and caches their keys rotated
there. Here they are stored once more, by block as the embedded engine stores them, and a query is rotated from its
position in its sequence to its position in its worker's view. So layouts and moves are those of the embedded engine,
whatever is in vLLM's own cache.

A request states its role in its group by its `WorkerRequest`; `PassGate` holds the requests of a pass until all have
arrived; `GroupCaches` keeps the groups' keys and values in a process of vLLM's. Nothing in `GroupCaches` may raise into
the engine, which would end it: an incomplete pass is not shared, and is counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor

from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.settings import VllmSettings, user_error_of
from ..local.config import ModelConfig
from ..local.rope import RotaryEmbedding
from ..local.shared_cache import CacheBlock, SharedCacheAttention, WorkerChunk
from ..model_files.checkpoint import read_config
from ..worker_group import MAX_WORKERS, Layout

TESTED_VERSIONS = ("0.32", "0.33")
"""Versions of vLLM, to the minor number, that this was tested with: what it overrides is no stable interface."""
SCHEDULER = "reason.serving.vllm.shared_scheduler.SharedCacheScheduler"
ROW_TRACKER = "reason.serving.vllm.shared_attention:RowTracker"
RUNNER_V2 = "VLLM_USE_V2_MODEL_RUNNER"
"""VLLM's environment variable. On a GPU its default is runner V2, which refuses `ROW_TRACKER`; a CPU has runner V1."""
KEY = "reason_workers"
"""The key of a `WorkerRequest` in a request's `extra_args`."""

_RESERVED = ("scheduler_cls", "async_scheduling", "attention_config", "attention_backend", "kv_cache_dtype")
_INCOMPATIBLE = ("data_parallel_size", "decode_context_parallel_size")


def shared_cache_arguments(
    directory: Path, settings: VllmSettings, version: str, arguments: Mapping[str, Any], *, cpu: bool
) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` by which an engine's workers can share their cache.

    Raises:
        UserError: This version of vLLM is not a tested one, or its model runner not V1; the model's cache cannot be
            shared; or a setting is incompatible.
        DataError: The model's configuration is missing or broken.
    """
    minor = ".".join(version.split(".")[:2])
    if minor not in TESTED_VERSIONS:
        tested = " or ".join(TESTED_VERSIONS)
        raise UserError(
            f"setting vllm.shared_workers: not tested with vLLM {version}",
            hint=f"install vLLM {tested}, use local/… for workers on one cache, or turn the setting off",
        )
    if not cpu and os.environ.get(RUNNER_V2) != "0":
        raise UserError(
            "setting vllm.shared_workers: vLLM's model runner V2 cannot share a cache",
            hint=f"set the environment variable {RUNNER_V2}=0, which selects runner V1, or turn the setting off",
        )
    config = read_config(directory)
    # vLLM limits the attention of any family to the window, if the configuration has one
    has_window = config.get("sliding_window") and config.get("use_sliding_window", True)
    is_native = not has_window and ModelConfig.is_native(directory)
    if not is_native:
        raise UserError(
            "setting vllm.shared_workers: the cache of this model's attention cannot be shared",
            hint="use a Llama, Qwen2 or Qwen3 model without sliding windows and YaRN, or turn the setting off",
        )
    taken = sorted(set(settings.engine) & {*_RESERVED, *_INCOMPATIBLE})
    if taken:
        raise UserError(
            f"setting vllm.engine.{taken[0]} is incompatible with vllm.shared_workers", hint="remove one of them"
        )
    processors = [*arguments["logits_processors"], ROW_TRACKER]
    return {"scheduler_cls": SCHEDULER, "async_scheduling": False, "logits_processors": processors}


# --- Requests of a group

RequestKind = Literal["prompt", "others", "own", "pass"]
"""What a request's new tokens are: the prompt that all workers begin with, one of the headers, or what a worker reads
in a pass."""

Size = Annotated[int, Field(ge=0)]


class WorkerRequest(Frozen):
    """What one request is for its group.

    Attributes:
        group: Unique name of the group.
        kind: What its new tokens are.
        num_workers: Workers of the group.
        layout: What they see of one another.
        worker: Whose request it is.
        pass_number: Number of the pass, from 1.
        active: Workers that read in it, by number.
        moves: Workers whose text moves to the history before it, in this order.
        sizes: Tokens of the group's prompt, of its header before the others' texts, and of the one before a worker's
            own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    kind: RequestKind
    num_workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)]
    layout: Layout
    worker: Annotated[int, Field(ge=0, lt=MAX_WORKERS)] = 0
    pass_number: Annotated[int, Field(ge=0)] = 0
    active: tuple[int, ...] = ()
    moves: tuple[int, ...] = ()
    sizes: tuple[Size, Size, Size] = (0, 0, 0)

    def arguments(self) -> dict[str, Any]:
        """As `extra_args`."""
        return {KEY: self.model_dump(mode="json")}

    @classmethod
    def from_arguments(cls, extra_args: Mapping[str, Any] | None) -> WorkerRequest | None:
        """Read the `extra_args` of a request; None if it belongs to no group.

        Raises:
            ValueError: They are invalid.
        """
        value = (extra_args or {}).get(KEY)
        if value is None:
            return None
        try:
            return cls.model_validate(value)
        except ValidationError as e:
            raise ValueError(f"{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e


# --- Passes between their arrival at the scheduler and their step


@dataclass
class _PendingPass:
    """A pass that is being gathered or waits for its step.

    Attributes:
        size: Workers that read in it.
        members: Number of the worker and its request, by the request's id.
    """

    size: int
    members: dict[str, tuple[int, Any]] = field(default_factory=dict)


class PassGate:
    """Holds the requests of a pass until all of them have arrived, and checks that they get into one step."""

    def __init__(self) -> None:
        self._gathering: dict[str, _PendingPass] = {}
        self._released: dict[str, _PendingPass] = {}

    def add(self, worker_request: WorkerRequest, request_id: str, request: Any) -> list[Any]:
        """A worker's request has arrived.

        Returns:
            The requests to schedule: none while one is missing, else all of the pass, by worker.
        """
        group = worker_request.group
        gathering = self._gathering.setdefault(group, _PendingPass(len(worker_request.active)))
        gathering.members[request_id] = worker_request.worker, request
        if len(gathering.members) < gathering.size:
            return []
        self._released[group] = self._gathering.pop(group)
        return [request for _, request in sorted(gathering.members.values(), key=lambda member: member[0])]

    def discard(self, request_ids: Iterable[str]) -> None:
        """Requests have ended: the passes they belong to are dropped."""
        ended = set(request_ids)
        for passes in (self._gathering, self._released):
            for group in [g for g, one in passes.items() if ended & one.members.keys()]:
                del passes[group]

    def check_step(self, num_scheduled: Mapping[str, int], is_idle: bool) -> list[Any]:
        """Check which of the released passes a step contains.

        Args:
            is_idle: Whether nothing is running that could free blocks for waiting requests.

        Returns:
            Requests of passes that are lost: not all of a pass came into one step.
        """
        lost: list[Any] = []
        for group, one in list(self._released.items()):
            scheduled = [num_scheduled.get(request_id, 0) for request_id in one.members]
            expected = [len(request.prompt_token_ids) for _, request in one.members.values()]
            if scheduled == expected:
                del self._released[group]
            elif any(scheduled) or is_idle:
                del self._released[group]
                lost += [request for _, request in one.members.values()]
        return lost


# --- Keys and values of groups in a process of vLLM's


@dataclass(frozen=True)
class WorkerRow:
    """A request of a group in a step.

    Attributes:
        request: What it is for its group.
        first: Row of the batch at which its new tokens begin.
        count: Number of new tokens.
        num_computed: Tokens of its sequence before them.
    """

    request: WorkerRequest
    first: int
    count: int
    num_computed: int

    @property
    def rows(self) -> slice:
        """Its rows of the batch."""
        return slice(self.first, self.first + self.count)


@dataclass
class PassCounts:
    """What became of a group's passes.

    Attributes:
        shared: Passes in which workers saw one another.
        skipped: Passes in which they did not, since not all of them came into one step of the engine.
    """

    shared: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _BlockCopy:
    """Keys and values that go from rows of a batch into slots of a block."""

    block: CacheBlock
    slots: range
    rows: slice


class _GroupCache:
    """Blocks of one group, as in the embedded engine."""

    def __init__(self, request: WorkerRequest, blocks: Mapping[str, CacheBlock], own: Sequence[CacheBlock]) -> None:
        self.counts = PassCounts()
        self.history = blocks["prompt"]
        self.headers = {kind: blocks[kind] for kind in ("others", "own")}
        self._own = list(own)
        self._layout = request.layout
        self._pass_number = 0
        self._native_lengths: list[int] = []
        """Tokens of each worker's sequence in vLLM."""

    @property
    def blocks(self) -> Sequence[CacheBlock]:
        """All of them."""
        return self.history, *self.headers.values(), *self._own

    def block_of(self, kind: str) -> CacheBlock:
        """The block of the prompt or a header."""
        return self.history if kind == "prompt" else self.headers[kind]

    def chunks(self, rows: Sequence[WorkerRow], rotary: RotaryEmbedding) -> list[WorkerChunk] | None:
        """What the workers of a pass read, in the order of the rows; None if it is incomplete."""
        request = rows[0].request
        if not self._native_lengths:
            self._native_lengths = [len(self.history)] * len(self._own)
        workers = sorted(row.request.worker for row in rows)
        is_complete = workers == sorted(request.active) and request.pass_number == self._pass_number + 1
        if not is_complete or any(row.num_computed != self._native_lengths[row.request.worker] for row in rows):
            self.counts.skipped += 1
            return None
        self._pass_number = request.pass_number
        self.counts.shared += 1
        for worker in request.moves:
            self.history.absorb(self._own[worker], rotary)
        chunks: list[WorkerChunk] = []
        for row in rows:
            worker = row.request.worker
            own = self._own[worker]
            if not len(own):
                own.origin = row.num_computed
            self._native_lengths[worker] = row.num_computed + row.count
            chunks.append(WorkerChunk(self._view(worker), [0] * row.count, row.num_computed))
        return chunks

    def _view(self, worker: int) -> tuple[CacheBlock, ...]:
        own = self._own[worker]
        if self._layout == "interleaved":
            return self.history, own
        rest = (block for block in self._own if block is not own)
        before, after = ((block,) if len(block) else () for block in (self.headers["others"], self.headers["own"]))
        return (self.history, *before, *rest, *after, own)


@dataclass(frozen=True)
class SharedStep:
    """A step of the engine: what is copied from it, and whose attention is computed here.

    Attributes:
        layers: Number of each layer by its name.
        copies: Prompts and headers.
        attention: That of the passes in it; None if there is none.
        rows: Rows of the batch that belong to them, in the order of `attention`.
        is_exclusive: Whether there are no other rows.
    """

    layers: Mapping[str, int]
    copies: Sequence[_BlockCopy] = ()
    attention: SharedCacheAttention | None = None
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    is_exclusive: bool = False

    def attend(self, layer: str, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Copy keys and values of a layer, and write the attention of the shared rows into the output.

        Args:
            query: `[tokens, heads, head_dim]`, rotated to the positions of the sequences.
            key: `[tokens, kv_heads, head_dim]`, likewise.
            output: `[tokens, heads, head_dim]`.
        """
        number = self.layers[layer]
        for copy in self.copies:
            target = copy.block.kv[number][:, :, copy.slots.start : copy.slots.stop]
            target[0] = key[copy.rows].transpose(0, 1)
            target[1] = value[copy.rows].transpose(0, 1)
        if self.attention is not None:
            rows = self.rows
            qkv = torch.cat((query[rows], key[rows], value[rows]), 1)
            output[rows] = self.attention.attend(number, qkv).view(len(rows), *output.shape[1:])


class GroupCaches:
    """Keys and values of all groups of a process."""

    def __init__(self, config: ModelConfig, layers: Sequence[str], dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._layers = {name: i for i, name in enumerate(layers)}
        self._config = replace(config, num_layers=len(layers))  # a stage of a pipeline has some of the model's
        self._rotary = RotaryEmbedding(self._config, torch.float32, device)
        self._groups: dict[str, _GroupCache] = {}

    def step(self, rows: Sequence[WorkerRow], num_tokens: int) -> SharedStep:
        """What a step does."""
        copies: list[_BlockCopy] = []
        passes: dict[str, list[WorkerRow]] = {}
        for row in rows:
            if row.request.kind == "pass":
                passes.setdefault(row.request.group, []).append(row)
            else:
                copies += self._copies(row)
        chunks: list[WorkerChunk] = []
        shared: list[int] = []
        for name, members in passes.items():
            members.sort(key=lambda row: row.request.worker)
            group = self._groups.get(name)
            group_chunks = None if group is None else group.chunks(members, self._rotary)
            if group_chunks is not None:
                chunks += group_chunks
                shared += [i for row in members for i in range(row.rows.start, row.rows.stop)]
        if not chunks:
            return SharedStep(self._layers, copies)
        attention = SharedCacheAttention(self._config, self._rotary, chunks, self._device)
        index = torch.tensor(shared, device=self._device)
        return SharedStep(self._layers, copies, attention, index, len(shared) == num_tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values of all groups, used or not."""
        return sum(block.nbytes for group in self._groups.values() for block in group.blocks)

    def close(self, name: str) -> PassCounts:
        """Forget a group."""
        group = self._groups.pop(name, None)
        return PassCounts() if group is None else group.counts

    def _copies(self, row: WorkerRow) -> list[_BlockCopy]:
        """What of a prompt or a header is copied: what no other request of the group has brought before."""
        group = self._groups.get(row.request.group)
        if group is None:
            group = self._groups[row.request.group] = self._new_group(row.request)
        block = group.block_of(row.request.kind)
        known = len(block) - row.num_computed
        if not 0 <= known < row.count:
            return []
        slots = block.allocate([0] * (row.count - known))
        return [_BlockCopy(block, slots, slice(row.first + known, row.first + row.count))]

    def _new_group(self, request: WorkerRequest) -> _GroupCache:
        def block(tokens: int = 0) -> CacheBlock:
            config = self._config
            return CacheBlock(
                len(self._layers), config.num_kv_heads, config.head_dim, self._dtype, tokens, self._device
            )

        fixed = {kind: block(size) for kind, size in zip(("prompt", "others", "own"), request.sizes, strict=True)}
        return _GroupCache(request, fixed, [block() for _ in range(request.num_workers)])
