"""Drafts, prefills and products where a row keeps its bits only in steps of few rows: processors with AMX."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local import weights
from reason.serving.local.attention import TokenChunk
from reason.serving.local.engine import LocalModel
from reason.serving.local.model import Decoder
from reason.serving.local.sequence import RunningSequence
from reason.serving.local.spec_decode import max_invariant_drafts
from reason.serving.local.weights import MAX_INVARIANT_ROWS, PackedLinear, can_prepack
from reason.serving.model_files.find import ModelFiles
from support.waiting import wait_until

LIMIT = 16


async def generate_while_prefilling(files: ModelFiles) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Tokens of both requests, and the chunk sizes of every forward pass."""
    model = LocalModel.load(files, weight_format="fp32", threads=1, speculative_decoding="off")
    passes: list[list[int]] = []
    reached, submitted = threading.Event(), threading.Event()
    forward = model._model.forward

    def recorded(chunks: Sequence[TokenChunk]) -> torch.Tensor:
        passes.append([len(chunk.token_ids) for chunk in chunks])
        if len(passes) == 4:
            reached.set()
            submitted.wait()
        return forward(chunks)

    model._model.forward = recorded
    sampling = SamplingParams(max_tokens=12, seed=1, ignore_eos=True)
    decoding = asyncio.create_task(model.generate([Request(prompt=Prompt(text="a"), sampling=sampling)]))
    await asyncio.to_thread(reached.wait)
    long = Request(prompt=Prompt(text="x" * 200), sampling=sampling.model_copy(update={"max_tokens": 4}))
    prefilling = asyncio.create_task(model.generate([long]))
    await wait_until(lambda: model._calls._thread._inbox)
    submitted.set()
    results = [*await prefilling, *await decoding]
    await model.aclose()
    return [completions[0].token_ids for completions in results], passes


async def test_a_large_prefill_has_a_pass_of_its_own_beside_decoding(tiny_files, monkeypatch):
    expected, passes = await generate_while_prefilling(tiny_files("llama"))
    assert any(1 in sizes and max(sizes) > LIMIT for sizes in passes)  # one pass for both
    monkeypatch.setattr(Decoder, "max_invariant_rows", LIMIT)
    tokens, passes = await generate_while_prefilling(tiny_files("llama"))
    assert tokens == expected
    assert any(max(sizes) > LIMIT for sizes in passes)
    assert all(len(sizes) == 1 for sizes in passes if max(sizes) > LIMIT)


def test_drafts_keep_to_the_rows_whose_bits_are_kept():
    def sequence(used: int, is_single: bool) -> RunningSequence:
        cache = SimpleNamespace(used=used)
        location = SimpleNamespace(tree=SimpleNamespace(cache=cache))
        return SimpleNamespace(location=location, task=SimpleNamespace(is_single_sample=is_single))

    sequences = [sequence(20, True), sequence(20, False), sequence(0, True), sequence(3, True)]

    def drafts(rows: int) -> list[int]:
        return max_invariant_drafts(sequences, SimpleNamespace(max_invariant_rows=rows))

    assert drafts(sys.maxsize) == [11, 0, 31, 28]  # to the end of a group of slots
    assert drafts(20) == [11, 0, 5, 0]
    assert drafts(3) == drafts(0) == [0, 0, 0, 0]


@pytest.mark.skipif(not can_prepack(torch.bfloat16), reason="this torch has no prepacked product in bf16")
@pytest.mark.parametrize("rows", [1, 16, 17, MAX_INVARIANT_ROWS, MAX_INVARIANT_ROWS + 1])
def test_products_in_batches_are_the_product(monkeypatch, rows):
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(32, 64, generator=generator).bfloat16()
    x, other = (torch.randn(rows, n, generator=generator).bfloat16() for n in (64, 32))
    plain = PackedLinear(weight)
    limits = weights._InvarianceLimits(doubles_single=False, batch_rows=16)
    monkeypatch.setattr(PackedLinear, "_limits", lambda self, rows: limits)
    batched = PackedLinear(weight)
    calls = []
    op = batched._binary
    batched._binary = lambda part, *rest: calls.append(part.shape[0]) or op(part, *rest)
    assert torch.allclose(batched.plus(x, other).float(), plain.plus(x, other).float(), rtol=2e-2, atol=2e-2)
    expected_batches = -(-rows // 16) if 16 < rows <= MAX_INVARIANT_ROWS else 1
    assert len(calls) == expected_batches


@pytest.mark.skipif(not can_prepack(torch.bfloat16), reason="this torch has no prepacked product in bf16")
@pytest.mark.parametrize(
    ("first_of_another_kernel", "expected"),
    [(1, (True, 128)), (3, (False, 2)), (16, (False, 2)), (17, (False, 16)), (33, (False, 32)), (90, (False, 32))],
)
def test_the_rows_of_a_batch_are_measured(monkeypatch, first_of_another_kernel, expected):
    monkeypatch.setattr(weights, "processor_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(weights, "_LIMITS", {})
    linear = PackedLinear(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).bfloat16())
    linear._known.clear()

    def binary(x: torch.Tensor, other: torch.Tensor, *rest: object) -> torch.Tensor:
        """Sums in fp32, with another order of the inputs from this number of rows on, or of one row only."""
        rows = x.shape[0]
        is_other = rows == 1 if first_of_another_kernel == 1 else rows >= first_of_another_kernel
        terms = plain.float() * x.float()[:, None]
        total = torch.zeros(rows, 32)
        for i in reversed(range(64)) if is_other else range(64):
            total = total + terms[..., i]
        return (total + other.float()).bfloat16()

    plain = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    linear._binary = binary
    assert linear._limits(MAX_INVARIANT_ROWS) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 960), (896, 4864), (4864, 896)])
def test_a_row_of_a_product_has_the_same_bits_beside_any_others(dtype, inputs, outputs):
    if not can_prepack(dtype):
        pytest.skip(f"this torch has no prepacked product in {dtype}")
    generator = torch.Generator().manual_seed(inputs)
    linear = PackedLinear(torch.randn(outputs, inputs, generator=generator).to(dtype))
    x = torch.randn(MAX_INVARIANT_ROWS, inputs, generator=generator).to(dtype)
    rounded = -torch.cat([linear(x[i : i + 2]) for i in range(0, MAX_INVARIANT_ROWS, 2)])
    # What bf16 rounds off shows sums of another order far more often than the rounded product does.
    for other in [torch.zeros_like(rounded), *([rounded] if dtype is torch.bfloat16 else [])]:
        expected = torch.cat([linear.plus(x[i : i + 2], other[i : i + 2]) for i in range(0, MAX_INVARIANT_ROWS, 2)])
        for rows in (1, 2, 3, 7, 16, 17, 18, 31, 33, 50, 64, 66, 97, 127, MAX_INVARIANT_ROWS):
            for start in (0, MAX_INVARIANT_ROWS - rows):
                part = slice(start, start + rows)
                assert torch.equal(linear.plus(x[part], other[part]), expected[part]), (rows, start)
