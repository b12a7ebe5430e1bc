"""Attention of one forward step over KV caches.

A step is a list of `TokenChunk`s, runs of new tokens of a sequence. `AttentionMetadata` has for one cache where their
keys and values go and which slots each token attends to; both models use it. `CacheAttention` computes the attention of
our own model: all chunks of one cache are attended by one call, in which the query heads that share a key head are
folded into rows, so that what several sequences share is read once. Where sequences that share a prefix have many slots
of their own, these are attended separately (`_CascadeAttention`): in one call each sequence would be multiplied with
the slots of all others, and masked.

Attention over parts of what a row sees is merged by the parts' log-sum-exp (`merge_attention_states`): caches that
workers share are read block by block (`shared_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .config import ModelConfig
from .kv_cache import SLOT_ALIGNMENT, KVCache, SlotTable, align_slots
from .rope import RotaryEmbedding
from .weights import has_amx, processor_flags

MAX_GATHERED_SLOTS = 8192
"""Maximum slots, those of the longest cache times the caches, that are copied in order to be attended by one call."""
MAX_COPIED_SLOTS = 2048
"""Maximum slots of sequences' own that are copied at a time; more take more memory, and no less time."""
READ_COST = 18
"""Cost of reading a slot for all sequences, in products of a sequence and a slot, as the further costs are."""
LSE_COST = 1.4
"""Cost of attention that also gives the log-sum-exp of its scores, relative to one that does not."""
OWN_SLOT_COST = 8
"""Cost of a slot that is copied and attended by one sequence."""
CASCADE_COST = 11_000
"""Cost of attention in two parts that does not depend on the slots."""


