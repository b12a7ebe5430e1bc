"""Intents and results of tool calls: transitions, kills, other owners."""

from __future__ import annotations

import itertools

import pytest
from reason.agents.loop.records import Decision, StoredToolCall, ToolCallStore, UnknownOutcome, intent_ids, next_history
from reason.agents.loop.tool import ToolResult
from reason.core.errors import RunConflict, StoreError
from reason.core.messages import Message, ToolCall
from reason.core.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    yield store
    await store.aclose()


def call(name="a", effect="write", **fields):
    return StoredToolCall(
        **{"id": name, "turn": 0, "position": 0, "tool": "t", "effect": effect, "arguments": "{}", **fields}
    )


APPROVED = {"status": "approved"}


async def test_a_write_is_started_once(store):
    calls = ToolCallStore(store)
    assert await calls.start("r", call(**APPROVED)) == 1
    with pytest.raises(UnknownOutcome):
        await calls.start("r", call(**APPROVED))
    (row,) = await calls.list("r")
    assert (row.status, row.attempts) == ("started", 1)


@pytest.mark.parametrize("effect", ["read", "idempotent"])
async def test_what_may_be_repeated_is_started_again_until_it_has_a_result(store, effect):
    calls = ToolCallStore(store)
    assert [await calls.start("r", call(effect=effect, **APPROVED)) for _ in range(3)] == [1, 2, 3]
    await calls.finish("r", "a", ToolResult(text="x"))
    with pytest.raises(StoreError, match="has ended"):
        await calls.start("r", call(effect=effect, **APPROVED))
    (row,) = await calls.list("r")
    assert (row.status, row.result) == ("done", ToolResult(text="x"))


async def test_only_an_approved_call_is_started(store):
    calls = ToolCallStore(store)
    await calls.add("r", [call()])
    with pytest.raises(StoreError, match="not approved"):
        await calls.start("r", call())
    assert await calls.decide("r", {"a": Decision(kind="edit", arguments='{"x": 1}', by="terminal")})
    assert not await calls.decide("r", {"a": Decision(kind="reject")})
    (row,) = await calls.list("r")
    assert row.used_arguments == '{"x": 1}'
    assert await calls.start("r", row) == 1


async def test_a_rejection_has_a_result_for_the_model(store):
    calls = ToolCallStore(store)
    await calls.add("r", [call()])
    decisions = {"a": Decision(kind="reject", reason="not today")}
    with pytest.raises(RunConflict, match="is running"):  # its process may execute the call
        await calls.decide("r", decisions, owned=False)
    await store.release_run("r", "waiting")
    assert await calls.decide("r", decisions, owned=False)
    (row,) = await calls.list("r")
    assert row.result == ToolResult(text="Error: the call was rejected: not today", is_error=True)


@pytest.mark.parametrize(("kind", "is_error"), [("done", False), ("failed", True)])
async def test_an_unknown_outcome_is_assumed_once(store, kind, is_error):
    calls = ToolCallStore(store)
    await calls.start("r", call(**APPROVED))
    assert await calls.decide("r", {"a": Decision(kind=kind, by="assume")})
    (row,) = await calls.list("r")
    assert (row.status, row.result.is_error) == ("assumed", is_error)
    assert not await calls.decide("r", {"a": Decision(kind="done")})
    with pytest.raises(StoreError):
        await calls.start("r", call(**APPROVED))


async def test_a_call_that_never_took_effect_may_be_started_again(store):
    calls = ToolCallStore(store)
    await calls.start("r", call(**APPROVED))
    await calls.release("r", "a")
    assert await calls.start("r", call(**APPROVED)) == 2


async def test_a_process_without_the_run_starts_and_stores_nothing(store):
    calls = ToolCallStore(store)
    await calls.start("r", call(effect="read", **APPROVED))
    await store.release_run("r", "interrupted")
    for work in (
        lambda: calls.start("r", call("b", **APPROVED)),
        lambda: calls.finish("r", "a", ToolResult(text="late")),
    ):
        with pytest.raises(StoreError, match="no owner"):
            await work()
    assert [row.status for row in await calls.list("r")] == ["started"]


async def test_every_order_of_transitions_ends_with_one_start_of_a_write(store):
    calls = ToolCallStore(store)
    steps = {
        "propose": lambda n: calls.add("r", [call(n)]),
        "approve": lambda n: calls.decide("r", {n: Decision(kind="approve")}),
        "start": lambda n: calls.start("r", call(n, **APPROVED)),
        "finish": lambda n: calls.finish("r", n, ToolResult(text="x")),
        "assume": lambda n: calls.decide("r", {n: Decision(kind="done")}),
    }
    for number, order in enumerate(itertools.permutations([*steps, "start"], 6)):
        started = 0
        for step in order:
            try:
                await steps[step](str(number))
                started += step == "start"
            except StoreError:
                pass
        (row,) = [r for r in await calls.list("r") if r.id == str(number)]
        assert started <= 1
        assert row.attempts == started


def test_intents_depend_on_history_calls_and_position_and_not_on_ids_or_spelling():
    a, b = (
        ToolCall(name="t", arguments='{"x":1,"y":2}', id="c1"),
        ToolCall(name="t", arguments='{"y": 2, "x": 1}', id="c2"),
    )
    other = ToolCall(name="t", arguments='{"x":1.5,"y":2}')
    assert intent_ids("h", [a, a]) == intent_ids("h", [b, b])
    assert len({*intent_ids("h", [a, a]), *intent_ids("h", [a]), *intent_ids("g", [a]), *intent_ids("h", [other])}) == 5
    said = Message(role="assistant", content="hm", tool_calls=(a,))
    result = Message(role="tool", content="1", tool_call_id="c1", name="t")
    assert next_history("h", [said, result]) == next_history(next_history("h", [said]), [result])
    assert next_history("h", [said, result]) != next_history("h", [said, result.model_copy(update={"content": "2"})])
