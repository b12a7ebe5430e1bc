"""What every run store keeps to, whatever it is made of."""

import asyncio
import signal
import sys

import pytest
from reason.core.errors import DuplicateRequest, RunConflict, StoreError, UnknownName, UserError
from reason.core.events import StageStarted
from reason.core.store.records import NewCall, NewRun, RunEnd, RunWrites, StoredCall


def reply(key, tokens=0, usd=0.0, truncated=False, text="x"):
    said = {"text": text, "usage": {"completion_tokens": tokens, "cost_usd": usd}}
    return StoredCall(key=key, role="main", model="m", request={"q": key}, response=said, truncated=truncated)


def stage(number):
    return StageStarted(number=number, stage="solve")


async def spent(store, tenant="t"):
    """Tokens, dollars and runs that a tenant was charged for."""
    sql = "SELECT SUM(tokens), SUM(usd), SUM(runs) FROM spending WHERE tenant = ?"
    ((tokens, usd, runs),) = await store.commits.read(lambda db: db.execute(sql, (tenant,)))
    return (int(tokens), pytest.approx(float(usd)), int(runs)) if runs is not None else None


async def numbers(store, **page):
    """Numbers of a run's events."""
    return [event.number for event in await store.list_events("r", **page)]


@pytest.fixture
async def store(any_store):
    """An open store of either kind with a run `r`."""
    await any_store.create_run("r", {}, tenant="t")
    return any_store


async def test_a_run_is_read_as_it_was_written(any_store):
    odd = {"text": "né\0 \ud83d \U0001f600", "deep": [{"x": None}, 1.5, True]}
    await any_store.create_run("r1", odd, tenant="t", background=True, idempotency="key", digest="d")
    await any_store.save("r1", RunWrites(identities={"main": {"identity": "m@1"}}))
    run = await any_store.get_run("r1")
    assert (run.config, run.identities, run.tenant, run.background) == (odd, {"main": {"identity": "m@1"}}, "t", True)
    assert (run.status, run.idempotency, run.cancel_requested) == ("running", "key", False)
    await any_store.end_run("r1", "failed", {"text": "\0"}, {"code": "x"}, events=[stage(3)])
    run = await any_store.get_run("r1")
    assert (run.status, run.answer, run.error, run.owner) == ("failed", {"text": "\0"}, {"code": "x"}, None)
    assert [e.number for e in await any_store.list_events("r1")] == [3]
    await any_store.aclose()
    await any_store.aclose()
    for operation in (lambda: any_store.create_run("r", {}), any_store.list_runs):
        with pytest.raises(StoreError, match="is closed"):
            await operation()


async def test_runs_are_looked_up_by_name_or_unique_prefix(any_store):
    for name in ("2026-a", "2026-ab", "2027-a", "x%y", "x_y", "2026-a\U0001f600"):
        await any_store.create_run(name, {})
    assert (await any_store.get_run("2026-a")).id == "2026-a"
    assert (await any_store.get_run("2027")).id == "2027-a"
    assert (await any_store.get_run("x%")).id == "x%y"
    with pytest.raises(UserError, match="several runs"):
        await any_store.get_run("2026")
    for wrong, exact in (("2028", False), ("", False), ("%", False), ("\0", False), ("a\0", True), ("2027", True)):
        with pytest.raises(UnknownName):
            await any_store.get_run(wrong, exact=exact)


async def test_a_run_is_read_by_its_tenant_only(any_store):
    for name, tenant in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("n1", "")):
        await any_store.create_run(name, {}, tenant=tenant)
    assert [r.id for r in await any_store.list_runs(3)] == ["n1", "a2", "b1"]
    assert (await any_store.get_run("b1", tenant="b")).id == "b1"
    for exact in (True, False):
        with pytest.raises(UnknownName):
            await any_store.get_run("b1", tenant="a", exact=exact)