class Attention(Protocol):
    """What a decoder layer calls."""

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Attend.

        Args:
            qkv: `[rows, num_heads + 2 * num_kv_heads, head_dim]`, not rotated: queries, keys, values.

        Returns:
            `[rows, num_heads * head_dim]`.
        """


@dataclass(frozen=True)
class TokenChunk:
    """New tokens of one sequence.

    Attributes:
        cache: The sequence's cache.
        table: The sequence.
        token_ids: Its next tokens, at least one.
        logit_indices: Positions within `token_ids` whose logits are requested, ascending.
        parents: None for a run of tokens. Else the tokens are a tree of draft tokens: each one's parent among them, or
            -1 for the sequence's last token, which another chunk of the same step computes. A draft token attends to
            the sequence and to its own ancestors, and is appended to no sequence. In a cache, draft tokens come after
            all other tokens of the step (`group_by_cache`).
    """

    cache: KVCache
    table: SlotTable
    token_ids: Sequence[int]
    logit_indices: Sequence[int]
    parents: Sequence[int] | None = None

    @property
    def positions(self) -> list[int]:
        """Position of each token, before the step has appended its slots to any sequence."""
        start = len(self.table)
        if self.parents is None:
            return list(range(start, start + len(self.token_ids)))
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return [start + depth for depth in depths]

    def inner_mask(self, dtype: torch.dtype) -> Tensor:
        """What the tokens see of one another: `[tokens, tokens]`, 0 or minus infinity."""
        count = len(self.token_ids)
        mask = torch.full((count, count), float("-inf"), dtype=dtype)
        if self.parents is None:
            return mask.triu_(1)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                mask[i] = mask[parent]
            mask[i, i] = 0
        return mask


def group_by_cache(chunks: Sequence[TokenChunk]) -> list[TokenChunk]:
    """The chunks with those of one cache adjacent, caches in order of first appearance, draft tokens last."""
    first: dict[int, int] = {}
    for i, chunk in enumerate(chunks):
        first.setdefault(id(chunk.cache), i)
    return sorted(chunks, key=lambda c: (first[id(c.cache)], c.parents is not None))


class AttentionMetadata:
    """One step in one KV cache: where its tokens' keys and values go, and which slots each token attends to.

    Creating it allocates the slots and appends them to their sequences; keys and values follow layer by layer.

    Args:
        chunks: New tokens, all of one cache, which must have the capacity; draft tokens last.
        first_row: Row of the step at which they begin.
        explicit_mask: Whether there must be a mask, over exactly the used slots.

    Attributes:
        width: Number of slots that attention reads: full groups (`align_slots`) keep the bits of a row.
        is_causal: Whether the tokens are the first of the only sequence in the cache.
        is_decode: Whether every sequence has one new token and no draft tokens.
        mask: Additive mask `[tokens, width]`, 0 or minus infinity; None where all of it is visible, or where causal
            attention needs none.
    """

    def __init__(self, chunks: Sequence[TokenChunk], first_row: int = 0, *, explicit_mask: bool = False) -> None:
        self.cache, self.tables = chunks[0].cache, [c.table for c in chunks]
        self.positions = [position for chunk in chunks for position in chunk.positions]
        self.num_rows = len(self.positions)
        self.rows = slice(first_row, first_row + self.num_rows)
        self.is_causal = self.cache.used == 0 and len(chunks) == 1 and self.num_rows > 1
        self.is_decode = all(len(c.token_ids) == 1 and c.parents is None for c in chunks)
        self.slots = self.cache.allocate(self.num_rows)
        self.width = self.slots.stop if explicit_mask else align_slots(self.slots.stop)
        self.mask = self._append(chunks, explicit_mask)

    def _append(self, chunks: Sequence[TokenChunk], explicit_mask: bool) -> Tensor | None:
        """Append the slots to their sequences; the mask."""
        cache = self.cache
        if self.is_decode:
            cache.append_each(self.tables, self.slots)
            is_full = self.width == self.slots.stop
            if not explicit_mask and self.num_rows == 1 and is_full and cache.sees_all(self.tables[0]):
                return None
            return cache.attention_mask(self.tables, self.width)
        mask = torch.full((self.num_rows, self.width), float("-inf"), dtype=cache.dtype)
        row = 0
        for chunk in chunks:
            count, start = len(chunk.token_ids), self.slots.start + row
            # draft tokens see the token that their sequence has just been appended, which precedes them
            known = self.slots.start if chunk.parents is None else start
            mask[row : row + count, :known] = cache.attention_mask([chunk.table], known)
            mask[row : row + count, start : start + count] = chunk.inner_mask(cache.dtype)
            if chunk.parents is None:
                cache.append(chunk.table, self.slots[row : row + count])
            row += count
        return None if self.is_causal and not explicit_mask else mask


class CacheAttention:
    """Attention of one step over KV caches: causal where a cache is empty, masked elsewhere.

    Args:
        chunks: New tokens, those of one cache adjacent (`group_by_cache`); every cache must have the capacity.
    """

    def __init__(self, config: ModelConfig, rotary: RotaryEmbedding, chunks: Sequence[TokenChunk]) -> None:
        self._rotary = rotary
        steps: list[AttentionMetadata] = []
        row = 0
        for _, run in groupby(chunks, lambda chunk: id(chunk.cache)):
            steps.append(AttentionMetadata(list(run), row))
            row = steps[-1].rows.stop
        self._tables = rotary.fused_tables([position for step in steps for position in step.positions])
        self._parts = _parts(config, steps)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Write keys and values of the step, then attend cache by cache."""
        rotated = self._rotary.rotate(qkv, self._tables)
        if len(self._parts) == 1:
            return self._parts[0].attend(layer, rotated)
        return torch.cat([part.attend(layer, rotated[part.rows]) for part in self._parts])


def _parts(config: ModelConfig, steps: Sequence[AttentionMetadata]) -> list[_Part]:
    """The calls that attend."""
    parts: list[_Part] = []
    for is_single, group in groupby(steps, lambda step: step.num_rows == 1):
        several = list(group)
        width = max(step.width for step in several)
        if is_single and len(several) > 1 and len(several) * width <= MAX_GATHERED_SLOTS:
            parts.append(_GatheredCaches(config, several))
        else:
            parts.extend(_one_cache(config, step) for step in several)
    return parts


