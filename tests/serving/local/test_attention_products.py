"""Attention by matrix products: its values, and that a row's bits depend on nothing else in the call."""

from __future__ import annotations

import pytest
import torch
from reason.serving.local import attention
from reason.serving.local.attention import attention_by_products, suits_products
from torch import Tensor

SCALE = 0.125


def inputs(heads: int, rows: int, slots: int, dim: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(heads * rows + slots + dim)
    query, keys, values = (torch.randn(heads, n, dim, generator=generator) for n in (rows, slots, slots))
    return query.bfloat16(), keys.bfloat16(), values.bfloat16()


def mask_of(rows: int, slots: int, visible: int) -> Tensor:
    mask = torch.full((rows, slots), float("-inf"), dtype=torch.bfloat16)
    mask[:, :visible] = 0
    return mask


@pytest.mark.parametrize("max_scores", [1 << 20, 4096])  # all rows at a time, or blocks of 32
@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (3, 33), (70, 100), (100, 1200)])
@pytest.mark.parametrize("masked", ["no", "rows", "heads"])
def test_values_are_those_of_exact_attention(monkeypatch, max_scores, rows, slots, masked):
    monkeypatch.setattr(attention, "MAX_SCORES", max_scores)
    query, keys, values = inputs(2, rows, slots)
    mask = None
    if masked != "no":
        shape = (rows, slots) if masked == "rows" else (2, rows, slots)
        hidden = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
        hidden[..., 0] = False
        mask = torch.zeros(shape, dtype=torch.bfloat16).masked_fill_(hidden, float("-inf"))
    scores = query.double() @ keys.double().mT * SCALE + (0 if mask is None else mask.double())
    out, lse = attention_by_products(query, keys, values, mask, SCALE, with_lse=True)
    assert lse is not None
    assert torch.allclose(out.double(), scores.softmax(-1) @ values.double(), atol=0.02)
    assert torch.allclose(lse.double(), scores.logsumexp(-1), atol=0.01)
    plain, none = attention_by_products(query, keys, values, mask, SCALE)
    assert none is None
    assert torch.allclose(plain.float(), out.float(), atol=0.01)


@pytest.mark.skipif(not suits_products(torch.zeros(1, dtype=torch.bfloat16)), reason="the fused kernel is used here")
@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize("visible", [5, 70, 530, 1500])
def test_a_row_has_the_same_bits_in_any_call(dim, visible):
    query, keys, values = inputs(3, 400, 2048, dim)
    expected = None
    threads = torch.get_num_threads()
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            for slots in (-(-visible // 32) * 32, -(-visible // 32) * 32 + 96, 2048):
                for rows in (1, 2, 3, 8, 33, 192, 400):
                    mask = mask_of(rows, slots, visible)
                    out, _ = attention_by_products(query[:, :rows], keys[:, :slots], values[:, :slots], mask, SCALE)
                    expected = out[:, :1] if expected is None else expected
                    assert torch.equal(out[:, :1], expected), (num_threads, slots, rows)
    finally:
        torch.set_num_threads(threads)
