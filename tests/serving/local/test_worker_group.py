"""Workers of the embedded engine through their public interface: passes, sampling, memory, ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from reason.core.errors import BackendError, BackendUnavailable, CapabilityMissing, ContextTooLong, UserError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.local.prefix_cache import OutOfCache
from reason.serving.worker_group import (
    GroupStep,
    WorkerGroup,
    WorkerGroupConfig,
    WorkerInput,
    WorkerToken,
)
from support.waiting import wait_until

TEXT = "The quick brown fox jumps over the lazy dog."
BOTH = (WorkerInput(token=3), WorkerInput(token=4))


def opening(**settings: Any) -> WorkerGroupConfig:
    usual: dict[str, Any] = {
        "prompt": Prompt(text=TEXT),
        "others_header": "others: ",
        "own_header": "mine: ",
        "seed": 5,
    }
    return WorkerGroupConfig(**(usual | settings))


def texts(*given: str) -> tuple[WorkerInput | None, ...]:
    return tuple(WorkerInput(text=text) if text else None for text in given)


async def write(
    group: WorkerGroup, passes: int, first: list[str] | None = None, moves: dict[int, tuple[int, ...]] | None = None
) -> list[list[WorkerToken]]:
    """What each worker samples when it reads only its own tokens; `moves` by pass."""
    feeds = texts(*(first or [chr(97 + w) for w in range(group.num_workers)]))
    written: list[list[WorkerToken]] = [[] for _ in feeds]
    for number in range(passes):
        drawn = await group.advance(GroupStep(inputs=feeds, moves=(moves or {}).get(number, ())))
        for worker, token in enumerate(drawn):
            assert token is not None
            written[worker].append(token)
        feeds = tuple(WorkerInput(token=d.token) for d in drawn if d)
    return written


def ids(written: list[list[WorkerToken]]) -> list[list[int]]:
    return [[d.token for d in worker] for worker in written]


async def settled(model: LocalModel, cache_bytes: int) -> None:
    """Wait until the engine's caches have so many bytes: ends take effect at its next step."""
    await wait_until(lambda: not model._scheduler.has_work and model.cache_bytes == cache_bytes)


async def test_one_worker_writes_what_a_sample_is(tiny):
    prompt = Prompt(text=TEXT)
    sampled = SamplingParams(max_tokens=30, temperature=1.0, seed=5, ignore_eos=True, logprobs=True)
    ((expected,),) = await tiny.generate([Request(prompt=Prompt(text=TEXT + "a"), sampling=sampled)])
    group = await tiny.start_workers(opening(prompt=prompt, num_workers=1))
    (written,) = await write(group, 30, moves={7: (0,), 20: (0,)})
    assert tuple(d.token for d in written) == expected.token_ids
    assert expected.logprobs is not None
    assert [d.logprob for d in written] == pytest.approx(list(expected.logprobs), abs=1e-3)
    assert expected.text.startswith("".join(d.text for d in written))
    await group.aclose()


async def test_a_seed_repeats_the_text_and_fewer_passes_give_its_beginning(tiny):
    reported = []
    for passes, seed in ((20, 5), (12, 5), (20, 6)):
        group = await tiny.start_workers(opening(num_workers=3, seed=seed))
        reported.append(ids(await write(group, passes)))
        assert group.usage.completion_tokens == 3 * passes
        await group.aclose()
    assert [w[:12] for w in reported[0]] == reported[1]
    assert reported[0] != reported[2]
    assert len({tuple(w) for w in reported[0]}) == 3


async def test_concurrent_requests_do_not_change_the_workers(tiny):
    async def single() -> list[list[int]]:
        group = await tiny.start_workers(opening())
        written = await write(group, 25)
        await group.aclose()
        return ids(written)

    request = Request(prompt=Prompt(text="beside"), sampling=SamplingParams(max_tokens=60, seed=1, ignore_eos=True))
    expected, ((sample,),) = await single(), await tiny.generate([request])
    neighbour = await asyncio.gather(single(), tiny.generate([request]), single())
    assert neighbour[0] == neighbour[2] == expected
    assert neighbour[1][0][0].token_ids == sample.token_ids


async def test_layouts_see_different_things(tiny):
    by_layout = {}
    for layout in ("combined", "interleaved", "contiguous"):
        group = await tiny.start_workers(opening(layout=layout, temperature=0))
        by_layout[layout] = await group.advance(GroupStep(inputs=texts("a", "b")))
        await group.aclose()
    shown = [[d.logprob for d in drawn if d] for drawn in by_layout.values()]
    assert len({tuple(s) for s in shown}) == 3


async def test_a_finished_text_becomes_visible_in_the_interleaved_layout_and_not_before(tiny):
    async def last(secret: str, moved: bool) -> WorkerToken | None:
        group = await tiny.start_workers(opening(layout="interleaved", temperature=0))
        await group.advance(GroupStep(inputs=texts("a", secret)))
        drawn = await group.advance(GroupStep(inputs=texts("c", ""), moves=(1,) if moved else ()))
        await group.aclose()
        assert drawn[1] is None
        return drawn[0]

    assert await last("xyz", False) == await last("uvw", False)
    assert await last("xyz", True) != await last("uvw", True)


