"""Saved prefixes and runs: cached tokens in the ledger, and samples that need the memory of pins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.serving.local.engine import LocalModel
from reason.serving.metered.model import MeteredModel
from reason.serving.model_files.find import ModelFiles
from reason.serving.prefix_directory import PrefixStorage

KV_BYTES = 1 << 20
"""About 1300 tokens of the tiny llama."""


@pytest.fixture
async def model(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> AsyncIterator[LocalModel]:
    position = PrefixStorage(tmp_path / "prefixes", 1 << 24)
    model = LocalModel.load(
        tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=KV_BYTES, prefixes=position
    )
    yield model
    await model.aclose()


async def test_the_ledger_counts_hits_by_model_and_role(model: LocalModel, tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    config = RunConfig(question=Question(text="?"), strategy="cot", parameters={}, models={"main": "m"}, seed=7)
    run = Run("r", config, store)
    main, judge = MeteredModel(model, "main", run), MeteredModel(model, "judge", run)
    rules = Prompt.user("Think before you answer. " * 8)
    count = len((await model.kv_store.save("rules", rules)).saved.token_ids)

    longer = rules.with_prefix("First, ")
    await main.generate([Request(prompt=longer, sampling=SamplingParams(max_tokens=3, n=4))])
    [reported] = await judge.next_token([rules])
    [scored] = await judge.score(rules, ["yes, it is"])
    by_role = run.ledger.usage().by_role
    assert by_role[f"main:{model.name}"].prompt_tokens == count + len("First, ")
    assert by_role[f"main:{model.name}"].cached_tokens == count
    assert by_role[f"judge:{model.name}"].cached_tokens == reported.usage.cached_tokens + scored.usage.cached_tokens
    assert reported.usage.cached_tokens == scored.usage.cached_tokens == count - 1
    assert run.ledger.usage().cached_tokens == sum(r.cached_tokens for r in by_role.values())
    await store.aclose()


async def test_samples_wait_for_an_unpinned_prefix_or_fail_with_a_hint(model: LocalModel) -> None:
    """A long sample, then a pin that takes the memory it needs later: nothing hangs, whatever the result."""
    grown = asyncio.Event()
    sampling = SamplingParams(max_tokens=600, temperature=1.0, seed=1, ignore_eos=True, n=2)
    request = Request(prompt=Prompt(text="a" * 100), sampling=sampling)
    task = asyncio.create_task(model.generate([request], lambda _: grown.set()))
    await grown.wait()
    await model.kv_store.save("large", Prompt(text="b" * 500))
    [samples] = await task
    for sample in samples:
        assert (
            sample.usage.completion_tokens == 600 if sample.failure is None else sample.failure.code == "out_of_cache"
        )
        assert sample.failure is None or "drop saved prefixes" in sample.failure.message
    await model.kv_store.drop("large")
    [again] = await model.generate([request.model_copy(update={"sampling": sampling.model_copy(update={"n": 1})})])
    assert again[0].ok
    assert model.cache_bytes <= KV_BYTES


async def test_pins_while_many_samples_are_under_way(model: LocalModel) -> None:
    prompts = [Prompt(text=chr(97 + i) * 40) for i in range(6)]
    requests = [Request(prompt=p, sampling=SamplingParams(max_tokens=30, seed=i)) for i, p in enumerate(prompts)]
    single = [(await model.generate([r]))[0][0] for r in requests]

    async def pin(i: int) -> None:
        for _ in range(3):
            await model.kv_store.save(f"p{i}", prompts[i])
            await model.kv_store.drop(f"p{i}", keep_file=True)
            await model.kv_store.restore(f"p{i}")
            await model.kv_store.drop(f"p{i}")

    together, *_ = await asyncio.gather(model.generate(requests), *(pin(i) for i in range(len(prompts))))
    assert [c.text for [c] in together] == [c.text for c in single]
    assert await model.kv_store.saved() == []