async def test_calls_are_stored_once_and_shared_only_within_a_tenant(any_store):
    for name, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await any_store.create_run(name, {}, tenant=tenant)
    await any_store.save("a1", RunWrites(calls=[reply("k"), reply("cut", truncated=True)]))
    await any_store.save("a1", RunWrites(calls=[reply("k", text="second")]))
    assert await any_store.find_calls("a2", ["k", "cut"]) == {}
    assert set(await any_store.find_calls("a2", ["k", "cut"], any_run=True)) == {"k"}
    assert await any_store.find_calls("b1", ["k", "cut"], any_run=True) == {}
    await any_store.save("a2", RunWrites(calls=[reply("k", text="own")]))
    for name, text in (("a1", "x"), ("a2", "own")):
        assert (await any_store.find_calls(name, ["k"], any_run=True))["k"].response["text"] == text


async def test_many_requests_with_one_idempotency_key_make_one_run(stores):
    two = [await stores.open(), await stores.open()]

    async def request(i):
        try:
            await two[i % 2].create_run(f"r{i}", {}, tenant="t", idempotency="key", digest="same")
        except DuplicateRequest as e:
            return e.run_id, e.same_digest
        return f"r{i}", True

    made = await asyncio.gather(*(request(i) for i in range(50)))
    (run,) = await two[0].list_runs()
    assert set(made) == {(run.id, True)}
    with pytest.raises(DuplicateRequest) as e:
        await two[0].create_run("other", {}, tenant="t", idempotency="key", digest="another")
    assert (e.value.run_id, e.value.same_digest, e.value.http_status) == (run.id, False, 409)
    await two[1].create_run("theirs", {}, tenant="u", idempotency="key", digest="same")  # each tenant has its own
    await two[1].create_run("none", {}, tenant="t")


async def test_payments_are_charged_once_however_often_a_run_is_resumed(store):
    async def end(status, completion, replayed, usd=0.0):
        usage = {"completion_tokens": completion, "replayed_tokens": replayed, "cost_usd": usd}
        await store.end_run("r", status, {"usage": usage})
        return await spent(store)

    await store.save("r", RunWrites(calls=[reply("a", 10, 0.5)]))
    # two tokens were being generated when it was stopped
    assert await end("interrupted", 12, 0, usd=0.6) == (12, 0.6, 1)
    await store.claim_run("r")
    await store.save("r", RunWrites(calls=[reply("a", 10, 0.5), reply("b", 20, 1.0)]))
    assert await end("finished", 30, 10, usd=1.5) == (32, 1.5, 1)
    with pytest.raises(StoreError, match="has no owner"):
        await end("finished", 99, 0)
    assert (await spent(store), await spent(store, "u")) == ((32, 1.5, 1), None)


async def test_payments_of_a_killed_process_are_charged_when_the_run_ends(stores):
    store, other = await stores.open(), await stores.open_other()
    await other.create_run("r", {}, tenant="t")
    await other.save("r", RunWrites(calls=[reply(key, 1) for key in "abc"]))
    await stores.kill(other)
    await store.claim_run("r")
    await store.save("r", RunWrites(copies=[reply("copy", 1000)]))
    await store.end_run("r", "finished", {"usage": {"completion_tokens": 1003, "replayed_tokens": 1003}})
    assert await spent(store) == (3, 0.0, 1)


async def test_a_run_belongs_to_one_process_as_long_as_it_lives(stores):
    store, other = await stores.open(), await stores.open_other()
    await other.create_run("r", {})
    with pytest.raises(RunConflict, match="run r is in use by process"):
        await store.claim_run("r")
    assert (await store.get_run("r")).status == "running"
    await stores.kill(other)
    assert (await store.get_run("r")).status == "interrupted"
    await store.claim_run("r")
    with pytest.raises(StoreError, match="was claimed by process"):
        await other.save("r", RunWrites(calls=[reply("late")]))
    await store.release_run("r")
    with pytest.raises(StoreError, match="has no owner"):
        await store.save("r", RunWrites(calls=[reply("late")]))
    with pytest.raises(UserError, match="is queued"):
        await store.claim_run("r", allowed=("finished",))
    with pytest.raises(UnknownName):
        await store.claim_run("none")


