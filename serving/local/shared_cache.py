"""A KV cache that workers share: every key and value is stored once, and each worker reads it at its own position.

A worker's view is a list of blocks. The query of a row is rotated once for each block of its view, to the row's
position as counted from that block's beginning. So a block is read as it is stored, once for all rows that see it,
wherever their views have it.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261, section 3.3 (rotating queries instead of the cache).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .attention import attention_with_lse, merge_attention_states
from .config import ModelConfig
from .rope import CosSin, RotaryEmbedding

if TYPE_CHECKING:
    from .model import Decoder

MIN_BLOCK_CAPACITY = 64
"""Slots of the smallest block."""
PREFILL_CHUNK = 256
"""Tokens of a text that are computed together, where it is prefilled before the workers start."""


def initial_capacity(tokens: int) -> int:
    """Slots of a new block for so many tokens."""
    return max(MIN_BLOCK_CAPACITY, tokens)


def grown_capacity(capacity: int, tokens: int) -> int:
    """Slots of a block with `capacity`, once it has so many tokens: unchanged, or at least doubled."""
    return capacity if tokens <= capacity else max(2 * capacity, tokens)


class CacheBlock:
    """Keys and values of a run of tokens, stored once, for any number of views.

    Keys are rotated as if the block began at position `origin`; its position in a view is a matter of the query that
    reads it.

    Attributes:
        kv: Per layer `[2, num_kv_heads, capacity, head_dim]`: keys, then values.
        origin: Position that its first key is rotated to.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        tokens: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.token_ids: list[int] = []
        self.origin = 0
        size = (2, num_kv_heads, initial_capacity(tokens), head_dim)
        self.kv = [torch.zeros(size, dtype=dtype, device=device) for _ in range(num_layers)]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def capacity(self) -> int:
        """Slots that fit without growing."""
        return self.kv[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(kv.nbytes for kv in self.kv)

    def allocate(self, token_ids: Sequence[int]) -> range:
        """Append tokens, whose keys and values are still to be written; grows if it is full.

        Returns:
            Their slots.
        """
        first = len(self.token_ids)
        capacity = grown_capacity(self.capacity, first + len(token_ids))
        if capacity > self.capacity:
            for i, old in enumerate(self.kv):
                new = old.new_zeros(2, old.shape[1], capacity, old.shape[3])
                new[:, :, :first] = old[:, :, :first]
                self.kv[i] = new
        self.token_ids.extend(token_ids)
        return range(first, len(self.token_ids))

    def clear(self) -> None:
        """Forget the tokens; the capacity stays."""
        self.token_ids.clear()

    def absorb(self, other: CacheBlock, rotary: RotaryEmbedding) -> None:
        """Append all of another block, and leave that one empty.

        Its keys are rotated to the positions that follow those of the keys here. Its values are copied.
        """
        count = len(other)
        slots = self.allocate(other.token_ids)
        distance = torch.tensor([self.origin + slots.start - other.origin])
        tables = rotary.cos_sin(distance)
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            keys = _at_least_fp32(theirs[0, :, :count])
            rotated = rotary.rotate(keys, (tables[0].to(keys), tables[1].to(keys)))
            mine[0, :, slots.start : slots.stop] = rotated.to(mine.dtype)
            mine[1, :, slots.start : slots.stop] = theirs[1, :, :count]
        other.clear()


def _at_least_fp32(x: Tensor) -> Tensor:
    """The same numbers in a format in which they can be rotated."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class WorkerChunk:
    """New tokens of one worker in a pass.

    Attributes:
        view: The blocks that it sees, in the order in which it sees them. It writes into the last one.
        token_ids: Its next tokens, at least one.
        rotated_at: Position that the query and the key of the first of them are rotated to already, as by an engine
            that does not know of blocks; None if they are not rotated. The written block must continue at it.
    """

    view: tuple[CacheBlock, ...]
    token_ids: Sequence[int]
    rotated_at: int | None = None


@dataclass(frozen=True)
class _BlockRead:
    """One block, and the parts that attend to it."""

    block: CacheBlock
    length: int
    parts: slice
    mask: Tensor | None


class SharedCacheAttention:
    """Attention of one pass.

    All keys and values are written before any worker attends, so that workers see each other's newest token. Creating
    it allocates the slots; keys and values follow layer by layer.

    Args:
        chunks: New tokens of each worker; no two write into one block, and no view shows a block twice. The queries and
            keys of all of them are rotated already, or of none.

    Raises:
        ValueError: Two workers would write into one block, a view shows one twice, a chunk is empty, or rotated tokens
            do not continue their block.
    """

    def __init__(
        self,
        config: ModelConfig,
        rotary: RotaryEmbedding,
        chunks: Sequence[WorkerChunk],
        device: torch.device | None = None,
    ) -> None:
        _check(chunks)
        self._config, self._rotary, self._device = config, rotary, device
        self._num_rows = sum(len(chunk.token_ids) for chunk in chunks)
        is_rotated = chunks[0].rotated_at is not None
        self._writes: list[tuple[CacheBlock, range, slice]] = []
        written: list[int] = []
        for chunk in chunks:
            slots = chunk.view[-1].allocate(chunk.token_ids)
            self._writes.append((chunk.view[-1], slots, slice(len(written), len(written) + len(slots))))
            written.extend(slots)
        self._key_tables = None if is_rotated else self._per_head(written)
        self._reads, rows, positions = self._plan_reads(chunks)
        self._query_tables = self._per_head(positions)
        # None where every row attends to every block, in the rows' order; `folded_rows` are those of the query heads
        # that share a key head
        self._part_rows: Tensor | None = None
        self._folded_rows: Tensor | None = None
        if rows != list(range(self._num_rows)) * len(self._reads):
            group = config.num_heads // config.num_kv_heads
            self._part_rows = torch.tensor(rows, device=device)
            self._folded_rows = (self._part_rows[:, None] * group + torch.arange(group, device=device)).flatten()

    def _per_head(self, positions: Sequence[int]) -> CosSin:
        """Tables for rows of several heads."""
        cos, sin = self._rotary.cos_sin(torch.tensor(positions))
        return cos[:, None], sin[:, None]

    def _plan_reads(self, chunks: Sequence[WorkerChunk]) -> tuple[list[_BlockRead], list[int], list[int]]:
        """For each block the rows that attend to it and the positions by which their queries rotate: one list for all.

        That is a row's position, counted from the block's beginning; less what query and keys are rotated by already.
        """
        starts: list[dict[int, int]] = []  # position of each of its blocks in a worker's view
        ends: list[int] = []
        for chunk in chunks:
            length = 0
            start_of: dict[int, int] = {}
            for block in chunk.view:
                start_of[id(block)] = length
                length += len(block)
            starts.append(start_of)
            ends.append(length)
        blocks = {id(block): block for chunk in chunks for block in chunk.view if len(block)}
        reads: list[_BlockRead] = []
        rows: list[int] = []
        positions: list[int] = []
        for block in blocks.values():
            first_part = len(rows)
            seen_to: list[int] = []  # how many slots of the block each part sees
            row = 0
            for chunk, start_of, end in zip(chunks, starts, ends, strict=True):
                count = len(chunk.token_ids)
                if id(block) in start_of:
                    first = end - count - start_of[id(block)]
                    for i in range(count):
                        # of the tokens that a worker writes in this pass, each sees only those before it
                        seen_to.append(first + i + 1 if block is chunk.view[-1] else len(block))
                        rows.append(row + i)
                        rotated = chunk.rotated_at
                        positions.append(first + i if rotated is None else first - rotated + block.origin)
                row += count
            parts = slice(first_part, len(rows))
            reads.append(_BlockRead(block, len(block), parts, self._mask(block, seen_to)))
        return reads, rows, positions

    def _mask(self, block: CacheBlock, seen_to: Sequence[int]) -> Tensor | None:
        """What each part sees of a block; None where all see all of it."""
        if min(seen_to) == len(block):
            return None
        slots = torch.arange(len(block), device=self._device)
        mask = torch.zeros(len(seen_to), len(block), dtype=block.kv[0].dtype, device=self._device)
        mask.masked_fill_(slots >= torch.tensor(seen_to, device=self._device)[:, None], float("-inf"))
        return mask.repeat_interleave(self._config.num_heads // self._config.num_kv_heads, 0)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Write the keys and values of the pass, then attend block by block (see `Attention.attend`)."""
        num_heads, num_kv_heads, dim = self._config.num_heads, self._config.num_kv_heads, self._config.head_dim
        group = num_heads // num_kv_heads
        keys = qkv[:, num_heads : num_heads + num_kv_heads]
        if self._key_tables is not None:
            keys = self._rotary.rotate(_at_least_fp32(keys), self._key_tables).to(qkv.dtype)
        for block, slots, rows in self._writes:
            block.kv[layer][0, :, slots.start : slots.stop] = keys[rows].transpose(0, 1)
            block.kv[layer][1, :, slots.start : slots.stop] = qkv[rows, num_heads + num_kv_heads :].transpose(0, 1)
        query = _at_least_fp32(qkv[:, :num_heads])
        query = query.repeat(len(self._reads), 1, 1) if self._part_rows is None else query[self._part_rows]
        query = self._rotary.rotate(query, self._query_tables).to(qkv.dtype)
        # Query heads that share a key head become rows, so that a block is read once for all of them.
        folded = query.view(-1, num_kv_heads, group, dim).transpose(0, 1).reshape(num_kv_heads, -1, dim)
        outputs: list[Tensor] = []
        lses: list[Tensor] = []
        for read in self._reads:
            kv = read.block.kv[layer][:, :, : read.length]
            part = folded[:, read.parts.start * group : read.parts.stop * group]
            out, lse = attention_with_lse(part, kv[0], kv[1], read.mask, self._config.attention_scale)
            outputs.append(out)
            lses.append(lse)
        num_rows = self._num_rows
        merged = merge_attention_states(torch.cat(outputs, 1), torch.cat(lses, 1), self._folded_rows, num_rows * group)
        by_row = merged.to(qkv.dtype).view(num_kv_heads, num_rows, group * dim).transpose(0, 1)
        return by_row.reshape(num_rows, num_heads * dim)


def _check(chunks: Sequence[WorkerChunk]) -> None:
    written = [id(chunk.view[-1]) for chunk in chunks]
    if len(set(written)) < len(written):
        raise ValueError("two workers cannot write into one block")
    for chunk in chunks:
        if len({id(block) for block in chunk.view}) < len(chunk.view):
            raise ValueError("a view cannot show a block twice")
        if not chunk.token_ids:
            raise ValueError("a worker without tokens has no part in a pass")
        block = chunk.view[-1]
        end = block.origin + len(block)
        if (block.origin if chunk.rotated_at is None else chunk.rotated_at - end) != 0:
            raise ValueError(f"a worker at position {chunk.rotated_at} cannot continue a block that ends at {end}")
    if len({chunk.rotated_at is None for chunk in chunks}) > 1:
        raise ValueError("some workers' keys are rotated already, others' are not")


class SharedCache:
    """Blocks that workers share, and passes of workers over them. Lives on one thread."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._blocks: list[CacheBlock] = []

    @property
    def blocks(self) -> Sequence[CacheBlock]:
        """All blocks, in the order in which they were added."""
        return tuple(self._blocks)

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are stored."""
        return sum(map(len, self._blocks))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(block.nbytes for block in self._blocks)

    def add_block(self, token_ids: Sequence[int] = ()) -> CacheBlock:
        """A new block; given tokens are prefilled as if nothing preceded them."""
        block = self._decoder.new_block(len(token_ids))
        self._blocks.append(block)
        for start in range(0, len(token_ids), PREFILL_CHUNK):
            self._forward([WorkerChunk((block,), token_ids[start : start + PREFILL_CHUNK])], [])
        return block

    def forward(self, chunks: Sequence[WorkerChunk]) -> Tensor:
        """One pass of the workers that have tokens.

        Returns:
            Logits after the last token of each, `[chunks, vocab_size]`, fp32.

        Raises:
            ValueError: The chunks cannot be computed together (see `SharedCacheAttention`).
        """
        last: list[int] = []
        rows = 0
        for chunk in chunks:
            rows += len(chunk.token_ids)
            last.append(rows - 1)
        return self._forward(chunks, last)

    def move(self, finished: CacheBlock, history: CacheBlock) -> None:
        """Append a block's content to another block, and leave it empty."""
        history.absorb(finished, self._decoder.rotary)

    def clear(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()

    def _forward(self, chunks: Sequence[WorkerChunk], logit_rows: Sequence[int]) -> Tensor:
        decoder = self._decoder
        attention = SharedCacheAttention(decoder.config, decoder.rotary, chunks)
        return decoder.forward_rows([i for chunk in chunks for i in chunk.token_ids], attention, logit_rows)