class _OneCache:
    """Attention of the tokens of one cache, in one call."""

    def __init__(self, config: ModelConfig, step: AttentionMetadata) -> None:
        self._step, self.rows = step, step.rows
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._group = config.num_heads // config.num_kv_heads
        self._scale = config.attention_scale
        rows = step.num_rows
        mask = step.mask
        self._is_causal = step.is_causal
        if self._is_causal and suits_products(step.cache.kv[0]):
            self._is_causal = False
            mask = torch.full((rows, step.width), float("-inf"), dtype=step.cache.dtype).triu_(1)
        self._padding = num_padding_rows(rows if self._is_causal else rows * self._group)
        self._mask: Tensor | None = None
        if mask is not None:
            folded = mask.repeat_interleave(self._group, 0)
            if self._padding:
                folded = torch.cat([folded, folded[-1:].expand(self._padding, -1)])
            self._mask = folded

    def attend(self, layer: int, rotated: Tensor) -> Tensor:
        """Attend `[rows, num_heads + 2 * num_kv_heads, head_dim]`, rotated."""
        step = self._step
        rows, kv_heads, group, dim = step.num_rows, self._num_kv_heads, self._group, self._head_dim
        visible = step.cache.kv[layer].narrow(2, 0, step.width)
        new = rotated[:, self._num_heads :].view(rows, 2, kv_heads, dim)
        visible.narrow(2, step.slots.start, rows).copy_(new.permute(1, 2, 0, 3))
        keys, values = visible.narrow(0, 0, 1), visible.narrow(0, 1, 1)
        query = rotated[:, : self._num_heads]
        if self._is_causal:
            out = functional.scaled_dot_product_attention(
                self._padded(query.transpose(0, 1)[None]),
                keys,
                values,
                is_causal=True,
                scale=self._scale,
                enable_gqa=True,
            )
            return out[0, :, :rows].transpose(0, 1).reshape(rows, self._num_heads * dim)
        if rows == 1:
            folded = query.view(1, kv_heads, group, dim)
        else:
            folded = (
                query.reshape(rows, kv_heads, group, dim).permute(1, 0, 2, 3).reshape(1, kv_heads, rows * group, dim)
            )
        out = attention(self._padded(folded)[0], keys[0], values[0], self._mask, self._scale)
        if self._padding:
            out = out[:, : rows * group]
        if rows == 1:
            return out.reshape(1, self._num_heads * dim)
        return out.reshape(kv_heads, rows, group, dim).permute(1, 0, 2, 3).reshape(rows, self._num_heads * dim)

    def _padded(self, query: Tensor) -> Tensor:
        """Queries `[1, heads, rows, head_dim]` with the padding rows repeated from the last."""
        if not self._padding:
            return query
        return torch.cat([query, query[:, :, -1:].expand(-1, -1, self._padding, -1)], 2)


def _one_cache(config: ModelConfig, step: AttentionMetadata) -> _OneCache | _CascadeAttention:
    """Attention of the tokens of one cache, in the way that costs least."""
    rows = step.num_rows
    cost_of_slot = rows + READ_COST
    if rows == 1 or not step.is_decode or cost_of_slot * step.width <= CASCADE_COST:
        return _OneCache(config, step)
    prefix = shared_slots(step.tables)
    if not prefix:
        return _OneCache(config, step)
    own = [table.slots[len(prefix) :] for table in step.tables]
    num_prefix = align_slots(max(prefix) + 1)
    cost = LSE_COST * cost_of_slot * num_prefix + OWN_SLOT_COST * rows * align_slots(max(map(len, own))) + CASCADE_COST
    is_cheaper = cost < cost_of_slot * step.width
    return _CascadeAttention(config, step, prefix, own) if is_cheaper else _OneCache(config, step)


def shared_slots(tables: Sequence[SlotTable]) -> list[int]:
    """The slots of the first positions that all sequences have in common."""
    # In lexicographical order, all others are between these two and share what they share.
    first, last = min(t.slots for t in tables), max(t.slots for t in tables)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


