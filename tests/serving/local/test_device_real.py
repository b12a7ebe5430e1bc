"""On a GPU: SmolLM2-135M's logits, with and without workers, are those of the CPU; so is attention by every kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.attention import TokenChunk, attention_with_lse, group_by_cache, reference_attention_with_lse
from reason.serving.local.engine import LocalModel
from reason.serving.local.model import Decoder
from reason.serving.local.shared_cache import SharedCache, WorkerChunk
from reason.serving.model_files.find import ModelFiles
from support.split_facts import FACTS, quotes

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
    pytest.mark.asyncio(loop_scope="module"),
]
GPU = torch.device("cuda")
IDS = [(97 * i + 11) % 40_000 + 100 for i in range(700)]


def forked(decoder: Decoder) -> torch.Tensor:
    """Logits of a long prompt in chunks, of two texts after it, and of a text in another cache."""
    with torch.inference_mode():
        log, other = decoder.new_kv_cache(900), decoder.new_kv_cache(64)
        one, apart = log.new_table(), other.new_table()
        reported = [decoder.forward([TokenChunk(log, one, IDS[:256], [0, 255])])]
        reported.append(decoder.forward([TokenChunk(log, one, IDS[256:600], [343])]))
        two = log.fork(one)
        reported.append(
            decoder.forward([TokenChunk(log, one, IDS[600:603], range(3)), TokenChunk(other, apart, IDS[:40], [39])])
        )
        for i in range(4):
            spans = [
                TokenChunk(log, one, IDS[610 + i : 611 + i], [0]),
                TokenChunk(log, two, IDS[620 + i : 621 + i], [0]),
                TokenChunk(other, apart, IDS[630 + i : 631 + i], [0]),
            ]
            reported.append(decoder.forward(group_by_cache(spans)))
        return torch.cat(reported).cpu()


def shared(decoder: Decoder) -> torch.Tensor:
    """Logits of three workers over a history, with a fixed text and a finished one that moves."""
    with torch.inference_mode():
        workspace = SharedCache(decoder)
        history, header = workspace.add_block(IDS[:300]), workspace.add_block(IDS[300:307])
        steps = [workspace.add_block() for _ in range(3)]
        views = [(history, header, *(s for s in steps if s is not own), own) for own in steps]
        reported = []
        for number in range(6):
            if number == 3:
                workspace.move(steps[1], history)
            count = 5 if number in (0, 4) else 1
            reported.append(
                workspace.forward([WorkerChunk(v, IDS[400 + 9 * number + w :][:count]) for w, v in enumerate(views)])
            )
        return torch.cat(reported).cpu()


@pytest.mark.parametrize("passes", [forked, shared])
def test_logits_in_single_precision_are_those_of_the_cpu(smollm2_files: ModelFiles, passes) -> None:
    mine, theirs = (passes(Decoder.load(smollm2_files.directory, "fp32", torch.device(d))) for d in ("cuda", "cpu"))
    torch.testing.assert_close(mine, theirs, atol=5e-3, rtol=1e-3)
    assert mine.argmax(-1).tolist() == theirs.argmax(-1).tolist()


@pytest.mark.parametrize("passes", [forked, shared])
def test_logits_in_bf16_are_as_near_as_the_cpus(smollm2_files: ModelFiles, passes) -> None:
    exact = passes(Decoder.load(smollm2_files.directory, "fp32"))
    gpu, cpu = (passes(Decoder.load(smollm2_files.directory, "bf16", torch.device(d))) for d in ("cuda", "cpu"))
    assert (gpu - exact).abs().mean() < 1.5 * (cpu - exact).abs().mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "columns", "width"), [(1, 1, 64), (3, 17, 64), (40, 333, 128), (12, 300, 12)])
def test_every_kernel_matches_the_definition(
    dtype: torch.dtype, masked: bool, rows: int, columns: int, width: int
) -> None:
    draw = torch.Generator().manual_seed(rows)
    query = torch.randn(2, rows, width, generator=draw, dtype=torch.float64)
    keys, values = torch.randn(2, 2, columns, width, generator=draw, dtype=torch.float64)
    mask = torch.where(torch.rand(rows, columns, generator=draw) < 0.5, float("-inf"), 0.0).double()
    mask[:, 0] = 0
    expected, sums = reference_attention_with_lse(query, keys, values, mask if masked else None, 0.25)
    q, k, v, m = (x.to(GPU, dtype) for x in (query, keys, values, mask))
    out, weight = attention_with_lse(q, k, v, m if masked else None, 0.25)
    near = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(out.cpu().double(), expected, atol=near, rtol=near)
    torch.testing.assert_close(weight.cpu().double(), sums, atol=near, rtol=near)
    assert weight.dtype == torch.promote_types(dtype, torch.float32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(smollm2_files: ModelFiles) -> AsyncIterator[LocalModel]:
    opened = LocalModel.load(smollm2_files, device="cuda", threads=1)
    yield opened
    await opened.aclose()


async def test_it_knows_the_capital_of_france(model: LocalModel, smollm2_files: ModelFiles) -> None:
    assert model.identity == f"{smollm2_files.fingerprint}+{model.weight_format}+cuda"
    request = Request(
        prompt=Prompt(text="The capital of France is"), sampling=SamplingParams(max_tokens=8, temperature=0)
    )
    [[reported]] = await model.generate([request])
    assert "Paris" in reported.text


async def test_a_quotes_what_stands_on_the_page_of_b(model: LocalModel) -> None:
    assert await quotes(model, "combined") == {end: (True, False) for _, end in FACTS}
