import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from reason.core.errors import StoreError, UnknownName, UserError
from reason.core.events import StageStarted
from reason.core.store.protocol import StoredCall, call_keys
from reason.core.store.sqlite import SqliteStore


def reply(key, text="hello", truncated=False):
    return StoredCall(key=key, role="main", model="m", request={"q": 1}, response={"text": text}, truncated=truncated)


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield store
    await store.aclose()


def test_keys_of_samples_are_the_hash_of_model_request_seed_and_index():
    request = {"b": ["né", 1.5, None], "a": "\ud83d"}
    for index, key in zip((0, 7, 4095), call_keys("m@1", request, 3, (0, 7, 4095)), strict=True):
        text = json.dumps(["m@1", request, 3, index], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert key == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def test_a_call_is_stored_once(store):
    await store.create_run("r", {})
    await store.add_calls("r", [reply("k1", "first"), reply("k2")])
    await store.add_calls("r", [reply("k1", "second")])
    found = await store.find_calls("r", ["k1", "k2", "k3"])
    assert {k: c.response["text"] for k, c in found.items()} == {"k1": "first", "k2": "hello"}
    assert await store.count_calls("r") == 2


async def test_other_runs_answer_only_with_any_run_and_never_with_truncated_calls(store):
    await store.create_run("a", {})
    await store.create_run("b", {})
    await store.add_calls("a", [reply("whole", "of a"), reply("cut", truncated=True)])
    assert await store.find_calls("b", ["whole", "cut"]) == {}
    assert set(await store.find_calls("b", ["whole", "cut"], any_run=True)) == {"whole"}
    await store.add_calls("b", [reply("whole", "of b")])
    for run in "ab":
        found = await store.find_calls(run, ["whole"], any_run=True)
        assert found["whole"].response["text"] == f"of {run}"


async def test_many_keys_are_looked_up(store):
    await store.create_run("r", {})
    keys = [f"k{i}" for i in range(1500)]
    await store.add_calls("r", [reply(k) for k in keys])
    assert set(await store.find_calls("r", keys)) == set(keys)


async def test_deleting_a_run_deletes_its_rows(store):
    await store.create_run("r", {})
    await store.add_calls("r", [reply("k")])
    await store.add_events("r", [StageStarted(number=1, stage="x")])
    await store.delete_run("r")
    assert await store.list_events("r") == []
    assert await store.find_calls("r", ["k"], any_run=True) == {}


async def test_a_run_of_a_living_process_cannot_be_claimed(store, tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(store.path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(UserError, match=f"process {other.pid}"):
            await store.claim_run("held")
        other.send_signal(signal.SIGKILL)
        other.wait()
        await store.claim_run("held")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        other.stdin.close()
    with pytest.raises(UnknownName):
        await store.claim_run("none")


_HOLD = textwrap.dedent("""
    import asyncio, sys, pathlib
    from reason.core.store.sqlite import SqliteStore
    async def main():
        store = await SqliteStore.open(pathlib.Path(sys.argv[1]))
        await store.create_run("held", {})
        print("taken", flush=True)
        sys.stdin.read()
    asyncio.run(main())
""")

_WRITE = textwrap.dedent("""
    import asyncio, sys, pathlib
    from reason.core.store.sqlite import SqliteStore
    from reason.core.store.protocol import StoredCall
    async def main():
        path, name = pathlib.Path(sys.argv[1]), sys.argv[2]
        store = await SqliteStore.open(path)
        await store.create_run(name, {})
        for i in range(int(sys.argv[3])):
            response = {"i": i, "pad": "x" * 2000}
            call = StoredCall(key=f"{name}{i}", role="main", model="m", request={}, response=response)
            await store.add_calls(name, [call])
            print(i, flush=True)
        await store.aclose()
    asyncio.run(main())
""")


async def test_opening_waits_for_another_writer(tmp_path):
    path = tmp_path / "runs.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")  # not in WAL mode yet: a change of mode is refused at once while this goes on
    opening = asyncio.create_task(SqliteStore.open(path))
    done, _ = await asyncio.wait([opening], timeout=0.3)
    assert not done
    other.execute("COMMIT")
    await (await opening).aclose()
    other.close()


async def test_a_locked_file_is_an_error_after_a_while(tmp_path):
    path = tmp_path / "runs.sqlite3"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"):
        await SqliteStore.open(path, busy_timeout_s=0.05)
    other.close()


async def test_two_processes_write_the_same_file(tmp_path):
    path = tmp_path / "runs.sqlite3"
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITE, str(path), name, "60", stdout=asyncio.subprocess.DEVNULL
        )
        for name in "ab"
    ]
    assert [await w.wait() for w in writers] == [0, 0]
    store = await SqliteStore.open(path)
    assert [await store.count_calls(name) for name in "ab"] == [60, 60]
    await store.aclose()


async def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "runs.sqlite3"
    path.write_bytes(b"this is no database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="corrupt or no run store"):
        await SqliteStore.open(path)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_damaged_store_is_named(tmp_path):
    path = tmp_path / "runs.sqlite3"
    store = await SqliteStore.open(path)
    await store.create_run("r", {})
    await store.add_calls("r", [reply(f"k{i}", "x" * 4000) for i in range(50)])
    await store.aclose()
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="corrupt"):
        store = await SqliteStore.open(path)
        await store.get_run("r")


@pytest.mark.parametrize(("schema", "age"), [("99", "a newer"), ("1", "an older")])
async def test_a_store_of_another_version_is_refused(tmp_path, schema, age):
    path = tmp_path / "runs.sqlite3"
    await (await SqliteStore.open(path)).aclose()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = ?", (schema,))
    with pytest.raises(StoreError, match=f"written by {age} version"):
        await SqliteStore.open(path)


async def test_a_directory_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the directory"):
        await SqliteStore.open(tmp_path / "file" / "runs.sqlite3")


async def test_a_failed_write_changes_nothing(store):
    await store.create_run("r", {})
    with pytest.raises(StoreError):
        await store.add_calls("no such run", [reply("k")])
    await store.add_calls("r", [reply("k")])
    assert await store.count_calls("r") == 1


async def test_copied_calls_are_told_from_paid_ones(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    reply = {"text": "x"}
    first = [StoredCall(key=k, role="main", model="m", request={}, response=reply) for k in ("b", "a")]
    try:
        for run_id in ("one", "two"):
            await store.create_run(run_id, {})
        await store.add_calls("one", first)
        own = StoredCall(key="c", role="main", model="m", request={}, response=reply)
        await store.add_calls("two", [first[0], own])
        assert [c.key for c in await store.list_calls("one")] == ["a", "b"]
        assert [c.key for c in await store.list_calls("two")] == ["b", "c"]
        assert await store.copied_call_keys("one") == frozenset()
        assert await store.copied_call_keys("two") == {"b"}
    finally:
        await store.aclose()
