"""Attention plans: what one forward step does with the queries, keys and values of a layer.

The model knows nothing about sequences. A step is a list of `Span`s, runs of new tokens of a sequence; a `Plan`
writes their keys and values into the logs and attends. All spans of one log are attended by one call, in which the
query heads that share a key head are folded into rows: what several sequences share is read once.

Attention that says how much weight it stood for, and how such parts become one.

A softmax over several blocks is the softmax over each of them, weighed by the sum of its exponentials. With that sum's
logarithm beside every part the parts may be computed apart, in any order and by any kernel that returns it.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261; the merge is that of Dao et al. 2022,
FlashAttention, section 3.1.
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

from .config import ModelShape
from .kv_cache import Branch, KVLog, whole_lanes
from .rope import Rotary

MOST_GATHERED = 8192
"""Most columns, those of the longest log times the logs, that are copied in order to be attended by one call."""


@dataclass(frozen=True)
class Span:
    """New tokens of one sequence.

    Attributes:
        log: The log that holds the sequence.
        branch: The sequence.
        ids: Its next tokens, at least one.
        wanted: Positions within `ids` whose logits are wanted, ascending.
        parents: None for a run of tokens. Else the tokens are guesses, a tree: each one's parent among them, or -1 for
            the sequence's last token, which another span of the same step computes. A guess sees the sequence and its
            own ancestors, and is shown to no sequence. In a log, guesses stand behind all else (`by_log`).
    """

    log: KVLog
    branch: Branch
    ids: Sequence[int]
    wanted: Sequence[int]
    parents: Sequence[int] | None = None

    @property
    def positions(self) -> list[int]:
        """Position of each token, before the step has shown its columns to anyone."""
        start = len(self.branch)
        if self.parents is None:
            return list(range(start, start + len(self.ids)))
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return [start + depth for depth in depths]

    def hidden(self, dtype: torch.dtype) -> Tensor:
        """What the tokens see of one another: `[tokens, tokens]`, 0 or minus infinity, in the CPU's memory."""
        count = len(self.ids)
        block = torch.full((count, count), float("-inf"), dtype=dtype)
        if self.parents is None:
            return block.triu_(1)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                block[i] = block[parent]
            block[i, i] = 0
        return block


