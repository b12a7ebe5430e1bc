"""Keys of calls, and what is the SQLite file's alone."""

import hashlib
import json
import os
import sqlite3

import pytest
import reason.core.store.sqlite as sqlite_store
from reason.core.errors import StoreError
from reason.core.store.records import RunWrites, StoredCall, call_keys
from reason.core.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite3"


def test_keys_of_samples_are_the_hash_of_model_request_seed_and_index():
    request = {"b": ["né", 1.5, None], "a": "\ud83d"}
    for index, key in zip((0, 7, 4095), call_keys("m@1", request, 3, (0, 7, 4095)), strict=True):
        text = json.dumps(["m@1", request, 3, index], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert key == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def locked(path):
    """A connection that is writing a file, which is not in WAL mode yet: a change of mode is refused at once."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_opening_waits_for_another_writer(path, monkeypatch):
    other, pauses = locked(path), []

    def end_writing(seconds):
        if not pauses:
            other.execute("COMMIT")
        pauses.append(seconds)

    monkeypatch.setattr(sqlite_store.time, "sleep", end_writing)
    await (await SqliteStore.open(path)).aclose()
    assert pauses
    other.close()


async def test_a_locked_file_is_an_error_after_a_while(path):
    other = locked(path)
    with pytest.raises(StoreError, match="locked by another process"):
        await SqliteStore.open(path, busy_timeout_s=0.05)
    other.close()


async def test_a_file_that_is_no_store_is_named(path):
    path.write_bytes(b"this is no database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="corrupt or no run store"):
        await SqliteStore.open(path)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_damaged_store_is_named(path):
    store = await SqliteStore.open(path)
    await store.create_run("r", {})
    calls = [
        StoredCall(key=f"k{i}", role="main", model="m", request={}, response={"text": "x" * 4000}) for i in range(50)
    ]
    await store.save("r", RunWrites(calls=calls))
    await store.aclose()
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="corrupt"):
        store = await SqliteStore.open(path)
        await store.get_run("r")


@pytest.mark.parametrize(("schema", "age"), [("99", "a newer"), ("1", "an older")])
async def test_a_store_of_another_version_is_refused(path, schema, age):
    await (await SqliteStore.open(path)).aclose()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = ?", (schema,))
    with pytest.raises(StoreError, match=f"written by {age} version"):
        await SqliteStore.open(path)


async def test_a_directory_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the directory"):
        await SqliteStore.open(tmp_path / "file" / "runs.sqlite3")
