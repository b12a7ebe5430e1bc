"""`Groups`: keys and values of groups of workers in a process of vLLM's, and what a step of its engine does to them.

It is apart from vLLM: rows of a batch are told, queries, keys and values are handed over layer by layer. Nothing here
may raise into the engine, which would end it: a pass that is not whole is not shared, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...local.families import ModelShape
from ...local.rotary import Rotary
from ...local.shared.block import Block
from ...local.shared.shared_plan import Feed, SharedPlan
from .part import Part


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
