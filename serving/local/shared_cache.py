"""`Block`: tokens that stand side by side in every view that shows them.

`SharedPlan`: one pass of several workers over blocks that they read together.

The query of a row is turned once for each block of its view, to where the row stands as counted from that block's
beginning. So a block is read as it lies, once for all rows that see it, wherever their views have it.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261, section 3.3 (rotating queries instead of the cache).

`Workspace`: blocks, and passes of workers over them, on one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import attend_with_weight, merge
from .config import ModelShape
from .model import Decoder
from .rope import Rotary

MIN_CAPACITY = 64
"""Columns of the smallest block."""


def first_capacity(tokens: int) -> int:
    """Columns of a new block that is to hold so many tokens at once."""
    return max(MIN_CAPACITY, tokens)


def grown(capacity: int, tokens: int) -> int:
    """Columns of a block with so many, once it holds so many tokens: as many, or twice as many at least."""
    return capacity if tokens <= capacity else max(2 * capacity, tokens)


class Block:
    """Keys and values of a run of tokens, stored once, for any number of views.

    Keys are turned as if the block began at position `origin`: where it stands in a view, is the business of the query
    that reads it.

    Args:
        layers: Number of layers.
        kv_heads: Key/value heads.
        head_dim: Width of a head.
        dtype: Number format.
        device: Where it lies.
        tokens: Tokens that there is room for at first.

    Attributes:
        ids: Its tokens.
        kv: Per layer `[2, kv_heads, capacity, head_dim]`: keys, then values.
        origin: Position that its first key is turned to.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, tokens: int = 0
    ) -> None:
        self.ids: list[int] = []
        self.origin = 0
        size = (2, kv_heads, first_capacity(tokens), head_dim)
        self.kv = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int:
        """Columns there is room for."""
        return self.kv[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(kv.nbytes for kv in self.kv)

    def reserve(self, ids: Sequence[int]) -> range:
        """Take tokens; their keys and values are still to be written. It grows where there is no room.

        Returns:
            Their columns.
        """
        first = len(self.ids)
        capacity = grown(self.capacity, first + len(ids))
        if capacity > self.capacity:
            for i, old in enumerate(self.kv):
                new = old.new_zeros(2, old.shape[1], capacity, old.shape[3])
                new[:, :, :first] = old[:, :, :first]
                self.kv[i] = new
        self.ids.extend(ids)
        return range(first, len(self.ids))

    def clear(self) -> None:
        """Forget the tokens; the room stays."""
        self.ids.clear()

    def absorb(self, other: Block, rotary: Rotary) -> None:
        """Take all of another block behind what is here, and leave that one empty.

        Its keys turn to the positions that follow those of the keys here, purely, whatever factor the model gives its
        keys: they have theirs already. Its values are copied.
        """
        count = len(other)
        where = self.reserve(other.ids)
        cos, sin = rotary.shift(torch.tensor([self.origin + where.start - other.origin]))
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            keys, values = theirs[0, :, :count], theirs[1, :, :count]
            mine[0, :, where.start : where.stop] = rotary.rotate(wide(keys), on((cos, sin), keys)).to(mine.dtype)
            mine[1, :, where.start : where.stop] = values
        other.clear()


def wide(x: Tensor) -> Tensor:
    """The same numbers in a format in which they can be turned: at least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def on(tables: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Tables where `x` lies, and as precise as it is turned."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return tables[0].to(x.device, dtype), tables[1].to(x.device, dtype)


@dataclass(frozen=True)
class Feed:
    """What one worker reads in a pass.

    Attributes:
        view: The blocks that it sees, in the order in which it sees them. It writes into the last one.
        ids: Its next tokens, at least one.
        at: Position that the query and the key of the first of them are turned to already, as by an engine that does
            not know of blocks; None if they come as they are. The block that is written into must go on from there.
    """

    view: tuple[Block, ...]
    ids: Sequence[int]
    at: int | None = None


@dataclass(frozen=True)
class _Read:
    """One block, and the rows that read it."""

    block: Block
    length: int
    parts: slice
    mask: Tensor | None


class SharedPlan:
    """One pass: all keys and values are written before anybody attends, so that workers see each other's newest token.

    The tokens are reserved when the plan is made; keys and values follow layer by layer.

    Args:
        shape: Sizes of the model.
        rotary: Rotation.
        feeds: What each worker reads; no two write into one block, nor does a view show a block twice. The queries and
            keys of all of them are turned already, or of none.
        device: Where the model lies.

    Raises:
        ValueError: Two workers would write into one block, a view shows one twice, or somebody reads nothing; or what
            is turned already does not go on from its block.
    """

    def __init__(self, shape: ModelShape, rotary: Rotary, feeds: Sequence[Feed], device: torch.device) -> None:
        _check(feeds)
        self._shape, self._rotary = shape, rotary
        self._rows = sum(len(feed.ids) for feed in feeds)
        turned_already = feeds[0].at is not None
        self._writes: list[tuple[Block, range, slice]] = []
        written: list[int] = []
        for feed in feeds:
            columns = feed.view[-1].reserve(feed.ids)
            self._writes.append((feed.view[-1], columns, slice(len(written), len(written) + len(columns))))
            written.extend(columns)
        self._key_turn = None if turned_already else _of_heads(rotary.turn(torch.tensor(written)), device)
        self._reads: list[_Read] = []
        rows, turned = self._lay_out(feeds, device)
        self._part_rows: Tensor | None = None
        self._folded_rows: Tensor | None = None
        if rows != list(range(self._rows)) * len(self._reads):  # somebody does not see what the others see
            group = shape.heads // shape.kv_heads
            self._part_rows = torch.tensor(rows, device=device)
            folded = self._part_rows[:, None] * group + torch.arange(group, device=device)
            self._folded_rows = folded.flatten()
        by = rotary.shift(torch.tensor(turned)) if turned_already else rotary.turn(torch.tensor(turned))
        self._query_turn = _of_heads(by, device)

    def _lay_out(self, feeds: Sequence[Feed], device: torch.device) -> tuple[list[int], list[int]]:
        """For each block the rows that read it and the positions by which their queries turn: one list for all.

        That is where a row stands, counted from the block's beginning; less what query and keys are turned by before.
        """
        # Where each worker's view has each of its blocks.
        starts: list[dict[int, int]] = []
        ends: list[int] = []
        for feed in feeds:
            at = 0
            begins: dict[int, int] = {}
            for block in feed.view:
                begins[id(block)] = at
                at += len(block)
            starts.append(begins)
            ends.append(at)
        blocks = {id(block): block for feed in feeds for block in feed.view if len(block)}
        rows: list[int] = []
        turned: list[int] = []
        for block in blocks.values():
            first_part = len(rows)
            own: list[tuple[int, int]] = []
            row = 0
            for feed, begins, end in zip(feeds, starts, ends, strict=True):
                count = len(feed.ids)
                if id(block) in begins:
                    first = end - count - begins[id(block)]
                    if block is feed.view[-1] and count > 1:
                        own.append((len(rows) - first_part, count))
                    rows.extend(range(row, row + count))
                    if feed.at is None:
                        turned.extend(range(first, first + count))
                    else:
                        turned.extend([first - feed.at + block.origin] * count)
                row += count
            parts = slice(first_part, len(rows))
            self._reads.append(_Read(block, len(block), parts, self._mask(block, parts, own, device)))
        return rows, turned

    def _mask(self, block: Block, parts: slice, own: Sequence[tuple[int, int]], device: torch.device) -> Tensor | None:
        """What is hidden: of the tokens that a worker writes in this pass, each sees those before it alone."""
        if not own:
            return None
        mask = torch.zeros(parts.stop - parts.start, len(block), dtype=block.kv[0].dtype, device=device)
        for at, count in own:
            mask[at : at + count, -count:] = torch.full((count, count), float("-inf"), device=device).triu_(1)
        return mask.repeat_interleave(self._shape.heads // self._shape.kv_heads, 0)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Write the keys and values of the pass, then attend block by block."""
        heads, kv_heads, dim = self._shape.heads, self._shape.kv_heads, self._shape.head_dim
        group = heads // kv_heads
        keys = qkv[:, heads : heads + kv_heads]
        if self._key_turn is not None:
            keys = self._rotary.rotate(wide(keys), self._key_turn).to(qkv.dtype)
        for block, columns, rows in self._writes:
            block.kv[layer][0, :, columns.start : columns.stop] = keys[rows].transpose(0, 1)
            block.kv[layer][1, :, columns.start : columns.stop] = qkv[rows, heads + kv_heads :].transpose(0, 1)
        query = wide(qkv[:, :heads])
        query = query.repeat(len(self._reads), 1, 1) if self._part_rows is None else query[self._part_rows]
        query = self._rotary.rotate(query, self._query_turn).to(qkv.dtype)
        # Query heads that share a key head become rows, so that a block is read once for all of them.
        folded = query.view(-1, kv_heads, group, dim).transpose(0, 1).reshape(kv_heads, -1, dim)
        outs: list[Tensor] = []
        weights: list[Tensor] = []
        for read in self._reads:
            kv = read.block.kv[layer][:, :, : read.length]
            asked = folded[:, read.parts.start * group : read.parts.stop * group]
            out, weight = attend_with_weight(asked, kv[0], kv[1], read.mask, dim**-0.5)
            outs.append(out)
            weights.append(weight)
        whole = merge(torch.cat(outs, 1), torch.cat(weights, 1), self._folded_rows, self._rows * group)
        return (
            whole.to(qkv.dtype).view(kv_heads, self._rows, group * dim).transpose(0, 1).reshape(self._rows, heads * dim)
        )


def _of_heads(turn: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tables `[rows, head_dim]` for rows of several heads."""
    return turn[0].to(device)[:, None], turn[1].to(device)[:, None]


def _check(feeds: Sequence[Feed]) -> None:
    written = [id(feed.view[-1]) for feed in feeds]
    if len(set(written)) < len(written):
        raise ValueError("two workers cannot write into one block")
    for feed in feeds:
        if len({id(block) for block in feed.view}) < len(feed.view):
            raise ValueError("a view cannot show a block twice")
        if not feed.ids:
            raise ValueError("a worker without tokens has no part in a pass")
        mine = feed.view[-1]
        end = mine.origin + len(mine)
        if (mine.origin if feed.at is None else feed.at - end) != 0:
            raise ValueError(f"a worker at position {feed.at} cannot go on from {end}")
    if len({feed.at is None for feed in feeds}) > 1:
        raise ValueError("some workers' keys are turned already, others' are not")


CHUNK = 256
"""Tokens of a text that are computed together, where it is read before the workers begin."""


class Workspace:
    """What workers share.

    Lives on one thread. Every key and value that is in it is there once, however many workers read it.

    Args:
        decoder: Computes.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._blocks: list[Block] = []

    @property
    def blocks(self) -> Sequence[Block]:
        """All blocks, in the order in which they were opened."""
        return tuple(self._blocks)

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values are here."""
        return sum(map(len, self._blocks))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(block.nbytes for block in self._blocks)

    def open(self, ids: Sequence[int] = ()) -> Block:
        """A new block; with tokens, it is read from its own beginning, as if nothing stood before it."""
        block = self._decoder.open_block(len(ids))
        self._blocks.append(block)
        for start in range(0, len(ids), CHUNK):
            self._compute([Feed((block,), ids[start : start + CHUNK])], [])
        return block

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        """One pass.

        Args:
            feeds: What each worker reads; those that are not named stand still.

        Returns:
            Logits of what follows the last token of each, `[feeds, vocab]`, fp32.

        Raises:
            ValueError: The feeds do not go together (see `SharedPlan`).
        """
        last: list[int] = []
        rows = 0
        for feed in feeds:
            rows += len(feed.ids)
            last.append(rows - 1)
        return self._compute(feeds, last)

    def move(self, finished: Block, history: Block) -> None:
        """Put what a block holds behind what another one holds, and leave it empty."""
        history.absorb(finished, self._decoder.rotary)

    def clear(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()

    def _compute(self, feeds: Sequence[Feed], wanted: Sequence[int]) -> Tensor:
        plan = SharedPlan(self._decoder.shape, self._decoder.rotary, feeds, self._decoder.device)
        return self._decoder.compute([i for feed in feeds for i in feed.ids], plan, wanted)
