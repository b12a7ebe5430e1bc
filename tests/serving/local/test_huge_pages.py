"""Huge pages: which memory they are advised for, and that nothing depends on the advice being taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local import huge_pages
from reason.serving.local.engine import LocalModel
from reason.serving.local.huge_pages import (
    HUGE_PAGE,
    MADV_COLLAPSE,
    MADV_HUGEPAGE,
    MAX_COLLAPSED,
    HugePageMover,
    advise_huge_pages,
    huge_ranges,
    memory_of,
)
from reason.serving.local.kv_cache import KVCache
from reason.serving.local.model import Decoder
from reason.serving.local.weights import PackedLinear, can_prepack
from reason.serving.model_files.find import ModelFiles


class Kernel:
    """Records advice in place of the C library's `madvise`."""

    def __init__(self, result: int) -> None:
        self.result = result
        self.calls: list[tuple[int, int, int]] = []

    def __call__(self, start: int, nbytes: int, advice: int) -> int:
        self.calls.append((start, nbytes, advice))
        return self.result


@pytest.fixture(params=[0, -1, None], ids=["accepting", "refusing", "without madvise"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel | None:
    """What the C library's function does."""
    replaced = None if request.param is None else Kernel(request.param)
    monkeypatch.setattr(huge_pages, "_madvise_function", lambda: replaced)
    return replaced


def test_ranges_are_full_pages_and_neighbours_are_joined() -> None:
    page = HUGE_PAGE
    assert huge_ranges([]) == []
    assert huge_ranges([(5, page - 1)]) == []
    assert huge_ranges([(5, 2 * page + 7)]) == [(page, 2 * page)]
    assert huge_ranges([(2 * page - 9, 3 * page), (page - 9, page + 9), (0, 0)]) == [(page, 3 * page)]
    assert huge_ranges([(page, 2 * page), (4 * page, 5 * page)]) == [(page, 2 * page), (4 * page, 5 * page)]


def test_memory_of_plain_packed_and_other_devices_tensors() -> None:
    plain = torch.zeros(100, 10)
    assert memory_of(plain) == (plain.data_ptr(), plain.data_ptr() + 4000)
    assert memory_of(torch.zeros(5, device="meta")) == (0, 0)
    if can_prepack(torch.float32):
        start, stop = memory_of(PackedLinear(torch.zeros(64, 64)).weight)
        assert start > 0
        assert stop - start >= 64 * 64 * 4


def test_matrices_are_those_that_a_step_multiplies_by(tiny_directory: Callable[[str], Path]) -> None:
    decoder = Decoder.load(tiny_directory("llama"), "fp32")
    assert len(decoder.matrices) == 5 * decoder.config.num_layers + 1


def test_the_mover_advises_and_moves_every_range_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(0)
    monkeypatch.setattr(huge_pages, "_madvise_function", lambda: kernel)
    ranges = [(HUGE_PAGE, 2 * HUGE_PAGE), (4 * HUGE_PAGE, 5 * HUGE_PAGE + MAX_COLLAPSED)]
    mover = HugePageMover(ranges)
    mover._thread.join()
    mover.close()
    advised = [(start, start + count) for start, count, advice in kernel.calls if advice == MADV_HUGEPAGE]
    moved = [(start, start + count) for start, count, advice in kernel.calls if advice == MADV_COLLAPSE]
    assert advised == ranges
    middle = 4 * HUGE_PAGE + MAX_COLLAPSED
    assert moved == [ranges[0], (4 * HUGE_PAGE, middle), (middle, middle + HUGE_PAGE)]


def test_closing_stops_the_mover(monkeypatch: pytest.MonkeyPatch) -> None:
    started, may_continue = threading.Event(), threading.Event()
    moved: list[int] = []

    def madvise(start: int, nbytes: int, advice: int) -> int:
        if advice == MADV_COLLAPSE:
            moved.append(start)
            started.set()
            may_continue.wait(60)
        return 0

    monkeypatch.setattr(huge_pages, "_madvise_function", lambda: madvise)
    mover = HugePageMover([(0, 50 * MAX_COLLAPSED)])
    assert started.wait(60)
    mover._stopped.set()
    may_continue.set()
    mover.close()
    mover.close()
    assert len(moved) == 1


def test_a_cache_is_the_same_whatever_the_kernel_does(kernel: Kernel | None) -> None:
    cache = KVCache(2, 4, 64, torch.float32, 4 * HUGE_PAGE // (4 * 64 * 4))
    cache.write([torch.ones(2, 4, 3, 64)] * 2)
    cache.resize(cache.capacity + 1000)
    assert all(bool((kv[:, :, :3] == 1).all()) and not kv[:, :, 3:].any() for kv in cache.kv)
    assert kernel is None or {advice for _, _, advice in kernel.calls} == {MADV_HUGEPAGE}


async def test_a_model_answers_the_same_whatever_the_kernel_does(
    kernel: Kernel | None, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reason.serving.local.engine.huge_ranges", lambda memory: [r for r in memory if r[0]])
    request = Request(prompt=Prompt.user("one"), sampling=SamplingParams(max_tokens=5, temperature=0, ignore_eos=True))
    model = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    model._huge_pages._thread.join()
    ((completion,),) = await model.generate([request])
    await model.aclose()
    assert len(completion.token_ids) == 5
    assert completion.failure is None
    assert kernel is None or {advice for _, _, advice in kernel.calls} == {MADV_HUGEPAGE, MADV_COLLAPSE}


def test_the_kernel_itself_refuses_without_consequences() -> None:
    held: Any = torch.zeros(3 * HUGE_PAGE // 4)
    advise_huge_pages([(1, 5), (0, HUGE_PAGE), *huge_ranges([memory_of(held)])])  # no memory is there, or not aligned
    mover = HugePageMover([(HUGE_PAGE, 3 * HUGE_PAGE)])
    mover.close()
    assert not held.any()


def test_other_systems_have_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages.sys, "platform", "darwin")
    assert huge_pages._madvise_function.__wrapped__() is None