class _CascadeAttention:
    """Attention of sequences of one cache, one new token each, in two parts: their common prefix, and their own slots.

    The prefix is read once for all. A sequence's own slots, which lie between those of the others, are copied together
    and attended by that sequence only, so that the cost of a sequence does not depend on their number.

    Source: Juravsky et al. 2024, Hydragen, arXiv:2402.05099.

    Args:
        prefix: Slots that all sequences have in common, at least one.
        own: Each sequence's others, at least one.
    """

    def __init__(
        self, config: ModelConfig, step: AttentionMetadata, prefix: Sequence[int], own: Sequence[Sequence[int]]
    ) -> None:
        self._step, self.rows = step, step.rows
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._group = config.num_heads // config.num_kv_heads
        self._scale = config.attention_scale
        cache = step.cache
        self._num_prefix = align_slots(max(prefix) + 1)
        self._padding = num_padding_rows(step.num_rows * self._group)
        mask = torch.full((self._num_prefix,), float("-inf"), dtype=cache.dtype)
        mask[torch.tensor(prefix)] = 0
        self._prefix_mask = mask.expand(step.num_rows * self._group + self._padding, -1)
        max_rows = max(1, MAX_COPIED_SLOTS // align_slots(max(map(len, own))))
        self._blocks = [self._block(own, slice(i, i + max_rows)) for i in range(0, len(own), max_rows)]
        numel = max(index.numel() for _, index, _ in self._blocks) * config.head_dim
        self._copies = torch.empty(numel, dtype=cache.dtype)

    def _block(self, own: Sequence[Sequence[int]], block: slice) -> tuple[slice, Tensor, Tensor]:
        """Some of the sequences, where their own slots are among all heads' keys and values, and a mask."""
        lists = own[block]
        width, kv_heads = align_slots(max(map(len, lists))), self._num_kv_heads
        slots = torch.tensor([[*row, *[0] * (width - len(row))] for row in lists])
        lengths = torch.tensor([len(row) for row in lists])
        mask = torch.zeros(len(lists), 1, width, dtype=self._step.cache.dtype)
        mask.masked_fill_(torch.arange(width) >= lengths[:, None, None], float("-inf"))
        capacity = self._step.cache.kv[0].shape[2]
        index = torch.arange(2 * kv_heads)[:, None] * capacity + slots.view(1, -1)
        return block, index.flatten(), mask.repeat(kv_heads, 1, 1).expand(-1, self._group, -1)

    def attend(self, layer: int, rotated: Tensor) -> Tensor:
        """Attend `[rows, num_heads + 2 * num_kv_heads, head_dim]`, rotated."""
        step = self._step
        rows, kv_heads, group, dim = step.num_rows, self._num_kv_heads, self._group, self._head_dim
        kv = step.cache.kv[layer]
        new = rotated[:, self._num_heads :].view(rows, 2, kv_heads, dim)
        kv.narrow(2, step.slots.start, rows).copy_(new.permute(1, 2, 0, 3))
        query = rotated[:, : self._num_heads].reshape(rows, kv_heads, group, dim).transpose(0, 1).contiguous()
        folded = query.view(kv_heads, rows * group, dim)
        if self._padding:
            folded = torch.cat([folded, folded[:, -1:].expand(-1, self._padding, -1)], 1)
        visible = kv.narrow(2, 0, self._num_prefix)
        out, lse = attention_with_lse(folded, visible[0], visible[1], self._prefix_mask, self._scale)
        outputs, lses = [out[:, : rows * group]], [lse[:, : rows * group]]
        for block, index, mask in self._blocks:
            copies = self._copies[: index.numel() * dim].view(-1, dim)
            torch.index_select(kv.view(-1, dim), 0, index, out=copies)
            keys, values = copies.view(2, mask.shape[0], mask.shape[2], dim)
            # A head of a sequence is a head of this call: each has slots and a mask of its own.
            out, lse = attention_with_lse(query[:, block].reshape(-1, group, dim), keys, values, mask, self._scale)
            outputs.append(out.reshape(kv_heads, -1, dim))
            lses.append(lse.reshape(kv_heads, -1))
        merged = merge_attention_states(torch.cat(outputs, 1), torch.cat(lses, 1), None, rows * group)
        by_row = merged.to(rotated.dtype).view(kv_heads, rows, group * dim).transpose(0, 1)
        return by_row.reshape(rows, self._num_heads * dim)


class _GatheredCaches:
    """Attention of several caches with one new token each, by one call over adjacent copies.

    A call has a fixed cost: for caches that are not too long it exceeds that of copying their slots.
    """

    def __init__(self, config: ModelConfig, steps: Sequence[AttentionMetadata]) -> None:
        self._steps = steps
        self.rows = slice(steps[0].rows.start, steps[-1].rows.stop)
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._group = config.num_heads // config.num_kv_heads
        self._scale = config.attention_scale
        width, rows, dtype = max(s.width for s in steps), len(steps), steps[0].cache.dtype
        self._padding = num_padding_rows(self._group)
        self._copies = torch.zeros(2, rows, config.num_kv_heads, width, config.head_dim, dtype=dtype)
        mask = torch.full((rows, 1, 1, width), float("-inf"), dtype=dtype)
        for i, step in enumerate(steps):
            seen = step.cache.attention_mask(step.tables, step.width) if step.mask is None else step.mask
            mask[i, 0, :, : step.width] = seen
        mask = mask.expand(-1, config.num_kv_heads, self._group + self._padding, -1)
        self._mask = mask.flatten(0, 1)

    def attend(self, layer: int, rotated: Tensor) -> Tensor:
        """Attend `[caches, num_heads + 2 * num_kv_heads, head_dim]`, rotated."""
        rows, kv_heads, dim = len(self._steps), self._num_kv_heads, self._head_dim
        new = rotated[:, self._num_heads :].view(rows, 2, kv_heads, dim)
        for i, step in enumerate(self._steps):
            kv = step.cache.kv[layer]
            kv[:, :, step.slots.start] = new[i]
            self._copies[:, i, :, : step.width] = kv[:, :, : step.width]
        query = rotated[:, : self._num_heads].reshape(rows, kv_heads, self._group, dim)
        if self._padding:
            query = torch.cat([query, query[:, :, -1:].expand(-1, -1, self._padding, -1)], 2)
        keys, values = self._copies.flatten(1, 2)
        out = attention(query.flatten(0, 1), keys, values, self._mask, self._scale)
        return out[:, : self._group].reshape(rows, self._num_heads * dim)


_Part = _OneCache | _GatheredCaches | _CascadeAttention


def num_padding_rows(rows: int) -> int:
    """Query rows to add so that attention's kernel gives each row the same bits in any batch.

    The kernel computes queries in blocks of 32, of 64 from 192 rows on and of 256 from 768 rows on (torch's flash
    attention for CPUs); a last block of fewer than 4 rows was measured to sum in another order.
    """
    block = 32 if rows < 192 else 64 if rows < 768 else 256
    rest = rows % block
    return 4 - rest if 0 < rest < 4 else 0


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of `[heads, rows, head_dim]`; arguments as those of `attention_with_lse`."""
    if suits_products(query):
        return attention_by_products(query, keys, values, mask, scale)[0]
    bias = None if mask is None else mask.view(1, -1, *mask.shape[-2:])
    return functional.scaled_dot_product_attention(query[None], keys[None], values[None], attn_mask=bias, scale=scale)[
        0
    ]


# --- Attention by matrix products of oneDNN, for processors with bf16 instructions but without AMX
#
# There torch's fused kernel multiplies through a library that does not use those instructions, and takes 2 to 3 times
# as long (`benchmarks/attention_kernels.py`). Scores are bf16 numbers here, as in the "eager" attention of
# transformers; the fused kernel keeps them in single precision. The error of an output is about twice as large, and
# about as large as that of rounding it to bf16.
#
# A row has the same bits whatever other rows there are, and whatever hidden slots follow: oneDNN sums scores in one
# order, and values of up to `SUMMED_SLOTS` slots (measured for heads of 32 to 256 numbers, 1 to 512 rows, one and two
# threads).

SUMMED_SLOTS = 512
"""Slots whose values are summed by one product."""
MAX_SCORES = 1 << 20
"""Maximum scores computed at a time: so many stay in the processor's cache."""
MIN_ROWS = 32
"""Rows computed at a time, however many scores that makes."""


def suits_products(query: Tensor) -> bool:
    """Whether attention of these queries is faster by products than by torch's fused kernel."""
    return query.dtype is torch.bfloat16 and query.device.type == "cpu" and _suits_processor()


@cache
def _suits_processor() -> bool:
    return "avx512_bf16" in processor_flags() and not has_amx()


def attention_by_products(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, *, with_lse: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Attention, and if requested the log-sum-exp of its scores.

    Args:
        query: `[heads, rows, head_dim]`.
        keys: `[heads, slots, head_dim]`, at least one slot.
        mask: Added to scores, `[rows, slots]` or `[heads, rows, slots]`: 0 where visible, else minus infinity; every
            row sees a slot. None if all see all.
        scale: What scores are multiplied by.

    Returns:
        `[heads, rows, head_dim]`, and `[heads, rows]` in single precision or None.
    """
    heads, rows, _ = query.shape
    slots = keys.shape[1]
    step = max(MIN_ROWS, MAX_SCORES // (heads * slots))
    if rows <= step:
        return _attention(query, keys, values, mask, scale, None, with_lse)
    memory = torch.empty(heads * step * slots, dtype=query.dtype)
    parts = [
        _attention(
            query[:, i : i + step],
            keys,
            values,
            None if mask is None else mask[..., i : i + step, :],
            scale,
            memory[: heads * min(step, rows - i) * slots].view(heads, -1, slots),
            with_lse,
        )
        for i in range(0, rows, step)
    ]
    lses = [lse for _, lse in parts if lse is not None]
    return torch.cat([out for out, _ in parts], 1), torch.cat(lses, 1) if lses else None


def _attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float,
    memory: Tensor | None,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention of as many rows as are computed at a time; `memory` for their scores `[heads, rows, slots]` if any."""
    added, beta = (query.new_empty(1), 0) if mask is None else (mask, 1)
    if memory is None:
        scores = torch.baddbmm(added, query, keys.transpose(1, 2), beta=beta, alpha=scale)
    else:
        scores = torch.baddbmm(added, query, keys.transpose(1, 2), beta=beta, alpha=scale, out=memory)
    if not with_lse:
        return _weighted_sum(scores.softmax(-1), values), None
    exact = scores.float()
    peak, index = exact.max(-1, keepdim=True)
    exact = exact.softmax(-1)
    lse = (peak - exact.gather(-1, index).log()).squeeze(-1)
    return _weighted_sum(exact.to(query.dtype), values), lse


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """`weights @ values`, in groups of slots that begin at the same ones in every call."""
    total = torch.bmm(weights[..., :SUMMED_SLOTS], values[:, :SUMMED_SLOTS])
    if weights.shape[-1] <= SUMMED_SLOTS:
        return total
    total = total.float()
    for start in range(SUMMED_SLOTS, weights.shape[-1], SUMMED_SLOTS):
        group = slice(start, start + SUMMED_SLOTS)
        total += torch.bmm(weights[..., group], values[:, group])
    return total.to(values.dtype)


# --- Attention states: outputs with their log-sum-exp


def attention_with_lse(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention, and the log-sum-exp of its scores.

    A softmax over several blocks is the softmax over each of them, weighted by the sum of its exponentials. With that
    sum's logarithm the parts may be computed separately, in any order and by any kernel that returns it.

    Args:
        query: `[heads, rows, head_dim]`.
        keys: `[heads, slots, head_dim]`, at least one slot.
        mask: Added to scores, `[rows, slots]` or `[heads, rows, slots]`: 0 where visible, else minus infinity; every
            row sees a slot. None if all see all.
        scale: What scores are multiplied by.

    Returns:
        `[heads, rows, head_dim]`, and `[heads, rows]` in at least single precision.
    """
    if suits_products(query):
        out, lse = attention_by_products(query, keys, values, mask, scale, with_lse=True)
        assert lse is not None
        return out, lse
    if query.device.type == "cpu":
        bias = None if mask is None else mask.view(1, -1, *mask.shape[-2:])
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = flash(query[None], keys[None], values[None], 0.0, False, attn_mask=bias, scale=scale)
        return out[0], lse[0]
    return reference_attention_with_lse(query, keys, values, mask, scale)  # on vLLM's GPUs


def reference_attention_with_lse(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The same by matrix products."""
    scores = (query @ keys.transpose(-1, -2)).to(torch.promote_types(query.dtype, torch.float32)) * scale
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(values.dtype) @ values, lse


def merge_attention_states(outputs: Tensor, lse: Tensor, rows: Tensor | None, num_rows: int) -> Tensor:
    """The attention of each row over all that it sees, from its parts.

    Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261; the merge is that of Dao et al. 2022,
    FlashAttention, section 3.1.

    Args:
        outputs: `[heads, parts, head_dim]`, attention of one row over one block each.
        lse: `[heads, parts]`, their log-sum-exps; minus infinity where nothing was visible.
        rows: `[parts]`, the row of each part; None where all rows have as many parts, none of them empty: one of each
            row, in their order, repeatedly.

    Returns:
        `[heads, num_rows, head_dim]`, in the format of `lse`; zero for a row that sees nothing.
    """
    heads = lse.shape[0]
    if rows is None:
        # Of a last, smaller group of rows the exponentials would be computed by other instructions.
        padded = functional.pad(lse.view(heads, -1, num_rows), (0, -num_rows % SLOT_ALIGNMENT))
        weight = padded.softmax(1)[..., :num_rows]
        return (weight[..., None] * outputs.view(heads, -1, num_rows, outputs.shape[2])).sum(1)
    index = rows.expand_as(lse)
    largest = lse.new_full((heads, num_rows), float("-inf")).scatter_reduce(1, index, lse, "amax")
    # Where all parts of a row are empty, the largest log-sum-exp is no number to subtract.
    weight = (lse - largest.nan_to_num(neginf=0.0)[:, rows]).exp()
    total = lse.new_zeros(heads, num_rows).index_add(1, rows, weight)
    weighted = (weight[..., None] * outputs).masked_fill((weight == 0)[..., None], 0.0)  # an empty part may be NaN
    merged = lse.new_zeros(heads, num_rows, outputs.shape[2]).index_add(1, rows, weighted)
    return merged / total.clamp_min(torch.finfo(total.dtype).tiny)[..., None]
