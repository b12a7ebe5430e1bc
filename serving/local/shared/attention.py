"""Attention that says how much weight it stood for, and how such parts become one.

A softmax over several blocks is the softmax over each of them, weighed by the sum of its exponentials. With that sum's
logarithm beside every part the parts may be computed apart, in any order and by any kernel that returns it.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261; the merge is that of Dao et al. 2022,
FlashAttention, section 3.1.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

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
