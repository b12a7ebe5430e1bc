"""What a closed engine keeps in memory while others still refer to it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is freed that refers to itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> int:
    """Bytes of all tensors that Python knows."""
    actual = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    return sum(t.numel() * t.element_size() for t in actual)


@pytest.mark.parametrize("variant", ["llama", "gpt_neox"])
async def test_the_weights_are_freed_at_once(
    tiny_files: Callable[[str], ModelFiles], uncollected: None, variant: str
) -> None:
    files = tiny_files(variant)
    before = held()
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    prompt = Prompt(text="The quick brown fox")
    await model.generate([Request(prompt=prompt, sampling=SamplingParams(max_tokens=8, seed=1, ignore_eos=True))])
    opened = held() - before
    assert opened > 100_000
    await model.aclose()
    assert held() - before < opened / 20
    await model.aclose()
