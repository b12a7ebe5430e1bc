"""API keys, and the spending of their tenants, in both kinds of stores."""

import asyncio
import time

import pytest
from reason.core.budget import Budget
from reason.core.errors import UnknownName, UserError
from reason.sidecar.key_store import ApiKey, KeyLimits, KeyStore, Spending


async def test_a_key_is_stored_once_and_read_as_it_was_until_it_is_revoked(any_store):
    keys = await KeyStore.open(any_store)
    first = ApiKey(
        id="k1",
        name="né",
        tenant="t",
        digest="d",
        scopes=frozenset({"ask", "read"}),
        limits=KeyLimits(tokens_per_day=5, usd_per_day=0.5),
        created=2.0,
        expires=9.0,
    )
    older = ApiKey(id="k2", name="n", tenant="u", digest="e", scopes=frozenset({"admin"}), created=1.0)
    await keys.add(first)
    await keys.add(older)
    with pytest.raises(UserError, match="there is a key k1 already"):
        await keys.add(older.model_copy(update={"id": "k1"}))
    assert await (await KeyStore.open(any_store)).keys() == [older, first]
    assert await keys.find("k1") == first
    assert [await keys.find(name) for name in ("none", "\0")] == [None, None]
    revoked = await keys.revoke("k1")
    assert (await keys.revoke("k1"), await keys.find("k1")) == (revoked, revoked)
    assert first.is_valid(8.0)
    assert not first.is_valid(9.0)
    assert not revoked.is_valid(8.0)
    with pytest.raises(UnknownName):
        await keys.revoke("none")


async def test_tables_that_are_there_are_not_created_again(any_store):
    await KeyStore.open(any_store)
    written = any_store.commits.transactions
    await KeyStore.open(any_store)
    assert any_store.commits.transactions == written


async def test_spending_is_of_a_tenant_and_a_day(any_store):
    keys, now = await KeyStore.open(any_store), time.time()
    await any_store.create_run("r", {}, tenant="t")
    await any_store.end_run("r", "finished", {"usage": {"completion_tokens": 7, "cost_usd": 0.5}})
    assert await keys.get_spending("t", now - 86_400) == Spending(tokens=7, usd=0.5, runs=1)
    assert await keys.get_spending("t", now + 86_400) == await keys.get_spending("u", 0.0) == Spending()


async def test_concurrent_reservations_of_several_processes_never_exceed_the_day(stores):
    two = [await KeyStore.open(await stores.open()) for _ in range(2)]
    limits = KeyLimits(tokens_per_day=100, usd_per_day=2.0)
    made = await asyncio.gather(
        *(two[i % 2].reserve_spending(f"n{i}", "t", Budget(tokens=30), limits, 0.0) for i in range(8))
    )
    granted = {f"n{i}": budget.tokens for i, (budget, _) in enumerate(made) if budget is not None}
    assert list(granted.values()) == [30]  # whichever is first reserves all dollars
    spending = await two[0].get_spending("t", 0.0)
    assert (spending.tokens, spending.reserved_tokens, spending.reserved_usd) == (0, 30, 2.0)
    await two[1].release_spending(*granted)
    made = await asyncio.gather(
        *(two[i % 2].reserve_spending(f"m{i}", "t", Budget(tokens=30, usd=0.1), limits, 0.0) for i in range(8))
    )
    assert sorted(budget.tokens for budget, _ in made if budget is not None) == [10, 30, 30, 30]
    before = next(spending for budget, spending in made if budget is None)
    assert before.reserved_tokens == 100
    assert (await two[0].get_spending("u", 0.0)).reserved_tokens == 0


async def test_reservations_end_with_their_process(stores):
    keys, other = await KeyStore.open(await stores.open()), await stores.open_other()
    limits = KeyLimits(tokens_per_day=100)
    await (await KeyStore.open(other)).reserve_spending("r", "t", Budget(tokens=70), limits, 0.0)
    budget, _ = await keys.reserve_spending("a", "t", Budget(), limits, 0.0)
    assert budget == Budget(tokens=30)
    await keys.release_spending("a")
    await stores.kill(other)
    budget, spent = await keys.reserve_spending("b", "t", Budget(calls=2), limits, 0.0)
    assert (budget, spent.reserved_tokens) == (Budget(tokens=100, calls=2), 0)
