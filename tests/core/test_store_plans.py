"""What an operation reads does not grow with the number of runs: no statement reads a whole table or sorts it."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import reason.core.store.postgres as postgres
import reason.core.store.sqlite as sqlite
from langgraph.checkpoint.base import empty_checkpoint
from reason.core.budget import Budget
from reason.core.messages import Completion, Usage
from reason.core.store.records import NewCall, RunWrites
from reason.integrations.checkpoints import RunStoreSaver
from reason.sidecar.coordination import RunCoordinator
from reason.sidecar.key_store import KeyLimits, KeyStore
from reason.sidecar.run_list import find_runs

NOW = 1e9
THREAD: Any = {"configurable": {"thread_id": "r2", "checkpoint_id": "1"}}
OPERATIONS = {
    "list": lambda s: s.list_runs(),
    "list, oldest first": lambda s: find_runs(s, ascending=True),
    "next page": lambda s: find_runs(s, after="r1"),
    "list of a tenant": lambda s: find_runs(s, tenant="t"),
    "next page of a tenant": lambda s: find_runs(s, tenant="t", after="r1"),
    "read": lambda s: s.get_run("r1", tenant="t", exact=True),
    "read by prefix": lambda s: s.get_run("r1"),
    "read by request": lambda s: RunCoordinator(s).find_request("t", "key"),
    "claim": lambda s: s.claim_run("r2"),
    "claimable": lambda s: RunCoordinator(s).list_claimable(8),
    "prune": lambda s: s.prune_runs(before=0.0),
    "requested stops": lambda s: RunCoordinator(s).requested(["r1", "r2"]),
    "calls": lambda s: s.list_calls("r1"),
    "calls by key": lambda s: s.find_calls("r1", ["a", "b"]),
    "calls of all runs by key": lambda s: s.find_calls("r1", ["a", "b"], any_run=True),
    "copied calls": lambda s: s.copied_call_keys("r1"),
    "events": lambda s: s.list_events("r1", after=3),
    "checkpoint": lambda s: RunStoreSaver(s).aget_tuple(THREAD),
    "spending": lambda s: KeyStore(s).get_spending("t", NOW),
    "reservation": lambda s: KeyStore(s).reserve_spending("n", "t", Budget(tokens=5), KeyLimits(), NOW),
    "add a call": lambda s: s.save("r2", RunWrites(calls=[call("c")])),
    "add a checkpoint": lambda s: RunStoreSaver(s).aput(THREAD, empty_checkpoint(), {}, {}),
    "add a task's writes": lambda s: RunStoreSaver(s).aput_writes(THREAD, [("x", 1)], "task"),
    "end": lambda s: s.end_run("r2", "finished"),
    "delete": lambda s: s.delete_run("r1", only_ended=True),
}  # fmt: skip


def call(key: str) -> NewCall:
    response = Completion(text="x", finish_reason="stop", usage=Usage(completion_tokens=1))
    return NewCall(key=key, role="main", model="m", request={"request": "x" * 2000}, response=response)


@pytest.fixture
async def plans(any_store: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Statement and plan of everything that the store executes; planners are to use an index wherever they can."""
    await KeyStore.open(any_store)
    await any_store.create_run("r1", {}, tenant="t", idempotency="key")
    await any_store.save("r1", RunWrites(calls=[call("a"), call("b")]))
    await any_store.end_run("r1", "finished")
    await any_store.create_run("r2", {}, tenant="t")
    await any_store.find_calls("r1", ["a"], any_run=True)  # a file gets an index with the first such query
    recorded: list[tuple[str, str]] = []
    explained = re.compile("SELECT|INSERT|UPDATE|DELETE")

    def sqlite_plan(db: Any, sql: str, values: Any) -> str:
        return "\n".join(row[3] for row in db._db.execute(f"EXPLAIN QUERY PLAN {sql}", values))

    def postgres_plan(db: Any, sql: str, values: Any) -> str:
        for planner in ("seqscan", "sort", "incremental_sort", "bitmapscan", "hashagg"):
            db.db.execute(f"SET enable_{planner} = off".encode())
        statement = f"EXPLAIN {sql}".replace("?", "%s").encode()
        return "\n".join(row[0] for row in db.db.execute(statement, values or None))

    for kind, plan_of in ((sqlite._SqliteConnection, sqlite_plan), (postgres._PostgresConnection, postgres_plan)):

        def execute(db: Any, sql: str, values: Any = (), *, run: Any = kind.execute, plan_of: Any = plan_of) -> Any:
            if explained.match(sql):
                recorded.append((sql, plan_of(db, sql, values)))
            return run(db, sql, values)

        def write(db: Any, sql: str, *rows: Any, run: Any = kind.write, plan_of: Any = plan_of) -> None:
            if explained.match(sql) and rows:
                recorded.append((sql, plan_of(db, sql, rows[0])))
            run(db, sql, *rows)

        monkeypatch.setattr(kind, "execute", execute)
        monkeypatch.setattr(kind, "write", write)
    return recorded


async def test_operations_read_by_an_index(any_store, plans):
    for name, operation in OPERATIONS.items():
        plans.clear()
        await operation(any_store)
        assert plans, name
        for sql, plan in plans:
            # a scan of an index in its order ends with the LIMIT
            assert not re.search(r"SCAN \w+$|TEMP B-TREE|Seq Scan|Sort", plan, re.MULTILINE), f"{name}: {sql}\n{plan}"


async def test_pruning_looks_at_no_run_that_it_must_keep(any_store, monkeypatch):
    for i in range(3):
        await any_store.create_run(f"waiting{i}", {}, background=True, status="queued")
        await any_store.create_run(f"running{i}", {})
    for i in range(2):
        await any_store.create_run(f"ended{i}", {})
        await any_store.end_run(f"ended{i}", "finished")
    looked_at = []
    has_ended = any_store._has_ended
    monkeypatch.setattr(any_store, "_has_ended", lambda db, run: looked_at.append(run) or has_ended(db, run))
    assert await any_store.prune_runs(before=time.time() + 60) == 2
    assert looked_at == ["ended0", "ended1"]


async def test_pruning_goes_past_runs_that_it_must_keep(any_store, monkeypatch):
    monkeypatch.setattr("reason.core.store.sql.PRUNE_PAGE", 2)
    for i in range(5):
        await any_store.create_run(f"r{i}", {})
        await any_store.end_run(f"r{i}", "finished")
    has_ended = any_store._has_ended
    # as if the owners of the others were processes on another host
    monkeypatch.setattr(any_store, "_has_ended", lambda db, run: run == "r4" and has_ended(db, run))
    assert await any_store.prune_runs(before=time.time() + 60) == 1
    assert await any_store.prune_runs(before=time.time() + 60) == 0
