"""Verdicts that are charged, stored and shown again."""

import pytest
from reason.core.errors import BudgetExceeded, StoreError
from reason.core.events import CallFinished, CallStarted
from reason.verify.entailment.run_resources import MeteredEntailment, RecordedEntailment
from reason.verify.types import Entailment, Pair, Support
from support.scripted_entailment import ScriptedEntailment

A, B, C, BAD = Pair("a", "x"), Pair("bb", "x"), Pair("ccc", "x"), Pair("bad", "x")


def by_length(pair):
    return None if pair == BAD else Support(1 / (1 + len(pair.evidence)), 0.0, 1 - 1 / (1 + len(pair.evidence)))


async def test_verdicts_are_charged_stored_and_not_computed_again(runs):
    inner = ScriptedEntailment(by_length, max_words=7)
    run = await runs.start()
    metered = MeteredEntailment(inner, run)
    assert isinstance(metered, Entailment)
    assert metered.max_words == 7
    expected = [by_length(p) for p in (A, B, A)]
    assert await metered.judge([A, B, A]) == expected
    assert run.ledger.usage().reward_calls == 2
    assert run.ledger.usage().model_calls == 0
    assert inner.calls == [[A, B]]
    assert len(await runs.store.list_calls("r")) == 2

    resumed = await runs.start()
    assert await MeteredEntailment(inner, resumed).judge([A, B, A]) == expected  # to the last bit
    assert inner.calls == [[A, B]]
    assert resumed.ledger.usage().reward_calls == 2

    assert await MeteredEntailment(inner, resumed).judge([A, C]) == [by_length(A), by_length(C)]
    assert inner.calls == [[A, B], [C]]
    started = [e for e in runs.sink.events if isinstance(e, CallStarted)]
    assert [(e.operation, e.samples, e.replayed) for e in started] == [
        ("entailment", 2, 0),
        ("entailment", 2, 2),
        ("entailment", 2, 1),
    ]
    await metered.aclose()
    assert inner.closed == 0
    assert await metered.judge([]) == []


async def test_a_budget_is_kept_before_anything_is_computed(runs):
    inner = ScriptedEntailment(by_length)
    run = await runs.start(budget={"reward_calls": 2})
    metered = MeteredEntailment(inner, run)
    with pytest.raises(BudgetExceeded, match="reward_calls"):
        await metered.judge([A, B, C])
    assert inner.calls == []
    await metered.judge([A, B, A])
    with pytest.raises(BudgetExceeded, match="reward_calls"):
        await metered.judge([C])


async def test_unread_pairs_cost_nothing_and_are_told(runs):
    run = await runs.start()
    assert await MeteredEntailment(ScriptedEntailment(by_length), run).judge([A, BAD]) == [by_length(A), None]
    assert run.ledger.usage().reward_calls == 1
    assert len(await runs.store.list_calls("r")) == 1
    assert [e.failed for e in runs.sink.events if isinstance(e, CallFinished)] == [1]


async def test_a_recorded_run_is_shown_again_without_a_model(runs):
    inner = ScriptedEntailment(by_length)
    await MeteredEntailment(inner, await runs.start()).judge([A, BAD])
    absent = RecordedEntailment(inner.name, inner.identity, finished=True)
    assert isinstance(absent, Entailment)
    replay = await runs.start()
    assert await MeteredEntailment(absent, replay).judge([A, BAD]) == [by_length(A), None]
    unfinished = RecordedEntailment(inner.name, inner.identity, finished=False)
    with pytest.raises(StoreError, match="resume"):
        await MeteredEntailment(unfinished, replay).judge([C])
    limited = RecordedEntailment(inner.name, inner.identity, limit="seconds", finished=True)
    with pytest.raises(BudgetExceeded):
        await MeteredEntailment(limited, replay).judge([C])
    assert await MeteredEntailment(limited, replay).judge([A, C]) == [by_length(A), None]  # what it had stands
    await absent.aclose()