class Plan(Protocol):
    """What a decoder layer calls."""

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Attend.

        Args:
            layer: Layer, from 0.
            qkv: `[rows, heads + 2 * kv_heads, head_dim]`, not rotated: queries, keys, values.

        Returns:
            `[rows, heads * head_dim]`.
        """


class LogPlan:
    """One step over logs: causal where a log is empty, masked elsewhere.

    The new columns are reserved and shown to their sequences when the plan is made; the keys and values follow layer by
    layer.

    Args:
        shape: Sizes of the model.
        rotary: Rotation.
        spans: New tokens, those of one log side by side (`by_log`); every log must have room for them.
    """

    def __init__(self, shape: ModelShape, rotary: Rotary, spans: Sequence[Span]) -> None:
        self._shape, self._rotary = shape, rotary
        positions: list[int] = []
        for span in spans:
            positions.extend(span.positions)
        self._tables = rotary.tables(positions)
        steps: list[_LogStep] = []
        row = 0
        for log, of_log in _runs(spans):
            step = _LogStep(shape, log, of_log, row)
            steps.append(step)
            row = step.stop
        self._groups: list[_LogStep | _GatheredSteps] = []
        for alone, run in groupby(steps, lambda step: step.stop - step.start == 1):
            several = list(run)
            if alone and len(several) > 1 and len(several) * max(s.width for s in several) <= MOST_GATHERED:
                self._groups.append(_GatheredSteps(shape, several))
            else:
                self._groups.extend(several)

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """Write keys and values of the step, then attend log by log."""
        turned = self._rotary.rotate(qkv, self._tables)
        if len(self._groups) == 1:
            return self._groups[0].attend(layer, turned)
        return torch.cat([g.attend(layer, turned[g.start : g.stop]) for g in self._groups])


def by_log(spans: Sequence[Span]) -> list[Span]:
    """The spans with those of one log side by side, logs in order of first appearance, guesses behind all else."""
    first: dict[int, int] = {}
    for i, span in enumerate(spans):
        first.setdefault(id(span.log), i)
    return sorted(spans, key=lambda s: (first[id(s.log)], s.parents is not None))


class _LogStep:
    """What one step does with one log.

    Columns in whole groups, and queries that are added (`missing_rows`), keep a row's bits on a CPU. Other devices'
    kernels promise nothing of that kind, and are given no more than what is seen where that needs no mask.
    """

    def __init__(self, shape: ModelShape, log: KVLog, spans: Sequence[Span], start: int) -> None:
        self.log, self.branches = log, [s.branch for s in spans]
        self._heads, self._kv_heads, self._head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self._group = shape.heads // shape.kv_heads
        self._scale = shape.head_dim**-0.5
        rows = sum(len(s.ids) for s in spans)
        self.start, self.stop = start, start + rows
        self._rows = rows
        before = log.used
        columns = log.reserve(rows)
        self.first, self.width = columns.start, whole_lanes(columns.stop)
        self._causal = before == 0 and len(spans) == 1 and rows > 1
        self._steady = log.device.type == "cpu"
        self._pad = missing_rows(rows if self._causal else rows * self._group) if self._steady else 0
        self._mask = self._open(spans, columns)
        if self._mask is None and not self._steady:
            self.width = columns.stop

    def _open(self, spans: Sequence[Span], columns: range) -> Tensor | None:
        """Show the columns to their sequences; the mask `[1, 1, rows * group, width]`, None where all is seen."""
        log, rows = self.log, self._rows
        if all(len(s.ids) == 1 and s.parents is None for s in spans):
            log.show_each([s.branch for s in spans], columns)
            narrow = not self._steady or self.width == columns.stop
            if rows == 1 and narrow and log.sees_all(spans[0].branch):
                return None
            bias = log.bias([s.branch for s in spans], self.width)
        else:
            bias = torch.full((rows, self.width), float("-inf"), dtype=log.dtype)
            row = 0
            for span in spans:
                count, at = len(span.ids), self.first + row
                # guesses see the token that their sequence has just been given, which stands before them
                known = self.first if span.parents is None else at
                bias[row : row + count, :known] = log.bias([span.branch], known)
                bias[row : row + count, at : at + count] = span.hidden(log.dtype)
                if span.parents is None:
                    log.show(span.branch, columns[row : row + count])
                row += count
            if self._causal:
                return None
        folded = bias.to(log.device).repeat_interleave(self._group, 0)
        if self._pad:
            folded = torch.cat([folded, folded[-1:].expand(self._pad, -1)])
        return folded[None, None]

    def attend(self, layer: int, turned: Tensor) -> Tensor:
        """Attend `[rows, heads + 2 * kv_heads, head_dim]`, rotated."""
        rows, kv_heads, group, dim = self._rows, self._kv_heads, self._group, self._head_dim
        seen = self.log.kv[layer].narrow(2, 0, self.width)
        new = turned[:, self._heads :].view(rows, 2, kv_heads, dim)
        seen.narrow(2, self.first, rows).copy_(new.permute(1, 2, 0, 3))
        keys, values = seen.narrow(0, 0, 1), seen.narrow(0, 1, 1)
        query = turned[:, : self._heads]
        if self._causal:
            out = functional.scaled_dot_product_attention(
                self._padded(query.transpose(0, 1)[None]),
                keys,
                values,
                is_causal=True,
                scale=self._scale,
                enable_gqa=True,
            )
            return out[0, :, :rows].transpose(0, 1).reshape(rows, self._heads * dim)
        if rows == 1:
            folded = query.view(1, kv_heads, group, dim)
        else:
            folded = (
                query.reshape(rows, kv_heads, group, dim).permute(1, 0, 2, 3).reshape(1, kv_heads, rows * group, dim)
            )
        out = functional.scaled_dot_product_attention(
            self._padded(folded), keys, values, attn_mask=self._mask, scale=self._scale
        )
        if self._pad:
            out = out[:, :, : rows * group]
        if rows == 1:
            return out.reshape(1, self._heads * dim)
        return out.reshape(kv_heads, rows, group, dim).permute(1, 0, 2, 3).reshape(rows, self._heads * dim)

    def _padded(self, query: Tensor) -> Tensor:
        """Queries `[1, heads, rows, head_dim]` with the missing rows repeated from the last."""
        if not self._pad:
            return query
        return torch.cat([query, query[:, :, -1:].expand(-1, -1, self._pad, -1)], 2)


class _GatheredSteps:
    """One step of several logs with one new token each, attended by one call over copies side by side.

    A call has a price of its own: for logs that are not too long it is above that of copying their columns.
    """

    def __init__(self, shape: ModelShape, steps: Sequence[_LogStep]) -> None:
        self._steps = steps
        self._heads, self._kv_heads, self._head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self._group = shape.heads // shape.kv_heads
        self._scale = shape.head_dim**-0.5
        self.start, self.stop = steps[0].start, steps[-1].stop
        width, rows, dtype = max(s.width for s in steps), len(steps), steps[0].log.dtype
        device = steps[0].log.device
        self._pad = missing_rows(self._group) if device.type == "cpu" else 0
        self._copies = torch.zeros(rows, 2, shape.kv_heads, width, shape.head_dim, dtype=dtype, device=device)
        mask = torch.full((rows, 1, 1, width), float("-inf"), dtype=dtype)
        for i, step in enumerate(steps):
            mask[i, 0, :, : step.width] = step.log.bias(step.branches, step.width)
        self._mask = mask.to(device).expand(-1, -1, self._group + self._pad, -1)

    def attend(self, layer: int, turned: Tensor) -> Tensor:
        """Attend `[logs, heads + 2 * kv_heads, head_dim]`, rotated."""
        rows, kv_heads, dim = len(self._steps), self._kv_heads, self._head_dim
        new = turned[:, self._heads :].view(rows, 2, kv_heads, dim)
        for i, step in enumerate(self._steps):
            kv = step.log.kv[layer]
            kv[:, :, step.first] = new[i]
            self._copies[i, :, :, : step.width] = kv[:, :, : step.width]
        query = turned[:, : self._heads].reshape(rows, kv_heads, self._group, dim)
        if self._pad:
            query = torch.cat([query, query[:, :, -1:].expand(-1, -1, self._pad, -1)], 2)
        out = functional.scaled_dot_product_attention(
            query, self._copies[:, 0], self._copies[:, 1], attn_mask=self._mask, scale=self._scale
        )
        return out[:, :, : self._group].reshape(rows, self._heads * dim)


def missing_rows(rows: int) -> int:
    """Query rows to add so that attention's kernel gives each row the same bits whatever rows stand beside it.

    The kernel takes queries in blocks of 32, of 64 from 192 rows on and of 256 from 768 rows on (torch's flash
    attention for CPUs); a last block of fewer than 4 rows was measured to sum in another order.
    """
    block = 32 if rows < 192 else 64 if rows < 768 else 256
    rest = rows % block
    return 4 - rest if 0 < rest < 4 else 0


def _runs(spans: Sequence[Span]) -> list[tuple[KVLog, list[Span]]]:
    """Neighbouring spans of the same log."""
    runs: list[tuple[KVLog, list[Span]]] = []
    for span in spans:
        if runs and runs[-1][0] is span.log:
            runs[-1][1].append(span)
        else:
            runs.append((span.log, [span]))
    return runs


ALIGNED = 8
"""CUDA's kernels take heads whose width is a multiple of this, and masks whose rows begin at multiples of it."""


