"""In bf16: agreement with the local engine and with exact entropies; a tree's cached tokens in ledger and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.events import MemorySink
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.settings import VllmSettings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.metered.model import MeteredModel
from reason.serving.model_files.find import ModelFiles
from support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
SETTINGS = VllmSettings(
    engine={
        "max_model_len": 1024,
        "kv_cache_memory_bytes": 128 << 20,
        "dtype": "bfloat16",
        "max_num_seqs": 16,
        "max_logprobs": -1,
    }
)
PROMPTS = (
    Prompt.user("What is the capital of France?"),
    Prompt.user("Name three colours of the rainbow."),
    Prompt(text="The old lighthouse keeper wrote down the height of every wave. " * 4),
)
STEP_STOPS = ("\n\n", "\nStep ", "\n## ", "\n### ")
TOLERANCE = 0.25
"""Nats: in bf16 the logits of this model, 16 to 32, are multiples of 1/8, and two of them are subtracted."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(_vllm: None, smollm2_files: ModelFiles) -> AsyncIterator[Any]:
    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/smollm2-135m", smollm2_files, SETTINGS)
    await model.check_logits_processors()
    yield model
    await model.aclose()


def probed(prompt: Prompt) -> Request:
    sampling = SamplingParams(
        temperature=0, max_tokens=1, top_logprobs=40, logits_processors=(LogitsProcessorSpec(name="entropy_probe"),)
    )
    return Request(prompt=prompt, sampling=sampling)


def top(completion: Completion) -> dict[int, float]:
    assert completion.top_logprobs is not None
    return {t.token_id: t.logprob for t in completion.top_logprobs[0]}


async def test_the_best_tokens_and_entropies_agree_with_the_local_engine(model, smollm2_files):
    from reason.serving.local.engine import LocalModel

    theirs = [response[0] for response in await model.generate([probed(p) for p in PROMPTS])]
    actual = {}
    for weight_format in ("bf16", "fp32"):
        local = LocalModel.load(smollm2_files, weight_format=weight_format, threads=1, kv_cache_bytes=64 << 20)
        try:
            actual[weight_format] = [response[0] for response in await local.generate([probed(p) for p in PROMPTS])]
        finally:
            await local.aclose()
    for there, here, exact in zip(theirs, actual["bf16"], actual["fp32"], strict=True):
        wide, five = top(there), list(top(here).items())[:5]
        assert [wide[i] for i, _ in five] == pytest.approx([value for _, value in five], abs=TOLERANCE)
        assert max(wide, key=wide.__getitem__) in dict(five[:2])
        entropy = there.extras["entropy_probe"]["entropy"][0]
        complete = exact.extras["entropy_probe"]["entropy"][0]
        assert entropy == pytest.approx(complete, abs=0.1)


async def test_a_trees_cached_share_is_that_of_vllms_own_counters(model, tmp_path):
    from vllm.v1.metrics.reader import get_metrics_snapshot

    def counter(name: str) -> int:
        return sum(int(m.value) for m in get_metrics_snapshot() if m.name == name and hasattr(m, "value"))

    config = RunConfig(question=Question(text="?"), strategy="tree", parameters={}, models={"main": model.name}, seed=3)
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    try:
        await store.create_run("r", {})
        sink = MemorySink()
        run = Run("r", config, store, sinks=[sink])
        metered = MeteredModel(model, "main", run)
        before = model.cache
        queried, hit = counter("vllm:prefix_cache_queries"), counter("vllm:prefix_cache_hits")
        nodes = [()]
        for depth in range(3):
            sampling = SamplingParams(n=3, max_tokens=24, stop=STEP_STOPS, seed=depth, ignore_eos=True)
            requests = [
                Request(prompt=PROMPTS[2].with_prefix(ids), sampling=sampling, sample_indices=(child,))
                for ids in nodes
                for child in range(3)
            ]
            parents = [ids for ids in nodes for _ in range(3)]
            responses = await metered.generate(requests)
            nodes = [ids + response[0].token_ids for ids, response in zip(parents, responses, strict=True)][:2]
        usage = run.ledger.usage()
        # the last step's statistics come right after its tokens
        await wait_until(lambda: counter("vllm:prefix_cache_queries") - queried >= usage.prompt_tokens)
        since = model.cache - before
    finally:
        await store.aclose()
    assert usage.cached_tokens > usage.prompt_tokens // 2
    assert (since.queried_tokens, since.hit_tokens) == (usage.prompt_tokens, usage.cached_tokens)
    assert counter("vllm:prefix_cache_queries") - queried == usage.prompt_tokens
    assert counter("vllm:prefix_cache_hits") - hit == usage.cached_tokens
    calls = sink.of_type("call.finished")
    assert sum(c.prompt_tokens for c in calls) == usage.prompt_tokens
    assert sum(c.cached_tokens for c in calls) == usage.cached_tokens
