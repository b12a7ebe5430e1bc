"""`Part`: what a request of vLLM's says of the group of workers that it belongs to.

`Groups`: keys and values of groups of workers in a process of vLLM's, and what a step of its engine does to them.

It is apart from vLLM: rows of a batch are told, queries, keys and values are handed over layer by layer. Nothing here
may raise into the engine, which would end it: a pass that is not whole is not shared, and is counted.

`Gangs`: passes of workers between their arrival at vLLM's scheduler and the step in which they are computed.

Apart from vLLM: requests are taken as they come.

What workers on a shared cache need of vLLM, the model and the settings: refused at the start where it is not so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor

from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.settings import VllmSettings, user_error_of
from ..local.config import OWN_FAMILIES, ModelShape
from ..local.rope import Rotary
from ..local.shared_cache import Block, Feed, SharedPlan
from ..worker_group import MOST_WORKERS, Layout

KEY = "reason_workers"
"""Under this key of a request's `extra_args` it lies."""

Kind = Literal["prompt", "others", "own", "pass"]
"""What a request's new tokens are: the prompt that all workers begin with, one of the headers, or what a worker reads
in a pass."""


Size = Annotated[int, Field(ge=0)]


class Part(Frozen):
    """What one request is for its group.

    Attributes:
        group: Name that no other group of the engine has or had.
        kind: What its new tokens are.
        workers: Workers of the group.
        layout: What they see of one another.
        worker: Whose request it is.
        turn: Number of the pass, from 1.
        reading: Workers that read in it, by number.
        moves: Workers whose text joins the history before it, in this order.
        sizes: Tokens of the group's prompt, of its header before the others' texts, and of the one before one's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    kind: Kind
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)]
    layout: Layout
    worker: Annotated[int, Field(ge=0, lt=MOST_WORKERS)] = 0
    turn: Annotated[int, Field(ge=0)] = 0
    reading: tuple[int, ...] = ()
    moves: tuple[int, ...] = ()
    sizes: tuple[Size, Size, Size] = (0, 0, 0)

    def arguments(self) -> dict[str, Any]:
        """As `extra_args`."""
        return {KEY: self.model_dump(mode="json")}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Part | None:
        """The part of a request; None if it belongs to no group.

        Raises:
            ValueError: It makes no sense.
        """
        given = (extra_args or {}).get(KEY)
        if given is None:
            return None
        try:
            return cls.model_validate(given)
        except ValidationError as e:
            raise ValueError(f"{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e


@dataclass(frozen=True)
class Row:
    """A request in a step.

    Attributes:
        part: What it is for its group.
        first: Row of the batch at which its new tokens begin.
        count: How many there are.
        computed: Tokens of its sequence before them.
    """

    part: Part
    first: int
    count: int
    computed: int

    @property
    def rows(self) -> slice:
        """Its rows of the batch."""
        return slice(self.first, self.first + self.count)


@dataclass
class Counts:
    """What became of a group's passes.

    Attributes:
        shared: Passes in which workers saw one another.
        skipped: Passes in which they did not, since not all of them came into one step of the engine.
    """

    shared: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Write:
    """Keys and values that go from rows of a batch into columns of a block."""

    block: Block
    columns: range
    rows: slice


class _Group:
    """Blocks of one group, as the embedded engine has them."""

    def __init__(self, part: Part, block: Mapping[str, Block], steps: Sequence[Block]) -> None:
        self.counts = Counts()
        self.prompt = block["prompt"]
        self.headers = {kind: block[kind] for kind in ("others", "own")}
        self._steps = list(steps)
        self._layout = part.layout
        self._turn = 0
        self._native: list[int] = []
        """Tokens of each worker's sequence as vLLM has it."""

    @property
    def blocks(self) -> Sequence[Block]:
        """All of them."""
        return self.prompt, *self.headers.values(), *self._steps

    def blocks_of(self, kind: str) -> Block:
        """Where a prompt or header goes."""
        return self.prompt if kind == "prompt" else self.headers[kind]

    def feeds(self, rows: Sequence[Row], rotary: Rotary) -> list[Feed] | None:
        """What the workers of a pass read, in the order of the rows; None if it is not whole."""
        part = rows[0].part
        if not self._native:
            self._native = [len(self.prompt)] * len(self._steps)
        whole = sorted(row.part.worker for row in rows) == sorted(part.reading) and part.turn == self._turn + 1
        if not whole or any(row.computed != self._native[row.part.worker] for row in rows):
            self.counts.skipped += 1
            return None
        self._turn = part.turn
        self.counts.shared += 1
        for worker in part.moves:
            self.prompt.absorb(self._steps[worker], rotary)
        made: list[Feed] = []
        for row in rows:
            worker = row.part.worker
            mine = self._steps[worker]
            if not len(mine):
                mine.origin = row.computed
            self._native[worker] = row.computed + row.count
            made.append(Feed(self._view(worker), [0] * row.count, row.computed))
        return made

    def _view(self, worker: int) -> tuple[Block, ...]:
        mine = self._steps[worker]
        if self._layout == "interleaved":
            return self.prompt, mine
        rest = (step for step in self._steps if step is not mine)
        others, own = ((block,) if len(block) else () for block in (self.headers["others"], self.headers["own"]))
        return (self.prompt, *others, *rest, *own, mine)