def attend_with_weight(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of exponentials that it is divided by.

    Args:
        query: `[heads, rows, head_dim]`.
        keys: `[heads, columns, head_dim]`, at least one column.
        values: Likewise.
        mask: Added to scores, `[rows, columns]`: 0 where seen, else minus infinity; every row sees a column. None if
            all see all.
        scale: What scores are multiplied by.

    Returns:
        `[heads, rows, head_dim]`, and `[heads, rows]` in at least single precision.
    """
    q, k, v = query[None], keys[None], values[None]
    bias = None if mask is None else mask[None, None]
    if query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, weight = flash(q, k, v, 0.0, False, attn_mask=bias, scale=scale)
        return out[0], weight[0]
    if query.device.type != "cuda" or query.dtype == torch.float64 or query.shape[-1] % ALIGNED:
        return by_definition(query, keys, values, mask, scale)
    if bias is None and query.dtype != torch.float32 and _has_flash(query.device):
        out, weight = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False, scale=scale)[:2]
    else:
        wide = None if bias is None else aligned(bias).expand(1, q.shape[1], -1, -1)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        out, weight = efficient(q, k, v, wide, True, 0.0, False, scale=scale)[:2]
    return out[0], weight[0, :, : query.shape[1]]  # one of them rounds rows up to whole tiles


def aligned(mask: Tensor) -> Tensor:
    """The same mask with rows that begin at multiples of `ALIGNED` numbers, as CUDA's kernels want them."""
    if mask.stride(-1) == 1 and all(stride % ALIGNED == 0 for stride in mask.stride()[:-1]):
        return mask
    columns = mask.shape[-1]
    return functional.pad(mask, (0, -columns % ALIGNED))[..., :columns]


@cache
def _has_flash(device: torch.device) -> bool:
    """Whether torch's flash attention takes a GPU: it was written for NVIDIA's from Ampere on."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def by_definition(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The same by matrix products, for devices and formats without a kernel that returns the weight."""
    scores = (query @ keys.transpose(-1, -2)).to(torch.promote_types(query.dtype, torch.float32)) * scale
    if mask is not None:
        scores = scores + mask
    weight = scores.logsumexp(-1)
    return (scores - weight[..., None]).exp().to(values.dtype) @ values, weight


def merge(parts: Tensor, weights: Tensor, rows: Tensor | None, count: int) -> Tensor:
    """The attention of each row over all that it sees, from its parts.

    Args:
        parts: `[heads, parts, head_dim]`, attention of one row over one block each.
        weights: `[heads, parts]`, logarithms of their sums of exponentials; minus infinity where nothing was seen.
        rows: `[parts]`, whose they are; None where all rows have as many parts, none of them empty: one of each row, in
            their order, again and again.
        count: Number of rows.

    Returns:
        `[heads, count, head_dim]`, in the format of the weights; zero for a row that sees nothing.
    """
    heads = weights.shape[0]
    if rows is None:
        share = weights.view(heads, -1, count).softmax(1)
        return (share[..., None] * parts.view(heads, -1, count, parts.shape[2])).sum(1)
    index = rows.expand_as(weights)
    most = weights.new_full((heads, count), float("-inf")).scatter_reduce(1, index, weights, "amax")
    # Where all parts of a row are empty, the greatest weight is no number to subtract.
    share = (weights - most.nan_to_num(neginf=0.0)[:, rows]).exp()
    total = weights.new_zeros(heads, count).index_add(1, rows, share)
    weighed = (share[..., None] * parts).masked_fill((share == 0)[..., None], 0.0)  # what saw nothing may be no number
    whole = weights.new_zeros(heads, count, parts.shape[2]).index_add(1, rows, weighed)
    return whole / total.clamp_min(torch.finfo(total.dtype).tiny)[..., None]
