"""Contrastive pairs on the embedded engine: lock-step, lone members, scarce rows and memory, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reason.core.errors import UserError
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.logits_processors.groups import mix_logits
from reason.serving.model_files.find import ModelFiles

GOOD, BAD = Prompt.user("please say something sensible", system="be brief"), Prompt.user("no")


def pair(name: str = "p", expert: Prompt = GOOD, amateur: Prompt = BAD, **sampling: Any) -> list[Request]:
    def one(prompt: Prompt, role: str) -> Request:
        args = {"pair": name, "role": role, "strength": 1.0}
        hooks = (LogitsProcessorSpec(name="contrast", args=args),)
        settings = {"temperature": 1.0, "seed": 3, "max_tokens": 12, "ignore_eos": True} | sampling
        return Request(prompt=prompt, sampling=SamplingParams(logits_processors=hooks, logprobs=True, **settings))

    return [one(expert, "expert"), one(amateur, "amateur")]


def check(expert: Completion, amateur: Completion) -> None:
    assert expert.ok, expert.failure
    assert amateur.ok, amateur.failure
    assert expert.token_ids == amateur.token_ids
    mixed_tokens = [c.extras["contrast"] for c in (expert, amateur)]
    assert mixed_tokens == [{"mixed": len(expert.token_ids)}] * 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_both_samples_have_equal_tokens_unlike_either_on_its_own(tiny: LocalModel, temperature: float) -> None:
    both = pair(temperature=temperature)
    [[expert], [amateur]] = await tiny.generate(both)
    check(expert, amateur)
    plain = [Request(prompt=r.prompt, sampling=r.sampling.model_copy(update={"logits_processors": ()})) for r in both]
    [[without], _] = await tiny.generate(plain)
    assert expert.token_ids != without.token_ids
    assert expert.logprobs != amateur.logprobs  # each reports its own raw distribution


async def test_greedy_tokens_are_the_best_of_the_mix(tiny: LocalModel) -> None:
    [[expert], _] = await tiny.generate(pair(temperature=0.0, max_tokens=6))
    for at, token in enumerate(expert.token_ids):
        said = expert.token_ids[:at]
        rows = []
        for distribution in await tiny.next_token([GOOD.with_prefix(said), BAD.with_prefix(said)], top=1000):
            row = np.zeros(264, dtype=np.float32)
            row[list(distribution.token_ids)] = distribution.logprobs
            rows.append(row)
        assert int(mix_logits(rows[0], rows[1:], 1.0, 0.1).argmax()) == token


async def test_a_missing_partner_changes_nothing(tiny: LocalModel) -> None:
    [member, _] = pair()
    plain = member.model_copy(update={"sampling": member.sampling.model_copy(update={"logits_processors": ()})})
    [[single]] = await tiny.generate([member])
    [[without]] = await tiny.generate([plain])
    assert (single.token_ids, single.extras) == (without.token_ids, {})


async def test_pairs_of_the_same_name_in_other_calls_are_independent(tiny: LocalModel) -> None:
    [[first], _] = await tiny.generate(pair())
    other = pair(expert=BAD, amateur=GOOD)
    [[[again], _], [[swapped], partner]] = await asyncio.gather(tiny.generate(pair()), tiny.generate(other))
    assert again.token_ids == first.token_ids
    check(swapped, partner[0])
    assert swapped.token_ids != first.token_ids


async def test_many_samples_of_many_pairs_with_few_batch_slots(tiny_files: Callable[[str], ModelFiles]) -> None:
    model = LocalModel.load(
        tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20, max_num_seqs=3
    )
    try:
        listed = [pair(f"p{i}", Prompt.user(f"say {i}"), Prompt.user(f"do not {i}"), n=4) for i in range(3)]
        experts, amateurs = [p[0] for p in listed], [p[1] for p in listed]
        lone = Request(prompt=GOOD, sampling=SamplingParams(max_tokens=5, seed=1, n=3, logprobs=True))
        made = await model.generate([*experts, lone, *amateurs])
        for expert, amateur in zip(made[:3], made[4:], strict=True):
            assert len(expert) == 4
            for a, b in zip(expert, amateur, strict=True):
                check(a, b)
        assert len({c.token_ids for c in made[0]}) > 1
        assert all(c.ok for c in made[3])
    finally:
        await model.aclose()


async def test_preempted_pairs_stay_in_lockstep(tiny_files: Callable[[str], ModelFiles]) -> None:
    roomy = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    scarce = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=1 << 19)
    try:
        listed = [r for i in range(4) for r in pair(f"p{i}", Prompt.user(f"say {i}"), BAD, max_tokens=150)]
        expected = await roomy.generate(listed)
        paused = 0
        relieve = scarce._scheduler._preempt

        def counted(error: Any) -> bool:
            nonlocal paused
            paused += 1
            return relieve(error)

        scarce._scheduler._preempt = counted  # type: ignore[method-assign]
        made = await scarce.generate(listed)
        assert paused
        for [expert], [amateur] in zip(made[::2], made[1::2], strict=True):
            check(expert, amateur)
        assert [c.token_ids for [c] in made] == [c.token_ids for [c] in expected]
    finally:
        await roomy.aclose()
        await scarce.aclose()


async def test_a_pair_needs_two_batch_slots(tiny_files: Callable[[str], ModelFiles]) -> None:
    model = LocalModel.load(
        tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20, max_num_seqs=1
    )
    try:
        with pytest.raises(UserError, match="2 requests in lockstep"):
            await model.generate(pair())
    finally:
        await model.aclose()


async def test_a_cancelled_pair_frees_its_cache(tiny: LocalModel) -> None:
    task = asyncio.ensure_future(tiny.generate(pair(max_tokens=900)))
    while tiny.num_running < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while tiny.num_running:
        await asyncio.sleep(0.001)
    [[expert], [amateur]] = await tiny.generate(pair())
    check(expert, amateur)
