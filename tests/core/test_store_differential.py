"""Both stores do the same, whatever is done to them: any sequence of operations, side by side."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.errors import ReasonError
from reason.core.store import open_store
from reason.core.store.protocol import RunWrites, StoredCall

NAMES = ("a", "b", "ab", "c")
TENANTS = ("", "t")
NAME, TENANT = st.sampled_from(NAMES), st.sampled_from(TENANTS)
STATUS = st.sampled_from(["finished", "interrupted", "failed"])

OPERATION = st.one_of(
    st.tuples(
        st.just("create_run"),
        NAME,
        st.fixed_dictionaries(
            {
                "tenant": TENANT,
                "background": st.booleans(),
                "status": st.sampled_from(["queued", "running"]),
                "idempotency": st.sampled_from([None, "k"]),
                "digest": st.sampled_from(["d", "e"]),
            }
        ),
    ),
    st.tuples(st.sampled_from(["claim_run", "release_run", "request_cancel", "request_answer", "delete_run"]), NAME),
    st.tuples(st.just("end_run"), NAME, STATUS, st.integers(0, 50), st.integers(0, 20)),
    st.tuples(st.just("add_calls"), NAME, st.lists(st.sampled_from("xyz"), min_size=1), st.booleans()),
    st.tuples(
        st.just("list_runs"),
        st.none() | TENANT,
        st.none() | NAME,
        st.sampled_from([None, "queued", "running", "finished"]),
    ),
    st.tuples(st.just("find_calls"), NAME, st.booleans()),
    st.tuples(st.just("list_claimable_runs"), st.integers(1, 3)),
)

number = itertools.count()


async def do(store, operation, prefix):
    """What an operation gives, as far as it is the same in every store."""
    name, *given_ = operation
    run = prefix + given_[0] if name not in ("list_runs", "list_claimable_runs") else ""
    tenant = lambda t: None if t is None else prefix + t  # noqa: E731
    try:
        if name == "create_run":
            await store.create_run(run, {}, **{**given_[1], "tenant": prefix + given_[1]["tenant"]})
        elif name == "end_run":
            usage = {"completion_tokens": given_[2] + given_[3], "replayed_tokens": given_[3]}
            await store.end_run(run, given_[1], {"usage": usage})
        elif name == "add_calls":
            reply = {"usage": {"completion_tokens": 3, "cost_usd": 0.5}}
            calls = [StoredCall(key=prefix + k, role="r", model="m", request={}, response=reply) for k in given_[1]]
            await store.save(run, RunWrites(calls=calls) if given_[2] else RunWrites(copies=calls))
        elif name == "list_runs":
            after = None if given_[1] is None else prefix + given_[1]
            listed = await store.list_runs(2, tenant=tenant(given_[0]), after=after, status=given_[2])
            return [r.id for r in listed if r.id.startswith(prefix)]
        elif name == "find_calls":
            return sorted(await store.find_calls(run, [prefix + k for k in "xyz"], any_run=given_[1]))
        elif name == "list_claimable_runs":
            return [r.id for r in await store.list_claimable_runs(1000) if r.id.startswith(prefix)]
        else:
            await getattr(store, name)(run)
    except ReasonError as e:
        return type(e).__name__, e.message
    return None


async def state(store, prefix):
    listed = [r for r in await store.list_runs(1000) if r.id.startswith(prefix)]
    runs = [await store.get_run(r.id, exact=True) for r in listed]
    spent = [await store.get_spending(prefix + t, 0) for t in TENANTS]
    kept = ("id", "status", "tenant", "background", "idempotency", "cancel_requested", "answer_requested", "answer")
    return [(*(getattr(r, k) for k in kept), r.owner is None, await store.count_calls(r.id)) for r in runs], spent


@pytest.fixture
def two_places(postgres, tmp_path):
    return tmp_path / "runs.sqlite3", postgres.new_database()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATION, min_size=4, max_size=25))
def test_both_stores_behave_alike(two_places, operations):
    async def side_by_side():
        stores = [await open_store(place) for place in two_places]
        prefix = f"{next(number):06}-"
        try:
            for operation in operations:
                file, database = [await do(store, operation, prefix) for store in stores]
                assert file == database, operation
            file, database = [await state(store, prefix) for store in stores]
            assert file == database
        finally:
            for store in stores:
                await store.aclose()

    asyncio.run(side_by_side())
