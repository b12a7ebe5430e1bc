"""`SharedPlan`: one pass of several workers over blocks that they read together.

The query of a row is turned once for each block of its view, to where the row stands as counted from that block's
beginning. So a block is read as it lies, once for all rows that see it, wherever their views have it.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261, section 3.3 (rotating queries instead of the cache).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families import ModelShape
from ..rotary import Rotary
from .attention import attend_with_weight, merge
from .block import Block, wide


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
