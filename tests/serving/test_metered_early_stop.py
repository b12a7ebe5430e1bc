"""A caller that has enough: the rest stops, is charged as far as it got, and replays so."""

import asyncio

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.messages import Prompt, Request, SamplingParams
from support.scripted_model import ScriptedModel, held_after, replies
from support.stored_runs import RunHarness

LENGTHS = replies("ab", "abcdefghijklmnopqrstuvwxyz", weights=[1, 1])
REQUEST = Request(prompt=Prompt.user("q"), sampling=SamplingParams(n=12, max_tokens=50))


@pytest.fixture
def harness(store):
    return RunHarness(store, ScriptedModel(LENGTHS))


async def stopped_after_the_first(harness):
    """Everything up to the first finished sample."""
    enough = asyncio.Event()

    def hear(chunk):
        if chunk.completion is not None and chunk.completion.finish_reason == "stop":
            enough.set()

    (samples,) = await (await harness.begin()).generate([REQUEST], hear, enough=enough)
    return samples


async def test_remaining_samples_are_cancelled_and_charged(harness):
    samples = await stopped_after_the_first(harness)
    cut = [c for c in samples if c.finish_reason == "cancelled"]
    assert len(samples) == 12
    assert 1 <= len(cut) < 12
    assert harness.model.running == 0
    assert all(len(c.text) == len(c.token_ids) < 13 for c in cut)  # nobody wrote on to the 27th token
    written = sum(len(c.token_ids) for c in samples)
    assert harness.spent.completion_tokens == written
    assert harness.run.ledger.used("tokens") == written  # nothing stays reserved
    assert [e.tokens for e in harness.sink.of_type("call.finished")] == [written]
    assert len(harness.sink.of_type("sample.finished")) == 12
    assert harness.run.partial_completions == []  # it was no cancelled run


async def test_early_stop_replays_but_is_not_reused_by_other_runs(harness):
    samples = await stopped_after_the_first(harness)
    made = len(harness.model.made)
    assert await harness.generate(REQUEST) == [samples]
    assert len(harness.model.made) == made
    (other,) = await harness.generate(REQUEST, name="other", reuse="store")
    assert {c.finish_reason for c in other} == {"stop"}
    whole = {c.sample_index for c in samples if c.finish_reason == "stop"}
    assert sorted(index for _, index in harness.model.made[made:]) == sorted(set(range(12)) - whole)


async def test_immediate_stop_generates_nothing(harness):
    enough = asyncio.Event()
    enough.set()
    (samples,) = await (await harness.begin()).generate([REQUEST], enough=enough)
    assert {(c.text, c.finish_reason) for c in samples} == {("", "cancelled")}
    prompt_tokens = harness.model.count_tokens(REQUEST.prompt)  # it was asked
    assert (harness.spent.completion_tokens, harness.spent.prompt_tokens) == (0, prompt_tokens)
    assert harness.model.running == 0


async def test_backend_failure_is_raised(harness):
    def fail():
        raise BackendUnavailable("the engine is gone")

    harness.model._step = fail
    with pytest.raises(BackendUnavailable, match="the engine is gone"):
        await (await harness.begin()).generate([REQUEST], enough=asyncio.Event())
    assert harness.model.running == 0


async def test_cancellation_is_not_an_early_stop(harness):
    harness.model._step, is_held = held_after(0)
    metered = await harness.begin()
    task = asyncio.create_task(metered.generate([REQUEST], enough=asyncio.Event()))
    await is_held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert harness.model.running == 0
    assert await harness.store.list_calls("r") == []
