"""The algebra that shared caches rest on: turns add up, and a softmax may be computed in parts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reason.serving.local.attention import attention_with_lse, merge_attention_states, reference_attention_with_lse
from reason.serving.local.config import ModelConfig
from reason.serving.local.rope import RotaryEmbedding

SHAPE = ModelConfig("llama", 1, 4, 2, 16, 64, 264, 1e-5, 4096, True, False)


def rotary(dtype: torch.dtype) -> RotaryEmbedding:
    inverse = 1.0 / 10000.0 ** (torch.arange(0, 16, 2, dtype=dtype) / 16)
    return RotaryEmbedding(replace(SHAPE, rope=inverse), dtype)


positions = st.integers(0, 2000)


@given(a=positions, b=positions, seed=st.integers(0, 10**6))
@pytest.mark.parametrize(("dtype", "near", "far"), [(torch.float64, 1e-12, 2000), (torch.float32, 1e-4, 200)])
def test_turning_the_query_is_turning_the_keys(dtype, near, far, a, b, seed):
    a, b = a % far, b % far  # an angle in single precision is known to 1e-5 of a turn at some hundred positions
    turns = rotary(dtype)
    q, k = torch.randn(2, 16, dtype=dtype, generator=torch.Generator().manual_seed(seed))

    def at(x: torch.Tensor, position: int) -> torch.Tensor:
        return turns.rotate(x, turns.cos_sin(torch.tensor(position)))

    offset, local = sorted((a, b))
    query = offset + local + 7  # R(P) q . R(o + j) k  ==  R(P - o) q . R(j) k
    apart = at(q, query) @ at(k, offset + local)
    assert abs(float(apart - at(q, query - offset) @ at(k, local))) < near * 16
    torch.testing.assert_close(at(at(q, a), b), at(q, a + b), atol=near, rtol=0)


@given(cuts=st.lists(st.integers(0, 30), max_size=5), seed=st.integers(0, 10**6))
def test_any_partition_merges_to_one_softmax(cuts, seed):
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 3, 16, generator=draw, dtype=torch.float64) * 3
    keys, values = torch.randn(2, 2, 30, 16, generator=draw, dtype=torch.float64)
    mask = torch.where(torch.rand(3, 30, generator=draw) < 0.3, float("-inf"), 0.0).double()
    mask[:, 0] = 0
    complete = (query @ keys.transpose(1, 2) * 0.25 + mask).softmax(-1) @ values
    bounds = [0, *sorted(cuts), 30]
    parts, weights = [], []
    for begin, end in pairwise(bounds):
        if begin == end:  # an empty block
            parts.append(torch.full((2, 3, 16), float("nan"), dtype=torch.float64))
            weights.append(torch.full((2, 3), float("-inf"), dtype=torch.float64))
            continue
        out, weight = reference_attention_with_lse(
            query, keys[:, begin:end], values[:, begin:end], mask[:, begin:end], 0.25
        )
        parts.append(out)
        weights.append(weight)
    rows = torch.arange(3).repeat(len(parts))
    merged = merge_attention_states(torch.cat(parts, 1), torch.cat(weights, 1), rows, 3)
    torch.testing.assert_close(merged, complete, atol=1e-12, rtol=1e-10)
    unmasked = [
        reference_attention_with_lse(query, keys[:, begin:end], values[:, begin:end], None, 0.25)
        for begin, end in pairwise(bounds)
        if begin < end
    ]
    alike = merge_attention_states(
        torch.cat([p for p, _ in unmasked], 1), torch.cat([w for _, w in unmasked], 1), None, 3
    )
    complete = (query @ keys.transpose(1, 2) * 0.25).softmax(-1) @ values
    torch.testing.assert_close(alike, complete, atol=1e-12, rtol=1e-10)


def test_a_row_that_sees_nothing_is_zero_and_no_other_changes():
    nothing = float("-inf")
    parts = torch.tensor([[[float("nan")] * 4, [1.0] * 4]])
    merged = merge_attention_states(parts, torch.tensor([[nothing, 0.3]]), torch.tensor([0, 1]), 2)
    assert merged.tolist() == [[[0.0] * 4, [1.0] * 4]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (12, 300), (40, 33)])
def test_the_kernel_matches_the_definition(dtype, masked, rows, columns):
    draw = torch.Generator().manual_seed(rows)
    query = torch.randn(2, rows, 16, generator=draw).to(dtype)
    keys, values = torch.randn(2, 2, columns, 16, generator=draw).to(dtype)
    mask = torch.where(torch.rand(rows, columns, generator=draw) < 0.5, float("-inf"), 0.0).to(dtype)
    mask[:, 0] = 0
    given_mask = mask if masked else None
    out, weight = attention_with_lse(query, keys, values, given_mask, 0.25)
    expected, sums = reference_attention_with_lse(query, keys, values, given_mask, 0.25)
    near = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(out, expected, atol=near, rtol=near)
    torch.testing.assert_close(weight, sums, atol=near, rtol=near, check_dtype=False)
    assert weight.dtype == torch.promote_types(dtype, torch.float32)
