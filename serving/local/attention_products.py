"""Attention by matrix products of oneDNN, for processors with bf16 instructions but without AMX.

There torch's fused kernel multiplies through a library that does not use those instructions, and takes 2 to 3 times as
long (`benchmarks/attention_kernels.py`). Scores are bf16 numbers here, as in the "eager" attention of transformers; the
fused kernel keeps them in single precision. The error of an output is about twice as large, and about as large as that
of rounding it to bf16.

A row has the same bits whatever other rows there are, and whatever hidden slots follow: oneDNN sums scores in one
order, and values of up to `SUMMED_SLOTS` slots (measured for heads of 32 to 256 numbers, 1 to 512 rows, one and two
threads).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .weights import has_amx, processor_flags

SUMMED_SLOTS = 512
"""Slots whose values are summed by one product."""
MAX_SCORES = 1 << 20
"""Maximum scores computed at a time: so many stay in the processor's cache."""
MIN_ROWS = 32
"""Rows computed at a time, however many scores that makes."""


def suits(query: Tensor) -> bool:
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
