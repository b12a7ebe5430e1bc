"""`VllmModel` beyond the contract: logits processors, scores, agreement with the local engine, its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reason.core.errors import BackendUnavailable, CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.settings import VllmSettings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from support.two_models import TwoModels
from support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.real]
ASK = Prompt.user("What is the capital of France?")
SETTINGS = VllmSettings(
    engine={"max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20, "dtype": "float32", "max_num_seqs": 16}
)


def request(**sampling: Any) -> Request:
    return Request(
        prompt=ASK, sampling=SamplingParams(**{"temperature": 0.0, "max_tokens": 8, "logprobs": True} | sampling)
    )


async def test_it_gives_the_texts_of_the_local_engine(vllm_model, smollm2_files):
    from reason.serving.local.engine import LocalModel

    local = LocalModel.load(smollm2_files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    try:
        requested = request(
            top_logprobs=5, max_tokens=6, logits_processors=(LogitsProcessorSpec(name="entropy_probe"),)
        )
        [[here]], [[there]] = await local.generate([requested]), await vllm_model.generate([requested])
        assert there.text == here.text
        assert there.token_ids == here.token_ids
        assert here.top_logprobs is not None
        for mine, theirs in zip(here.top_logprobs, there.top_logprobs, strict=True):
            assert [t.token_id for t in theirs] == [t.token_id for t in mine]
            assert [t.token for t in theirs] == [t.token for t in mine]
            assert [t.logprob for t in theirs] == pytest.approx([t.logprob for t in mine], abs=1e-3)
        assert there.extras["entropy_probe"]["entropy"] == pytest.approx(
            here.extras["entropy_probe"]["entropy"], abs=1e-3
        )
        [exact], [actual] = await local.next_token([ASK]), await vllm_model.next_token([ASK])
        assert here.extras["entropy_probe"]["entropy"][0] == pytest.approx(exact.entropy, abs=1e-4)
        assert actual.entropy == pytest.approx(exact.entropy, abs=1e-3)
        assert vllm_model.count_tokens(ASK) == local.count_tokens(ASK)
    finally:
        await local.aclose()


async def test_scores_cold_warm_and_of_a_cached_continuation(vllm_model):
    long = Prompt(text="The fox went to the river. " * 20)
    reported = [vllm_model._tokenizer.encode(t) for t in (" Then it swam away.", " Nobody saw it again " * 12)]
    ids = [tuple(t) for t in reported]
    cold = await vllm_model.score(long, ids)
    warm = await vllm_model.score(long, ids)  # the continuations themselves are cached by now
    assert warm[0].usage.cached_tokens > 0
    single = []
    for at in range(4):
        [one] = await vllm_model.score(long.with_prefix(ids[0][:at]), [ids[0][at : at + 1]])
        single.append(one.logprobs[0])
    assert cold[0].logprobs[:4] == pytest.approx(single, abs=1e-3)
    for first, second in zip(cold, warm, strict=True):
        assert second.logprobs == pytest.approx(first.logprobs, abs=1e-3)
        assert second.is_greedy == first.is_greedy


async def test_steps_that_end_at_a_string_add_up_to_the_text(vllm_model):
    [[complete]] = await vllm_model.generate([request(max_tokens=24, ignore_eos=True)])
    said = ()
    steps = 0
    while len(said) < 24:
        left = SamplingParams(temperature=0.0, max_tokens=24 - len(said), ignore_eos=True, stop=(" is", ".", "\n"))
        [[step]] = await vllm_model.generate([Request(prompt=ASK.with_prefix(said), sampling=left)])
        assert not any(stop in step.text for stop in left.stop)
        said += step.token_ids
        steps += 1
    assert said == complete.token_ids
    assert steps > 1


async def test_a_logits_processor_of_a_sample_that_fails_leaves_its_siblings(vllm_model):
    bad = request(logits_processors=(LogitsProcessorSpec(name="forbid_tokens", args={"ids": [10_000_000]}),))
    [[failed], [fine]] = await vllm_model.generate([bad, request()])
    assert failed.finish_reason == "error"
    assert failed.failure.code == "user_error"
    assert fine.ok


async def test_what_it_cannot_do_is_refused_before_it_runs(vllm_model):
    with pytest.raises(CapabilityMissing, match="top_logprobs"):
        await vllm_model.next_token([ASK], top=2000)
    with pytest.raises(UserError, match="not in the vocabulary"):
        await vllm_model.score(ASK, [(10_000_000,)])
    assert vllm_model.num_running == 0


async def test_missing_logits_processors_are_detected(vllm_model, monkeypatch):
    async def silence(method: str, args: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        return [{}]

    monkeypatch.setattr(vllm_model.engine, "collective_rpc", silence)
    from reason.core.errors import BackendError

    with pytest.raises(BackendError, match="ignored the logits processors"):
        await vllm_model.check_logits_processors()


@pytest.mark.parametrize(("threshold", "writer"), [(0.0, "large"), (100.0, "small")])
async def test_first_token_of_a_step_is_probed_over_the_complete_vocabulary(vllm_model, tmp_path, threshold, writer):
    requested = Question(text="Tom has 3 apples and buys 2 more. How many apples does he have?", kind="number")
    how = {"threshold": threshold, "answer": "writer", "max_step_tokens": 24, "thinking_tokens": 96}
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    try:
        harness = TwoModels(store, vllm_model, vllm_model)
        made = await harness.solve("a", question=requested, **how)
        again = await harness.solve("a", question=requested, replay=True, **how)
    finally:
        await store.aclose()
    assert set(made.notes["writers"]) == {writer}
    assert made.notes["entropy_kind"] == "full"
    assert again == made
    steps, small = made.notes["steps"], made.notes["tokens"]["small"]
    assert small["probes"] >= steps
    assert bool(small["steps"]) == (writer == "small")
    assert small["discarded"] == 0


async def test_the_end_leaves_no_process(tiny_vllm_files):
    import psutil
    from reason.serving.vllm.engine import engine_processes
    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/tiny", tiny_vllm_files, SETTINGS)
    processes = engine_processes(model.engine)
    assert processes
    running = asyncio.ensure_future(model.generate([request(max_tokens=500, ignore_eos=True)]))
    await wait_until(lambda: model.num_running)
    await model.aclose()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [p for p in processes if psutil.pid_exists(p.pid) and p.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.generate([request()])
    await model.aclose()