@dataclass(frozen=True)
class SharedStep:
    """A step of the engine: what is kept of it, and whose attention is computed here.

    Attributes:
        layers: Number of each layer by its name.
        writes: Prompts and headers.
        plan: The passes in it; None if there is none.
        rows: Rows of the batch that belong to them, in the plan's order.
        alone: Whether there are no other rows.
    """

    layers: Mapping[str, int]
    writes: Sequence[_Write] = ()
    plan: SharedPlan | None = None
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    alone: bool = False

    def attend(self, layer: str, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Keep what is to be kept of a layer, and put the attention of the shared rows into the output.

        Args:
            layer: Its name.
            query: `[tokens, heads, head_dim]`, turned to the positions of the sequences.
            key: `[tokens, kv_heads, head_dim]`, likewise.
            value: As the keys.
            output: `[tokens, heads, head_dim]`.
        """
        number = self.layers[layer]
        for write in self.writes:
            kept = write.block.kv[number][:, :, write.columns.start : write.columns.stop]
            kept[0] = key[write.rows].transpose(0, 1)
            kept[1] = value[write.rows].transpose(0, 1)
        if self.plan is not None:
            rows = self.rows
            qkv = torch.cat((query[rows], key[rows], value[rows]), 1)
            output[rows] = self.plan.attend(number, qkv).view(len(rows), *output.shape[1:])


class Groups:
    """All groups of a process.

    Args:
        shape: Sizes of the part of the model that lies in this process.
        layers: Names of its layers, in order.
        dtype: Number format of keys and values.
        device: Where they lie.
    """

    def __init__(self, shape: ModelShape, layers: Sequence[str], dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self._layers = {name: i for i, name in enumerate(layers)}
        self._rotary = Rotary(shape, torch.float32, device)
        self._groups: dict[str, _Group] = {}

    def step(self, rows: Sequence[Row], tokens: int) -> SharedStep:
        """What a step does.

        Args:
            rows: Its requests that belong to groups.
            tokens: All new tokens in it.
        """
        writes: list[_Write] = []
        passes: dict[str, list[Row]] = {}
        for row in rows:
            if row.part.kind == "pass":
                passes.setdefault(row.part.group, []).append(row)
            else:
                writes += self._kept(row)
        feeds: list[Feed] = []
        shared: list[int] = []
        for name, together in passes.items():
            together.sort(key=lambda row: row.part.worker)
            group = self._groups.get(name)
            made = None if group is None else group.feeds(together, self._rotary)
            if made is not None:
                feeds += made
                shared += [i for row in together for i in range(row.rows.start, row.rows.stop)]
        if not feeds:
            return SharedStep(self._layers, writes)
        plan = SharedPlan(self._shape, self._rotary, feeds, self._device)
        index = torch.tensor(shared, device=self._device)
        return SharedStep(self._layers, writes, plan, index, len(shared) == tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values of all groups, used or not."""
        return sum(block.nbytes for group in self._groups.values() for block in group.blocks)

    def close(self, name: str) -> Counts:
        """Forget a group."""
        group = self._groups.pop(name, None)
        return Counts() if group is None else group.counts

    def _kept(self, row: Row) -> list[_Write]:
        """What of a prompt or a header is kept: what no other request of the group has brought before."""
        group = self._groups.get(row.part.group)
        if group is None:
            group = self._groups[row.part.group] = self._made(row.part)
        block = group.blocks_of(row.part.kind)
        known = len(block) - row.computed
        if not 0 <= known < row.count:
            return []
        columns = block.reserve([0] * (row.count - known))
        return [_Write(block, columns, slice(row.first + known, row.first + row.count))]

    def _made(self, part: Part) -> _Group:
        def block(tokens: int = 0) -> Block:
            shape = self._shape
            return Block(len(self._layers), shape.kv_heads, shape.head_dim, self._dtype, self._device, tokens)

        fixed = {kind: block(size) for kind, size in zip(("prompt", "others", "own"), part.sizes, strict=True)}
        return _Group(part, fixed, [block() for _ in range(part.workers)])


@dataclass
class _Pass:
    """A pass that is being gathered or waits for its step.

    Attributes:
        size: Workers that read in it.
        members: Their requests, as they have come, by the request's name.
    """

    size: int
    members: dict[str, Any] = field(default_factory=dict)


class Gangs:
    """The passes that are on their way."""

    def __init__(self) -> None:
        self._held: dict[str, _Pass] = {}
        self._released: dict[str, _Pass] = {}

    def arrive(self, part: Part, name: str, request: Any) -> list[Any]:
        """A worker has come.

        Args:
            part: What its request is for the group.
            name: Of the request.
            request: The request itself.

        Returns:
            The requests that may go on: none while somebody is missing, else all of the pass, by worker.
        """
        held = self._held.setdefault(part.group, _Pass(len(part.reading)))
        held.members[name] = part.worker, request
        if len(held.members) < held.size:
            return []
        self._released[part.group] = self._held.pop(part.group)
        return [request for _, request in sorted(held.members.values(), key=lambda pair: pair[0])]

    def forget(self, names: Iterable[str]) -> None:
        """Requests have ended: a pass that they were to be in does not come about."""
        gone = set(names)
        for passes in (self._held, self._released):
            for group in [g for g, one in passes.items() if gone & one.members.keys()]:
                del passes[group]

    def judge(self, scheduled: Mapping[str, int], idle: bool) -> list[Any]:
        """See what a step makes of the passes that wait for it.

        Args:
            scheduled: Tokens of each request in it.
            idle: Whether nothing is under way that could make room for those who wait.

        Returns:
            Requests of passes that are lost.
        """
        lost: list[Any] = []
        for group, one in list(self._released.items()):
            got = [scheduled.get(name, 0) for name in one.members]
            wanted = [len(request.prompt_token_ids) for _, request in one.members.values()]
            if got == wanted:
                del self._released[group]
            elif any(got) or idle:
                del self._released[group]
                lost += [request for _, request in one.members.values()]
        return lost


TESTED = ("0.32",)
"""Versions of vLLM, to the minor number, that this was tested with: what it overrides is no stable interface."""

SCHEDULER = "reason.serving.vllm.shared.gang_scheduler.GangScheduler"
ROWS = "reason.serving.vllm.shared.rows:WorkerRows"

_OURS = ("scheduler_cls", "async_scheduling", "attention_config", "attention_backend", "kv_cache_dtype")
_IN_THE_WAY = ("speculative_config", "data_parallel_size", "decode_context_parallel_size")


def shared_arguments(folder: Path, settings: VllmSettings, version: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` by which an engine's workers can share their cache.

    Args:
        folder: The model's folder.
        settings: What the user chose.
        version: Of vLLM.
        given: The engine's other arguments.

    Raises:
        UserError: This version of vLLM is not a tested one; the model's attention is none that can be shared; or a
            setting stands in the way.
        DataError: The model's configuration is missing or broken.
    """
    minor = ".".join(version.split(".")[:2])
    if minor not in TESTED:
        raise UserError(
            f"setting vllm.shared_workers: not tested with vLLM {version}",
            hint=f"install vLLM {' or '.join(TESTED)}, use local/… for workers on one cache, or leave the setting off",
        )
    if not ModelShape.is_ours(folder):
        raise UserError(
            "setting vllm.shared_workers: this model's attention is none whose cache can be shared",
            hint=f"models of type {', '.join(OWN_FAMILIES)} without sliding windows are; else leave the setting off",
        )
    if settings.draft != "off":
        raise UserError("setting vllm.draft does not go with vllm.shared_workers", hint="leave one of them out")
    taken = sorted(set(settings.engine) & {*_OURS, *_IN_THE_WAY})
    if taken:
        raise UserError(
            f"setting vllm.engine.{taken[0]} does not go with vllm.shared_workers", hint="leave one of them out"
        )
    processors = [*given["logits_processors"], ROWS]
    return {"scheduler_cls": SCHEDULER, "async_scheduling": False, "logits_processors": processors}