async def test_several_processes_write_concurrently(stores):
    two = {"r0": await stores.open(), "r1": await stores.open_other()}

    async def write(run_id, store):
        await store.create_run(run_id, {})
        for number in range(30):
            await store.save(run_id, RunWrites(calls=[reply(f"{run_id}-{number}")]))

    await asyncio.gather(*(write(*one) for one in two.items()))
    assert [len(await two["r0"].list_calls(run_id)) for run_id in two] == [30, 30]


async def test_events_are_read_in_pages_and_stored_once(store):
    await store.save("r", RunWrites(events=[stage(n) for n in (3, 1, 2, 5)]))
    for again in ((1, 2), (3,)):  # the first write was believed to have failed
        await store.save("r", RunWrites(events=[stage(n) for n in again]))
    assert await numbers(store) == [1, 2, 3, 5]
    assert await numbers(store, after=2) == [3, 5]
    assert await numbers(store, after=1, limit=2) == [2, 3]
    await store.save("r", RunWrites(events=[stage(n) for n in range(5, 200)]))
    assert await numbers(store, after=60, limit=100) == list(range(61, 161))
    assert await numbers(store, after=3) == [5, *range(6, 200)]


async def test_a_run_is_written_in_one_transaction(any_store):
    before = any_store.commits.transactions
    answer = {"answer": "42", "usage": {"completion_tokens": 7, "cost_usd": 0.5}}
    request = {"request": {"prompt": "p"}, "seed": 1}
    writes = RunWrites(
        creation=NewRun({"strategy": "cot"}, tenant="t"),
        identities={"main": {"identity": "m@1"}},
        calls=[NewCall("k", "main", "m", request, {"usage": {"completion_tokens": 9}})],
        events=[stage(1), stage(2)],
        end=RunEnd("finished", answer),
    )
    await any_store.save("r", writes)
    assert any_store.commits.transactions == before + 1
    run = await any_store.get_run("r", exact=True)
    assert (run.status, run.owner, run.tenant, run.strategy) == ("finished", None, "t", "cot")
    assert (run.answer, run.answer_text, run.tokens, run.identities) == (answer, "42", 7, writes.identities)
    assert [call.request for call in await any_store.list_calls("r")] == [request]
    assert await numbers(any_store) == [1, 2]
    assert await spent(any_store) == (9, 0.5, 1)  # what was paid: the larger of answer and calls
    await any_store.claim_run("r")
    await any_store.end_run("r", "finished", {"usage": {"completion_tokens": 7, "replayed_tokens": 7}})
    assert await spent(any_store) == (9, 0.5, 1)


async def test_nothing_is_written_of_a_run_whose_name_is_taken(store):
    writes = RunWrites(creation=NewRun({}, tenant="t"), calls=[reply("k", 5)], end=RunEnd("finished"))
    with pytest.raises(UserError, match="there is a run r already"):
        await store.save("r", writes)
    assert (await store.get_run("r")).status == "running"
    assert (await store.list_calls("r"), await spent(store)) == ([], None)


async def test_samples_of_a_long_prompt_store_it_once(store):
    requests = [{"request": {"prompt": "q" * 200_000}, "seed": 1, "index": i} for i in range(100)]
    calls = [NewCall(f"{i:03}", "main", "m", request, {"text": "a"}) for i, request in enumerate(requests)]
    for half in (calls[:50], calls[50:]):
        await store.save("r", RunWrites(calls=half))
    assert [c.request for c in await store.list_calls("r")] == requests
    assert (await store.find_calls("r", ["007"]))["007"].request == requests[7]
    sizes = await store.commits.read(lambda db: db.execute("SELECT SUM(LENGTH(request)) FROM calls"))
    assert sizes[0][0] < 100 * 50
    assert await store.commits.read(lambda db: db.execute("SELECT COUNT(*) FROM requests")) == [(1,)]


async def test_many_keys_are_looked_up(store):
    keys = [f"k{i}" for i in range(1500)]
    await store.save("r", RunWrites(calls=[reply(k) for k in keys]))
    assert set(await store.find_calls("r", keys)) == set(keys)


