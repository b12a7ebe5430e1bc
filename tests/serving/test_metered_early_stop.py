"""A caller that has enough: the rest stops, is charged as far as it got, and replays so."""

from __future__ import annotations

import asyncio

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable
from reason.core.events import MemorySink
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.run import Run, RunConfig
from reason.core.types import Question
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies

LENGTHS = replies("ab", "abcdefghijklmnopqrstuvwxyz", weights=[1, 1])
REQUEST = Request(prompt=Prompt.user("q"), sampling=SamplingParams(n=12, max_tokens=50))


async def a_run(store, name="r", *, new=True, reuse="run", sink=None):
    config = RunConfig(
        question=Question(text="?"),
        strategy="cot",
        parameters={},
        models={"main": "scripted"},
        budget=Budget(),
        seed=3,
        reuse=reuse,
    )
    if new:
        await store.create_run(name, {})
    return Run(name, config, store, sinks=[sink] if sink else [])


async def stopped_after(count, model, run):
    """Everything up to the `count`-th finished sample."""
    enough, finished = asyncio.Event(), []

    def hear(chunk):
        if chunk.completion is not None and chunk.completion.finish_reason == "stop":
            finished.append(chunk.sample_index)
            if len(finished) == count:
                enough.set()

    (samples,) = await MeteredModel(model, "main", run).generate([REQUEST], hear, enough=enough)
    return samples


async def test_remaining_samples_are_cancelled_and_charged(store):
    model, sink = ScriptedModel(LENGTHS), MemorySink()
    run = await a_run(store, sink=sink)
    samples = await stopped_after(1, model, run)
    cut = [c for c in samples if c.finish_reason == "cancelled"]
    assert len(samples) == 12
    assert 1 <= len(cut) < 12
    assert model.running == 0
    assert all(len(c.text) == len(c.token_ids) < 13 for c in cut)  # nobody wrote on to the 27th token
    written = sum(len(c.token_ids) for c in samples)
    assert run.ledger.usage().completion_tokens == written
    assert run.ledger.used("tokens") == written  # nothing stays reserved
    (finished,) = sink.of_type("call.finished")
    assert finished.tokens == written
    assert len(sink.of_type("sample.finished")) == 12
    assert run.partial_completions == []  # it was no cancelled run


async def test_early_stop_replays_but_is_not_reused_by_other_runs(store):
    model = ScriptedModel(LENGTHS)
    samples = await stopped_after(1, model, await a_run(store))
    made = len(model.made)
    (again,) = await MeteredModel(model, "main", await a_run(store, new=False)).generate([REQUEST])
    assert again == samples
    assert len(model.made) == made
    (other,) = await MeteredModel(model, "main", await a_run(store, "other", reuse="store")).generate([REQUEST])
    assert {c.finish_reason for c in other} == {"stop"}
    whole = {c.sample_index for c in samples if c.finish_reason == "stop"}
    assert sorted(index for _, index in model.made[made:]) == sorted(set(range(12)) - whole)


async def test_immediate_stop_generates_nothing(store):
    model, run, enough = ScriptedModel(LENGTHS), await a_run(store), asyncio.Event()
    enough.set()
    (samples,) = await MeteredModel(model, "main", run).generate([REQUEST], enough=enough)
    assert {(c.text, c.finish_reason) for c in samples} == {("", "cancelled")}
    assert run.ledger.usage().completion_tokens == 0
    assert run.ledger.usage().prompt_tokens == model.count_tokens(REQUEST.prompt)  # it was asked
    assert model.running == 0


async def test_backend_failure_is_raised(store):
    def fail():
        raise BackendUnavailable("the engine is gone")

    model = ScriptedModel(LENGTHS, step=fail)
    with pytest.raises(BackendUnavailable, match="the engine is gone"):
        await MeteredModel(model, "main", await a_run(store)).generate([REQUEST], enough=asyncio.Event())
    assert model.running == 0


async def test_cancellation_is_not_an_early_stop(store):
    hold = asyncio.Event()
    model = ScriptedModel(LENGTHS, step=lambda: asyncio.ensure_future(hold.wait()))
    run = await a_run(store)
    task = asyncio.create_task(MeteredModel(model, "main", run).generate([REQUEST], enough=asyncio.Event()))
    while not model.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.running == 0
    assert len(await store.list_calls("r")) == 0
