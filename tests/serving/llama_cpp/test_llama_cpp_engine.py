"""The local engine over llama.cpp: seeds, prefix reuse, cancellation, limits, a full cache, closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from reason.core.errors import CapabilityMissing
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.core.settings import LocalSettings, Settings
from reason.serving.factory import load_model
from reason.serving.local.engine import LocalModel
from reason.serving.worker_group import WorkerGroupConfig
from support.tiny_gguf import TinyModel

PROMPT = Prompt.user("the thin teller in the inn")


def request(prompt: Prompt = PROMPT, **sampling: Any) -> Request:
    return Request(
        prompt=prompt, sampling=SamplingParams(**{"max_tokens": 12, "seed": 3, "ignore_eos": True} | sampling)
    )


async def samples(model: LocalModel, *requests: Request) -> list[list[Completion]]:
    completions = await model.generate(requests)
    assert all(c.ok for one in completions for c in one)
    return completions


async def test_greedy_tokens_are_those_of_transformers(tiny):
    [[completion]] = await samples(tiny, request(temperature=0, logprobs=True))
    prompt_ids = tiny._tokenizer.prompt_ids(PROMPT)
    with torch.inference_mode():
        ids = torch.tensor([[*prompt_ids, *completion.token_ids]])
        logits = TinyModel().transformers_model()(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    assert completion.token_ids == tuple(logits.argmax(-1).tolist())
    expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0].tolist()
    assert completion.logprobs == pytest.approx(expected, abs=0.03)


async def test_a_seed_gives_the_tokens_that_the_embedded_engine_samples(tiny, tiny_file, tmp_path):
    settings = Settings(cache_dir=tmp_path, local=LocalSettings(threads=1, weight_format="fp32"))
    embedded = await load_model(f"local/{tiny_file(Kind.F32)}", settings)
    [own] = await embedded.generate([request(n=4, temperature=0.7)])
    await embedded.aclose()
    [completions] = await samples(tiny, request(n=4, temperature=0.7))
    assert [c.token_ids[:4] for c in completions] == [c.token_ids[:4] for c in own]


async def test_tokens_of_an_earlier_call_are_not_prefilled_again(tiny):
    [[first, *_]] = await samples(tiny, request(n=4))
    [[second, *_]] = await samples(tiny, request(n=2))
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == second.usage.prompt_tokens - 1
    continued = PROMPT.with_prefix(first.token_ids)
    [[third]] = await samples(tiny, request(continued))
    assert third.usage.prompt_tokens == first.usage.prompt_tokens + 12
    assert third.usage.cached_tokens >= third.usage.prompt_tokens - 2  # a sample's last token is not computed
    [[apart]] = await samples(tiny, request(PROMPT.model_copy(update={"cache_salt": "tenant"})))
    assert apart.usage.cached_tokens == 0


async def test_many_samples_and_scores_fit_llama_cpps_sequences(tiny):
    texts = [f"{i} inn" for i in range(20)]
    generated, *scored = await asyncio.gather(
        tiny.generate([request(n=150, max_tokens=2, seed=1)]),
        *(tiny.score(Prompt.user(f"the {i}"), texts) for i in range(12)),
    )
    assert sum(c.ok for c in generated[0]) == 150
    [alone] = [await tiny.score(Prompt.user("the 5"), texts)]
    for one, again in zip(alone, scored[5], strict=True):
        assert one.logprobs == pytest.approx(again.logprobs, abs=0.01)


async def test_samples_wait_or_are_preempted_where_the_memory_is_full(llama_cpp, tiny_file, tmp_path):
    local = LocalSettings(threads=1, max_num_seqs=4).model_copy(update={"kv_cache_bytes": 512 * 128})  # 512 tokens
    model = await load_model(f"gguf/{tiny_file(Kind.F32)}", Settings(cache_dir=tmp_path, local=local))
    [three, [one]] = await samples(model, request(n=3, max_tokens=200), request(Prompt.user("er"), max_tokens=200))
    [alone] = await samples(model, request(n=3, max_tokens=200))
    assert [len(c.token_ids) for c in (*three, one)] == [200] * 4
    assert [c.token_ids[:20] for c in three] == [c.token_ids[:20] for c in alone]
    await model.aclose()


async def test_what_llama_cpp_lacks_is_refused(tiny):
    features = tiny.capabilities
    assert features.full_vocabulary
    assert features.scoring
    assert features.prefix
    assert features.seed
    assert not features.kv_sharing
    with pytest.raises(CapabilityMissing, match="relevance"):
        await tiny.relevance(PROMPT, ["the"], "inn")
    with pytest.raises(CapabilityMissing, match="kv_sharing"):
        await tiny.start_workers(WorkerGroupConfig(prompt=PROMPT))