async def test_copied_calls_are_told_from_paid_ones(any_store):
    for run_id, keys, copied in (("one", "ba", set()), ("two", "bc", {"b"})):
        await any_store.create_run(run_id, {})
        await any_store.save(run_id, RunWrites(calls=[reply(key) for key in keys]))
        assert [c.key for c in await any_store.list_calls(run_id)] == sorted(keys)
        assert await any_store.copied_call_keys(run_id) == copied
    assert await any_store.copied_call_keys("one") == frozenset()


async def test_everything_is_deleted_with_its_run(store):
    call = NewCall("k", "main", "m", {"request": "q" * 2000}, {})
    await store.save("r", RunWrites(calls=[call], events=[stage(1)]))
    tables = {
        "loop_states": "run_id, state",
        "checkpoints": "thread_id, checkpoint_id, type, checkpoint, metadata",
        "checkpoint_writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value",
        "tool_calls": "run_id, id, turn, position, tool, effect, executor, arguments, status, created",
    }
    values = {"idx": 0, "checkpoint": b"", "metadata": b"", "value": b"", "turn": 0, "position": 0, "created": 0.0}

    def fill(db):
        for table, columns in tables.items():
            row = [values.get(column, "r") for column in columns.split(", ")]
            db.write(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)

    await store.commits.write(fill)
    await store.delete_run("r")
    for table in (*tables, "calls", "events", "requests"):
        assert await store.commits.read(lambda db, table=table: db.execute(f"SELECT COUNT(*) FROM {table}")) == [(0,)]


async def test_only_runs_that_have_ended_are_deleted_on_request(stores):
    store, other = await stores.open(), await stores.open_other()
    await store.create_run("running", {})
    await store.create_run("waiting", {}, background=True, status="queued")
    await other.create_run("killed", {})
    for name in ("running", "waiting", "killed"):
        with pytest.raises(RunConflict, match="has not ended"):
            await store.delete_run(name, only_ended=True)
    await store.end_run("running", "finished")
    await store.delete_run("running", only_ended=True)
    with pytest.raises(UnknownName):
        await store.delete_run("running", only_ended=True)
    await stores.kill(other)
    await store.delete_run("killed", only_ended=True)
    assert [run.id for run in await store.list_runs()] == ["waiting"]


async def test_old_runs_are_pruned_and_running_ones_are_not(any_store):
    await any_store.create_run("running", {})
    await any_store.create_run("waiting", {}, background=True, status="queued")
    ended = {"usage": {"completion_tokens": 10}}
    for name in ("old", "resumed", "older"):
        await any_store.create_run(name, {}, tenant="t")
        await any_store.end_run(name, "finished", ended)
    await any_store.create_run("undecided", {})
    await any_store.end_run("undecided", "waiting")
    await any_store.commits.write(lambda db: db.write("UPDATE runs SET created = 0, updated = 0", ()))
    await any_store.create_run("new", {}, tenant="t")
    await any_store.end_run("new", "finished", ended)
    await any_store.claim_run("resumed")
    await any_store.end_run("resumed", "finished", ended)
    assert await any_store.prune_runs(before=1.0) == 3
    assert {run.id for run in await any_store.list_runs()} == {"running", "waiting", "resumed", "new"}
    assert await any_store.prune_runs(before=1.0) == 0
    assert await spent(any_store) == (50, 0.0, 4)  # what a deleted run spent stays charged


_WRITE_FOR_EVER = """
import asyncio, sys
from itertools import count
from reason.core.store import open_store
from reason.core.store.records import RunWrites, StoredCall

def call(key):
    return StoredCall(key=key, role="main", model="m", request={}, response={})

async def main():
    store = await open_store(sys.argv[1])
    await store.create_run("r", {})
    for number in count(1):
        await store.save("r", RunWrites(calls=[call(f"{number}-{i}") for i in range(7)]))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_a_process_killed_while_writing_leaves_complete_writes(stores):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITE_FOR_EVER, stores.place, stdout=asyncio.subprocess.PIPE
    )
    last = [int(await process.stdout.readline()) for _ in range(3)][-1]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    store = await stores.open()
    count = len(await store.list_calls("r"))
    assert count % 7 == 0
    assert count >= 7 * last
