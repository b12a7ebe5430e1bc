"""`LocalModel` on a tiny random model, fp32: every promise of the protocol but the real weights."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
import torch
from reason.core.errors import BackendError, BackendUnavailable, CapabilityMissing, ContextTooLong, UserError
from reason.core.messages import Chunk, Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles
from support.waiting import wait_until

PROMPTS = ["a", "The quick brown fox", "x" * 90, "Zwölf Boxkämpfer", "b" * 30]


def ask(text: str = "The quick brown fox", **sampling: object) -> Request:
    settings: dict[str, object] = {"max_tokens": 12, "seed": 1, "ignore_eos": True}
    return Request(prompt=Prompt(text=text), sampling=SamplingParams(**({"logprobs": True} | settings | sampling)))


async def one(model: LocalModel, request: Request) -> Completion:
    return (await model.generate([request]))[0][0]


def reference_logprobs(files: ModelFiles, ids: Sequence[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(files.directory, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([list(ids)])).logits[0], -1)


def small(files: ModelFiles, **settings: int) -> LocalModel:
    return LocalModel.load(files, weight_format="fp32", threads=1, **settings)


async def idle(model: LocalModel) -> None:
    """Wait until nothing is running (cancellation takes effect at the next step)."""
    scheduler = model._scheduler
    await wait_until(lambda: not scheduler.has_work and all(tree.is_idle for tree in scheduler.prefix_cache.trees))


async def test_a_batch_is_what_each_request_is_only(tiny_files):
    requests = [ask(t, n=3, temperature=1.3, max_tokens=5 + 4 * i) for i, t in enumerate(PROMPTS)]
    together = small(tiny_files("llama"))
    alone = small(tiny_files("llama"), max_num_seqs=1)
    batch = await together.generate(requests)
    for request, expected in zip(requests, batch, strict=True):
        (single,) = await alone.generate([request])
        assert [c.token_ids for c in single] == [c.token_ids for c in expected]
        assert [c.text for c in single] == [c.text for c in expected]
        for mine, theirs in zip(single, expected, strict=True):
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    await together.aclose()
    await alone.aclose()


async def test_usage_and_reuse(tiny):
    first, *rest = (await tiny.generate([ask("y" * 50, n=3)]))[0]
    assert (first.usage.prompt_tokens, first.usage.cached_tokens, first.usage.completion_tokens) == (50, 0, 12)
    assert all(c.usage.prompt_tokens == 0 and c.usage.completion_tokens == 12 for c in rest)
    again = await one(tiny, ask("y" * 50))
    assert again.usage.cached_tokens == 49
    assert again.token_ids == first.token_ids
    longer = await one(tiny, ask("y" * 50 + "z" * 20))
    assert longer.usage.cached_tokens == 50


async def test_samples_of_a_prompt_share_its_keys_and_values(tiny_files):
    model = small(tiny_files("llama"))
    await model.generate([ask("y" * 200, n=8, max_tokens=10)])
    (tree,) = model._scheduler.prefix_cache.trees
    # The prompt once, and for each sample all tokens but the last, which is never computed.
    assert tree.cache.used == 200 + 8 * 9
    await model.aclose()


async def test_requests_of_one_call_that_share_a_prefix_compute_it_once(tiny):
    results = await tiny.generate([ask("y" * 100 + end, max_tokens=3) for end in "abcd"])
    assert [r[0].usage.cached_tokens for r in results] == [0, 100, 100, 100]


async def test_more_samples_than_batch_slots(tiny_files):
    model = small(tiny_files("llama"), max_num_seqs=3)
    maximum = 0

    def listen(chunk: Chunk) -> None:
        nonlocal maximum
        maximum = max(maximum, model.num_running)

    (samples,) = await model.generate([ask(n=10, temperature=1.5)], listen)
    assert len({c.token_ids for c in samples}) == 10
    assert maximum <= 3
    await model.aclose()


async def test_end_of_text(tiny):
    hooks = (LogitsProcessorSpec(name="only_tokens", args={"ids": [2]}),)
    ended = await one(tiny, ask(logits_processors=hooks, ignore_eos=False))
    assert (ended.finish_reason, ended.text, ended.token_ids) == ("stop", "", (2,))
    assert ended.stop_reason == ""
    ignored = await one(tiny, ask(logits_processors=hooks))
    assert (ignored.finish_reason, ignored.token_ids) == ("length", (2,) * 12)
    assert ignored.stop_reason is None


async def test_scores_are_those_of_plain_forward_passes(tiny, tiny_files):
    prompt = Prompt(text="The quick brown fox " * 5)
    continuations = ["jumps over", "sits", "", (5, 6, 7), "q", "r" * 300]
    scored = await tiny.score(prompt, continuations)
    before = tiny._tokenizer.prompt_ids(prompt)
    for continuation, result in zip(continuations, scored, strict=True):
        ids = tiny._tokenizer.encode(continuation) if isinstance(continuation, str) else list(continuation)
        assert list(result.token_ids) == ids
        assert result.usage.prompt_tokens == len(before) + len(ids)
        if not ids:
            assert (result.logprobs, result.is_greedy) == ((), True)
            continue
        expected = reference_logprobs(tiny_files("llama"), [*before, *ids])[len(before) - 1 : -1]
        assert result.logprobs == pytest.approx(expected[range(len(ids)), ids].tolist(), abs=1e-3)
        assert result.is_greedy == bool((expected.argmax(-1) == torch.tensor(ids)).all())
    assert scored[1].usage.cached_tokens >= len(before) - 1
    assert await tiny.score(prompt, []) == []


async def test_next_token_is_exact(tiny, tiny_files):
    prompts = [Prompt(text=t) for t in PROMPTS]
    actual = await tiny.next_token(prompts, top=5)
    for prompt, next_token in zip(prompts, actual, strict=True):
        last = reference_logprobs(tiny_files("llama"), tiny._tokenizer.prompt_ids(prompt))[-1].double()
        assert next_token.support == "full"
        assert list(next_token.token_ids) == last.topk(5).indices.tolist()
        assert next_token.logprobs == pytest.approx(last.topk(5).values.tolist(), abs=1e-4)
        assert next_token.entropy == pytest.approx(float(-(last.exp() * last).sum()), abs=1e-4)
    complete = (await tiny.next_token([prompts[0]], top=10_000))[0]
    assert math.fsum(math.exp(lp) for lp in complete.logprobs) == pytest.approx(1, abs=1e-5)


async def test_too_long_is_refused_before_any_work(tiny):
    with pytest.raises(ContextTooLong, match="1025 tokens"):
        await tiny.generate([ask(), ask("x" * 1013)])
    with pytest.raises(ContextTooLong):
        await tiny.score(Prompt(text="x" * 1000), ["y" * 100])
    with pytest.raises(ContextTooLong):
        await tiny.next_token([Prompt(text="x" * 1100)])
    assert tiny.cache_bytes == 0
    assert (await one(tiny, ask("x" * 1012))).ok


async def test_bad_arguments(tiny, tiny_files):
    with pytest.raises(CapabilityMissing, match="top_logprobs"):
        await tiny.generate([ask(top_logprobs=1000)])
    with pytest.raises(UserError, match="token 300"):
        await tiny.score(Prompt(text="a"), [(300,)])
    with pytest.raises(UserError, match="top"):
        await tiny.next_token([Prompt(text="a")], top=0)
    for settings in ({"threads": 0}, {"max_num_seqs": 0}, {"kv_cache_bytes": 0}, {"weight_format": "int3"}):
        with pytest.raises(UserError):
            LocalModel.load(tiny_files("llama"), **settings)


async def test_cancelling_frees_batch_slots_and_cache(tiny):
    begun = asyncio.Event()

    def listen(chunk: Chunk) -> None:
        begun.set()

    work = asyncio.create_task(tiny.generate([ask(n=6, max_tokens=900, temperature=1.0)], listen))
    await begun.wait()
    assert tiny.num_running == 6
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await idle(tiny)
    assert tiny.num_running == 0
    assert all(not t.cache.tables for t in tiny._scheduler.prefix_cache.trees)
    assert (await one(tiny, ask())).ok


async def test_a_short_request_need_not_wait_for_a_long_one(tiny):
    order = []

    async def run(name: str, request: Request) -> None:
        await tiny.generate([request])
        order.append(name)

    await asyncio.gather(run("long", ask(max_tokens=300)), run("short", ask("b", max_tokens=3)))
    assert order == ["short", "long"]


async def test_the_cache_stays_within_its_budget(tiny_files):
    column = 2 * 3 * 2 * 16 * 4
    model = small(tiny_files("llama"), kv_cache_bytes=600 * column)
    first = await one(model, ask("p" * 100))
    for letter in "qrstuv":
        await model.generate([ask(letter * 100, n=2)])
        assert model.cache_bytes <= 600 * column
    again = await one(model, ask("p" * 100))
    assert again.usage.cached_tokens == 0
    assert again.token_ids == first.token_ids
    with pytest.raises(ContextTooLong, match="cache holds 600"):
        await model.generate([ask("p" * 500, max_tokens=101)])
    await model.aclose()


async def test_samples_wait_for_cache_and_stay_the_same(tiny_files):
    column = 2 * 3 * 2 * 16 * 4
    request = ask("p" * 40, n=4, temperature=1.2, max_tokens=60)
    roomy, tight = small(tiny_files("llama")), small(tiny_files("llama"), kv_cache_bytes=240 * column)
    (expected,) = await roomy.generate([request])
    (actual,) = await tight.generate([request])
    assert [c.token_ids for c in actual] == [c.token_ids for c in expected]
    assert tight._scheduler._running_at_preemption
    assert tight.cache_bytes <= 240 * column
    for model in (roomy, tight):
        await model.aclose()


async def test_calls_that_do_not_fit_together_wait_for_one_another(tiny_files):
    column = 2 * 3 * 2 * 16 * 4
    model = small(tiny_files("llama"), kv_cache_bytes=320 * column)
    requests = [ask(letter * 80, n=2, temperature=1.0, max_tokens=80) for letter in "pq"]
    alone = [await model.generate([request]) for request in requests]
    together = await asyncio.gather(*(model.generate([request]) for request in requests))
    assert [[c.token_ids for c in samples] for [samples] in together] == [
        [c.token_ids for c in samples] for [samples] in alone
    ]
    await model.aclose()


async def test_closing_cancels_and_refuses(tiny_files):
    model = small(tiny_files("llama"))
    begun = asyncio.Event()
    work = asyncio.create_task(model.generate([ask(max_tokens=900)], lambda chunk: begun.set()))
    await begun.wait()
    await model.aclose()
    with pytest.raises((asyncio.CancelledError, BackendUnavailable)):
        await work
    await model.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.generate([ask()])


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), NameError("out of memory")])
async def test_a_fault_of_any_kind_fails_the_calls_and_not_the_engine(tiny, monkeypatch, error):
    def broken(*_: object) -> torch.Tensor:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tiny._model, "forward", broken)
        with pytest.raises(BackendError, match="out of memory"):
            await tiny.generate([ask(n=2), ask("b")])
    with pytest.raises(BackendError, match="out of memory"):
        await tiny._calls.run_exclusive(broken)
    assert (await one(tiny, ask())).ok


async def test_a_listener_that_raises_ends_its_call_and_no_other(tiny):
    def bad(chunk: Chunk) -> None:
        raise ValueError("my own fault")

    alone = await one(tiny, ask("other"))
    failed, neighbour = await asyncio.gather(
        tiny.generate([ask(max_tokens=900)], bad), one(tiny, ask("other")), return_exceptions=True
    )
    assert repr(failed) == "ValueError('my own fault')"
    assert isinstance(neighbour, Completion)
    assert neighbour.token_ids == alone.token_ids
    await idle(tiny)


async def test_int4_is_never_chosen_silently(tiny_files):
    model = LocalModel.load(tiny_files("llama"), threads=1)
    assert model.weight_format in ("bf16", "fp32")
    await model.aclose()
