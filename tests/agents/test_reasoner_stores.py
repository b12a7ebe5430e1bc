"""A reasoner over either kind of store: transactions, spending, and a run that goes on elsewhere."""

import asyncio

import psycopg
import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import StoreError, UserError
from reason.core.settings import Settings
from reason.sidecar.key_store import KeyStore
from support.scripted_model import ScriptedModel, replies

PARIS = replies("It is in France. The answer is Paris.", "I believe the answer is Paris")


@pytest.fixture
def model(monkeypatch):
    model = ScriptedModel(PARIS)

    async def load_model(*_):
        return model

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return model


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request, tmp_path):
    place = tmp_path / "runs.sqlite3"
    if request.param == "postgres":
        place = request.getfixturevalue("postgres").new_database()
    return Settings(model="scripted", store=place, cache_dir=tmp_path / "cache", seed=5)


def voting(settings, **more):
    return Reasoner(strategy="self-consistency", parameters={"n": 8, "max_tokens": 60}, settings=settings, **more)


async def test_a_run_costs_few_transactions(model, settings):
    async with Reasoner(settings=settings) as reasoner:
        await reasoner.aask("Where?")
        store = await reasoner.open_store()
        before = store.commits.transactions
        await reasoner.aask("Where else?")
        # made, its models noted, the reply, the state after solving, the end
        assert store.commits.transactions - before <= 5
        before = store.commits.transactions
        await asyncio.gather(*(reasoner.aask(f"Where is it, number {i}?") for i in range(20)))
        assert store.commits.transactions - before < 5 * 20


async def test_payments_of_a_cancelled_run_are_charged_once_when_it_is_resumed(model, settings):
    held = asyncio.Event()

    async def step():
        if len([c for c in model.made if c]) == 8 and model.running and held.is_set():
            await asyncio.Event().wait()
        model.steps = getattr(model, "steps", 0) + 1
        if model.steps == 35:  # some samples have ended, some have not
            held.set()

    model._step = lambda: asyncio.ensure_future(step())
    async with voting(settings) as reasoner:
        asking = asyncio.create_task(reasoner.aask("Where?", run_id="r"))
        await held.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        store = await reasoner.open_store()
        partial = (await store.get_run("r")).answer["usage"]["completion_tokens"]
        assert (await (await KeyStore.open(store)).get_spending("", 0)).tokens == partial > 0
        model._step = None
        answer = await reasoner.aresume("r")
        paid_again = answer.usage.completion_tokens - answer.usage.replayed_tokens
        assert 0 < paid_again < answer.usage.completion_tokens
        spent = await (await KeyStore.open(store)).get_spending("", 0)
        assert (spent.tokens, spent.runs) == (partial + paid_again, 1)


async def test_a_claimed_run_stops_and_its_new_owner_continues(model, tmp_path, postgres):
    place = postgres.new_database()
    settings = Settings(model="scripted", store=place, cache_dir=tmp_path / "cache", seed=5)
    stuck = asyncio.Event()

    go_on = asyncio.Event()

    async def hang():
        stuck.set()
        await go_on.wait()

    async with voting(settings) as loser, voting(settings) as winner:
        model._step = lambda: asyncio.ensure_future(hang())
        asking = asyncio.create_task(loser.aask("Where?", run_id="r"))
        await stuck.wait()
        with pytest.raises(UserError, match="is in use"):
            await winner.aresume("r")
        store = await loser.open_store()
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as db:
            await db.execute("UPDATE owners SET lease_until = 0 WHERE id = %s", (store.owner,))
        model._step = None
        answer = await winner.aresume("r")
        go_on.set()
        with pytest.raises(StoreError, match="has no owner"):
            await asking
        run = await (await winner.open_store()).get_run("r")
        assert (run.status, run.answer) == ("finished", answer.model_dump(mode="json"))


async def test_a_run_that_cannot_be_resumed_is_released_unchanged(model, settings):
    async with voting(settings) as reasoner:
        model._failing = frozenset(range(8))
        with pytest.raises(Exception, match="fail"):
            await reasoner.aask("Where?", run_id="r")
        model.identity = "another@1"
        with pytest.raises(UserError, match="is not the one that run r began with"):
            await reasoner.aresume("r")
        store = await reasoner.open_store()
        run = await store.get_run("r")
        assert (run.status, run.owner) == ("failed", None)
