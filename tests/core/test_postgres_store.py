"""Leases, fences and lost servers: what is Postgres's alone."""

import asyncio

import psycopg
import pytest
from reason.core.errors import StoreError, UserError
from reason.core.events import StageStarted
from reason.core.store import open_store
from reason.core.store.postgres import Lease, PostgresStore
from reason.core.store.records import RunWrites, StoredCall
from support.postgres_server import PostgresServer
from support.waiting import wait_until


def reply(key):
    return StoredCall(key=key, role="main", model="m", request={}, response={"text": key})


@pytest.fixture
def place(postgres):
    return postgres.new_database()


@pytest.fixture
async def open_at(place):
    """Opens stores, by default on a new database; they are closed in the end."""
    opened = []

    async def open_one(at=place, **options):
        opened.append(await PostgresStore.open(at, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.aclose()


@pytest.fixture
async def two(open_at):
    return await open_at(), await open_at()


async def query(place, sql, *values):
    """Rows of a statement, as another program executes it."""
    async with await psycopg.AsyncConnection.connect(place, autocommit=True) as db:
        cursor = await db.execute(sql, values)
        return await cursor.fetchall() if cursor.description else []


async def expire(place, store):
    await query(place, "UPDATE owners SET lease_until = 0 WHERE id = %s", store.owner)


async def test_runs_of_an_expired_lease_can_be_claimed_and_its_process_cannot_write_to_them(place, two):
    loser, winner = two
    await loser.create_run("r", {}, background=True, tenant="t")
    await loser.create_run("other", {})
    await loser.save("r", RunWrites(calls=[reply("before")]))
    with pytest.raises(UserError, match="is in use by process"):
        await winner.claim_run("r")
    await expire(place, loser)
    assert (await winner.get_run("r")).status == "interrupted"
    await winner.claim_run("r")
    for write in (
        lambda: loser.save("r", RunWrites(calls=[reply("late")])),
        lambda: loser.save("r", RunWrites(events=[StageStarted(number=1, stage="x")])),
        lambda: loser.save("r", RunWrites(identities={"main": 1})),
        lambda: loser.release_run("r"),
        lambda: loser.end_run("r", "finished", {"usage": {"completion_tokens": 7}}),
    ):
        with pytest.raises(StoreError, match="was claimed by process"):
            await write()
    await winner.end_run("r", "finished", {"text": "the winner's"})
    with pytest.raises(StoreError, match="has no owner"):
        await loser.end_run("r", "failed", {"text": "the loser's"})
    run = await winner.get_run("r")
    assert (run.status, run.answer, run.identities) == ("finished", {"text": "the winner's"}, {})
    assert [c.key for c in await winner.list_calls("r")] == ["before"]
    assert await winner.list_events("r") == []
    assert await spent(winner) == 0
    await loser.save("other", RunWrites(calls=[reply("k")]))  # nobody took this one


async def test_a_failed_write_does_not_fail_the_others_of_its_transaction(place, two):
    loser, winner = two
    await loser.create_run("lost", {})
    await loser.create_run("kept", {})
    await expire(place, loser)
    await winner.claim_run("lost")
    outcomes = await asyncio.gather(
        *(loser.save(run, RunWrites(calls=[reply(f"{run}{i}")])) for i in range(20) for run in ("lost", "kept")),
        return_exceptions=True,
    )
    assert [isinstance(o, StoreError) for o in outcomes] == [True, False] * 20
    assert (len(await winner.list_calls("lost")), len(await winner.list_calls("kept"))) == (0, 20)


async def test_a_lease_is_renewed_while_the_store_is_open(place, open_at):
    store = await open_at(lease_s=60, renew_s=0.01)
    first = await query(place, "SELECT lease_until FROM owners")

    async def is_renewed():
        return await query(place, "SELECT lease_until FROM owners") != first

    await wait_until(is_renewed)
    await store.create_run("r", {})
    await store.aclose()
    assert await query(place, "SELECT * FROM owners") == []
    await (await open_at()).claim_run("r")  # at once: whose it was is gone for good


async def spend(store, tokens):
    """Write what shows if it is done twice."""
    sql = (
        "INSERT INTO spending (tenant, day, tokens, usd, runs) VALUES ('t', '2026-01-01', ?, 0, 0) "
        "ON CONFLICT (tenant, day) DO UPDATE SET tokens = spending.tokens + excluded.tokens"
    )
    await store.commits.write(lambda db: db.write(sql, (tokens,)))


async def spent(store):
    ((tokens,),) = await store.commits.read(lambda db: db.execute("SELECT COALESCE(SUM(tokens), 0) FROM spending"))
    return tokens


@pytest.mark.parametrize("end", ["fast", "immediate"])
async def test_a_server_restart_loses_and_repeats_nothing(postgres, open_at, end):
    store = await open_at()
    await store.create_run("r", {}, tenant="t")

    async def write(i):
        await store.save("r", RunWrites(calls=[reply(f"k{i}")]))
        await spend(store, 1)

    postgres.stop(end)
    try:
        writing = [asyncio.create_task(write(i)) for i in range(30)]
        looking = asyncio.create_task(store.get_run("r"))
        await wait_until(store.commits._database._is_lost)
        assert not any(task.done() for task in (*writing, looking))
    finally:
        postgres.start()
    await asyncio.gather(*writing)
    assert ((await looking).id, len(await store.list_calls("r")), await spent(store)) == ("r", 30, 30)


class Intercepted:
    """A connection with something else in place of its next COMMIT."""

    def __init__(self, connection, commit):
        self._connection, self._commit = connection, commit

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def write(self, sql, *rows):
        return (self._commit if sql == "COMMIT" else self._connection.write)(sql, *rows)


@pytest.mark.parametrize("after", [True, False])
async def test_a_commit_without_acknowledgement_is_not_repeated(open_at, after):
    """The connection is cut just after the server has got the COMMIT, or just before."""
    store = await open_at()
    await store.create_run("r", {}, tenant="t")
    database, lost = store.commits._database, []
    connection = database._connection

    def cut(sql, *rows):
        if after:
            connection.write(sql, *rows)
        connection.close()
        lost.append(sql)
        raise psycopg.OperationalError("the server closed the connection unexpectedly")

    database._connection = Intercepted(connection, cut)
    await spend(store, 100)
    assert (lost, await spent(store)) == (["COMMIT"], 100)


@pytest.fixture
def replicated(postgres):
    """A primary with a standby that is no synchronous one."""
    primary = PostgresServer()
    try:
        standby = PostgresServer(primary=primary)
        yield primary, standby
        standby.remove()
    finally:
        primary.remove()


def address(*servers):
    return f"postgresql://reason@{','.join(f'{server.host}:{server.port}' for server in servers)}/postgres"


async def test_a_transaction_that_a_promoted_standby_does_not_know_is_repeated(replicated, open_at):
    """Also if the new primary has given the id of the lost transaction to another one."""
    primary, standby = replicated
    store = await open_at(address(primary, standby))
    await store.create_run("r", {}, tenant="t")
    lsn = primary.execute("SELECT pg_current_wal_lsn()")[0][0]
    await wait_until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")[0][0])
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
    standby.execute("SELECT pg_reload_conf()")
    await wait_until(lambda: not standby.execute("SELECT 1 FROM pg_stat_wal_receiver"))

    database = store.commits._database
    connection = database._connection

    def fail_over(*statement):
        """Kill the primary before it has got the COMMIT, and promote its standby."""
        [[mine]] = connection.execute("SELECT pg_current_xact_id()::text::bigint")
        primary.kill()
        standby.promote()
        while standby.execute("SELECT pg_current_xact_id()::text::bigint") < [(mine,)]:
            pass
        assert standby.execute(f"SELECT pg_xact_status('{mine}')") == [("committed",)]
        return connection.write(*statement)

    database._connection = Intercepted(connection, fail_over)
    await spend(store, 100)
    assert not isinstance(database._connection, Intercepted)
    assert await spent(store) == 100


async def test_a_lease_is_renewed_while_writes_wait_for_a_lost_standby(replicated, open_at):
    primary, standby = replicated
    primary.wait_for_standby()
    store = await open_at(primary.url, renew_s=0.05)
    await store.create_run("r", {})
    standby.crash()
    writing = asyncio.ensure_future(store.save("r", RunWrites(calls=[reply("k")])))
    before = primary.execute("SELECT lease_until FROM owners")
    await wait_until(lambda: primary.execute("SELECT lease_until FROM owners") != before)
    assert not writing.done()
    standby.start()
    await writing


async def test_of_several_hosts_the_one_that_accepts_writes_is_used(replicated, open_at):
    primary, standby = replicated
    store = await open_at(address(standby, primary))
    assert await store.commits.read(lambda db: db.db.info.port) == primary.port
    with pytest.raises(StoreError, match="read-only"):
        await open_at(standby.url)


async def test_an_unreachable_server_is_an_error_after_a_while(postgres, open_at):
    store = await open_at(retry_s=0.2)
    await store.create_run("r", {})
    postgres.stop()
    try:
        for operation in (store.get_run("r"), store.save("r", RunWrites(calls=[reply("k")]))):
            with pytest.raises(StoreError, match="cannot use the run store postgresql://reason@"):
                await operation
        with pytest.raises(StoreError):
            await open_at()
    finally:
        postgres.start()
    await store.save("r", RunWrites(calls=[reply("k")]))


async def test_closing_does_not_wait_for_an_unreachable_server(postgres, place):
    store = await PostgresStore.open(place, renew_s=0.05, retry_s=3600)
    postgres.stop()
    try:
        await wait_until(lambda: not store._lease.is_renewed)
        await store.aclose()
    finally:
        postgres.start()


async def test_several_processes_may_create_the_tables_concurrently(open_at):
    stores = await asyncio.gather(*(open_at() for _ in range(6)))
    await stores[0].create_run("r", {})
    assert [(await s.get_run("r")).id for s in stores] == ["r"] * 6


@pytest.mark.parametrize(("schema", "age"), [("99", "a newer"), ("1", "an older")])
async def test_a_database_of_another_version_is_refused(place, open_at, schema, age):
    await (await open_at()).aclose()
    await query(place, "UPDATE meta SET value = %s", schema)
    with pytest.raises(StoreError, match=f"written by {age} version"):
        await open_at()


async def test_a_database_without_an_encoding_is_read_as_utf8(postgres):
    postgres.execute("CREATE DATABASE plain ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    store = await open_store(postgres.url.removesuffix("postgres") + "plain")
    await store.create_run("é", {"strategy": "cot"})
    await store.end_run("é", "finished")
    assert (await store.get_run("é")).status == "finished"
    await store.aclose()


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@h:1/db?nonsense=1", "postgresql://u:geheim@127.0.0.1:1,127.0.0.1:2/db"]
)
async def test_errors_do_not_show_the_password(url):
    with pytest.raises((UserError, StoreError)) as e:
        await open_store(url)
    assert "geheim" not in str(e.value)
    assert "postgresql://u:***@" in str(e.value)


def test_only_stop_ends_the_lease_thread():
    class Broken:
        def close(self):
            raise OSError("broken")

    def renew(connection):
        made.append(connection)
        if len(made) == 3:
            lease.stop()
        raise OSError("gone")

    made = []
    lease = Lease(Broken, renew, 0.0)
    lease.run()
    assert len(made) == len({*map(id, made)}) == 3  # each time over a new connection
