"""Files of the first version: they are brought up to date, whole or not at all, and nothing in them is lost."""

import asyncio
import json
import sqlite3

import pytest
from reason.core.errors import StoreError
from reason.core.store import sqlite as sqlite_schema
from reason.core.store.sqlite import SqliteStore
from support.store_process import StoreProcess


def first_version(path, runs=3):
    """A file as the first version of `reason` made one, with LangGraph's own checkpoints in it."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA foreign_keys=ON")
        for statement in (*sqlite_schema._FIRST.split(";\n"), "INSERT INTO meta VALUES ('schema', '1')"):
            db.execute(statement)
        db.execute(
            "CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', "
            "checkpoint_id TEXT NOT NULL, parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB, "
            "PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id))"
        )
        db.execute(
            "CREATE TABLE writes (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', "
            "checkpoint_id TEXT NOT NULL, task_id TEXT NOT NULL, idx INTEGER NOT NULL, channel TEXT NOT NULL, "
            "type TEXT, value BLOB, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx))"
        )
        for i in range(runs):
            db.execute(
                "INSERT INTO runs (id, created, updated, status, config, answer) VALUES (?, ?, ?, ?, ?, ?)",
                (f"r{i}", 1.0 + i, 2.0, "finished", json.dumps({"strategy": "cot", "i": i}), '{"answer": "42"}'),
            )
            db.execute(
                "INSERT INTO calls VALUES (?, 'k', 'main', 'm', '{}', ?, 0, 1.0)",
                (f"r{i}", json.dumps({"text": "x", "usage": {"completion_tokens": 9}})),
            )
            event = {"type": "stage.started", "number": 1, "stage": "solve"}
            db.execute("INSERT INTO events VALUES (?, 1, ?)", (f"r{i}", json.dumps(event)))
            db.execute("INSERT INTO checkpoints VALUES (?, '', 'c', NULL, 'json', ?, '{}')", (f"r{i}", b'{"v": 4}'))
            db.execute("INSERT INTO writes VALUES (?, '', 'c', 't', 0, 'state', 'json', ?)", (f"r{i}", b"1"))
    db.close()


def schema(path):
    db = sqlite3.connect(path)
    try:
        return db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0]
    finally:
        db.close()


async def test_a_file_of_the_first_version_keeps_all_that_it_holds(tmp_path):
    path = tmp_path / "runs.sqlite3"
    first_version(path)
    store = await SqliteStore.open(path)
    assert [r.id for r in await store.list_runs()] == ["r2", "r1", "r0"]
    run = await store.get_run("r1")
    assert (run.config["i"], run.answer, run.tenant, run.background) == (1, {"answer": "42"}, "", False)
    assert [c.response["text"] for c in await store.list_calls("r1")] == ["x"]
    assert [e.stage for e in await store.list_events("r1")] == ["solve"]
    checkpoint = await store.get_checkpoint("r1")
    assert (checkpoint.state, checkpoint.metadata) == (b'{"v": 4}', b"{}")
    await store.claim_run("r1")
    await store.end_run("r1", "finished", {"usage": {"completion_tokens": 12, "replayed_tokens": 9}})
    assert (await store.get_spending("", 0)).tokens == 3  # what the first version paid was never counted
    await store.delete_run("r1")
    await store.aclose()
    assert schema(path) == "2"
    db = sqlite3.connect(path)
    assert db.execute("SELECT COUNT(*) FROM writes").fetchone() == (0,)
    db.close()


async def test_a_new_file_and_an_upgraded_one_have_the_same_tables(tmp_path):
    old, new = tmp_path / "old.sqlite3", tmp_path / "new.sqlite3"
    first_version(old)
    shapes = []
    for path in (old, new):
        await (await SqliteStore.open(path)).aclose()
        db = sqlite3.connect(path)
        names = [
            row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'writes'")
        ]
        shapes.append({name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in names})
        indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name <> 'writes'")
        shapes[-1]["indexes"] = sorted(indexes, key=str)
        db.close()
    assert shapes[0] == shapes[1]


async def test_several_processes_bring_a_file_up_to_date_once(tmp_path):
    path = tmp_path / "runs.sqlite3"
    first_version(path)
    async with StoreProcess(str(path)) as one, StoreProcess(str(path)) as two:
        stores = await asyncio.gather(*(SqliteStore.open(path) for _ in range(4)))
        assert await one.ask("create", "new1", {"tenant": "t"}) == "done"
        assert await two.ask("create", "new2", {"tenant": "t"}) == "done"
        assert len(await stores[3].list_runs(tenant="t")) == 2
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("statement", [0, 5, 12, -1])
async def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch, statement):
    path = tmp_path / "runs.sqlite3"
    first_version(path)
    statements = sqlite_schema._SECOND.split(";\n")
    statements.insert(statement if statement >= 0 else len(statements), "INSERT INTO runs (id) VALUES ('no more')")
    with monkeypatch.context() as broken:
        broken.setattr(sqlite_schema, "_STEPS", (sqlite_schema._FIRST, ";\n".join(statements)))
        with pytest.raises(StoreError):
            await SqliteStore.open(path)
    assert schema(path) == "1"
    store = await SqliteStore.open(path)
    assert len(await store.list_runs()) == 3
    await store.aclose()


async def test_a_process_of_the_first_version_refuses_the_file_and_one_that_has_it_open_goes_on(tmp_path):
    path = tmp_path / "runs.sqlite3"
    first_version(path)
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("SELECT COUNT(*) FROM runs").fetchall()
    store = await SqliteStore.open(path)
    # what the first version executes
    old.execute(
        "INSERT INTO runs (id, created, updated, status, config, owner) VALUES ('late', 9, 9, 'running', '{}', NULL)"
    )
    old.execute(
        "INSERT OR IGNORE INTO calls (run_id, key, role, model, request, reply, cut, created) "
        "VALUES ('late', 'k', 'main', 'm', '{}', '{}', 0, 9)"
    )
    old.execute("INSERT OR REPLACE INTO events (run_id, number, event) VALUES ('late', 1, '{}')")
    old.execute("UPDATE runs SET status = 'finished', answer = '{}', owner = NULL WHERE id = 'late'")
    version = int(old.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0])
    assert version > 1  # the first version opens none above its own
    assert (await store.get_run("late")).status == "finished"
    old.close()
    await store.aclose()