async def test_banned_texts_are_never_sampled_and_log_probabilities_stay_raw(tiny):
    plain = await tiny.start_workers(opening(num_workers=1, temperature=0))
    (usual,) = await write(plain, 40)
    at, text = next((i, t) for i, d in enumerate(usual) if (t := tiny._tokenizer.token(d.token)))
    group = await tiny.start_workers(opening(num_workers=1, banned_texts=(text,), temperature=0))
    (written,) = await write(group, 40)
    assert [d.token for d in written[:at]] == [d.token for d in usual[:at]]
    assert all(text not in tiny._tokenizer.token(d.token) for d in written)
    assert written[at].logprob < usual[at].logprob
    await plain.aclose()
    await group.aclose()


async def test_usage_counts_what_workers_read_of_one_another(tiny):
    group = await tiny.start_workers(opening(num_workers=2))
    prompt = sum(map(len, (TEXT, "others: ", "mine: ")))  # a byte a token
    assert group.usage.prompt_tokens == prompt
    drawn = await group.advance(GroupStep(inputs=texts("abc", "")))
    assert (group.usage.prompt_tokens, group.usage.completion_tokens) == (prompt + 3, 1)
    assert drawn[0] is not None
    assert drawn[0].num_read == 3
    drawn = await group.advance(GroupStep(inputs=(WorkerInput(token=drawn[0].token, text="xy"), WorkerInput(text="z"))))
    assert [d.num_read for d in drawn if d] == [3, 1]
    assert (group.usage.prompt_tokens, group.usage.completion_tokens) == (prompt + 6, 3)
    await group.aclose()


async def test_cache_is_reserved_and_released(tiny):
    before = tiny.cache_bytes
    group = await tiny.start_workers(opening(num_workers=2))
    begun = tiny.cache_bytes
    assert begun > before
    await write(group, 80, moves={30: (0, 1), 50: (1,)})
    assert tiny.cache_bytes > begun
    state = group._group
    assert tiny.cache_bytes - before == state.cache.nbytes
    await group.aclose()
    await group.aclose()
    await settled(tiny, before)
    with pytest.raises(BackendUnavailable):
        await group.advance(GroupStep(inputs=BOTH))


async def test_a_full_cache_is_reported_and_released(tiny_files):
    model = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=400 * 768)
    try:
        group = await model.start_workers(opening(num_workers=2))
        with pytest.raises(OutOfCache):
            await write(group, 300)
        await settled(model, 0)
        other = await model.start_workers(opening(num_workers=2))
        await write(other, 5)
        with pytest.raises(OutOfCache):
            await model.start_workers(opening(num_workers=4))
    finally:
        await model.aclose()


async def test_a_view_longer_than_the_context_is_refused(tiny):
    group = await tiny.start_workers(opening(num_workers=2))
    with pytest.raises(ContextTooLong, match="1024"):
        await group.advance(GroupStep(inputs=texts("a" * 500, "b" * 500)))
    with pytest.raises(ContextTooLong):
        await tiny.start_workers(opening(prompt=Prompt(text="a" * 1100)))


async def test_cancelling_a_pass_or_a_start_releases_everything(tiny, monkeypatch):
    before = tiny.cache_bytes
    reserve, begun = tiny._scheduler.prefix_cache.reserve_external, threading.Event()
    monkeypatch.setattr(tiny._scheduler.prefix_cache, "reserve_external", lambda slots: begun.set() or reserve(slots))
    opened = asyncio.ensure_future(tiny.start_workers(opening(prompt=Prompt(text="a" * 900))))
    await asyncio.to_thread(begun.wait)
    opened.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opened
    group = await tiny.start_workers(opening(num_workers=2))
    writing = await started(group)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await settled(tiny, before)
    with pytest.raises(BackendUnavailable):
        await group.advance(GroupStep(inputs=BOTH))


async def started(group: WorkerGroup) -> asyncio.Future[list[list[WorkerToken]]]:
    """Workers that write, and have written something."""
    writing = asyncio.ensure_future(write(group, 400))
    await wait_until(lambda: group.usage.completion_tokens)
    return writing


async def test_closing_the_engine_ends_a_pass(tiny):
    group = await tiny.start_workers(opening(num_workers=2))
    writing = await started(group)
    await tiny.aclose()
    with pytest.raises((BackendError, asyncio.CancelledError)):
        await writing
    await group.aclose()


async def test_a_model_whose_forward_is_not_ours_has_no_workers(tiny_files):
    model = LocalModel.load(tiny_files("gpt_neox"), weight_format="fp32", threads=1)
    try:
        assert not model.capabilities.kv_sharing
        with pytest.raises(CapabilityMissing, match="kv_sharing"):
            await model.start_workers(opening())
    finally:
        await model.aclose()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (GroupStep(inputs=(WorkerInput(token=3),)), "of 2"),
        (GroupStep(inputs=(None, None)), "no worker reads"),
        (GroupStep(inputs=(WorkerInput(token=3), WorkerInput())), "worker 1 reads nothing"),
        (GroupStep(inputs=(WorkerInput(token=3), WorkerInput(token=999))), "not in the vocabulary"),
        (GroupStep(inputs=BOTH, moves=(2,)), "workers are 0 to 1"),
        (GroupStep(inputs=BOTH, moves=(1, 1)), "each once"),
    ],
)
async def test_an_invalid_pass_is_refused_and_changes_nothing(tiny, step, said):
    group = await tiny.start_workers(opening(num_workers=2))
    with pytest.raises(UserError, match=said):
        await group.advance(step)
    assert len(ids(await write(group, 2))[0]) == 2
    await group.aclose()


async def test_nothing_is_moved_in_a_contiguous_layout(tiny):
    group = await tiny.start_workers(opening(layout="contiguous"))
    with pytest.raises(UserError, match="has no moves"):
        await group.advance(GroupStep(inputs=BOTH, moves=(0,)))
    await group.aclose()
