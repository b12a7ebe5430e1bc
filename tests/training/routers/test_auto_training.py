"""The router of `auto` trained on runs whose truth is known, and the questions looked at once."""

import asyncio
import random

import fitting as gathering
import numpy as np
import pytest
from arm_table import arm_table
from auto_training import train_auto
from fitting import QuestionSignals, compute_signals
from reason.core.errors import UserError
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.evals.datasets.items import is_held_out
from reason.routers.features import ENTROPY, QuestionFeatures, named_features
from support.scripted_model import THINKS, ScriptedModel, replies
from support.trained_routers import asked, hard, sums_file, way
from support.waiting import wait_until
from support.word_vectors import WordVectors

N = 150


def chance(i, easy, on_hard):
    return float(random.Random(i).random() < (on_hard if hard(i) else easy))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sums_file(tmp_path_factory.mktemp("data") / "sums.jsonl", N)


@pytest.fixture(scope="module")
def table(data):
    """A cheap arm that fails on the long questions, and a dear one that does not."""
    cheap = way(data, "cot", lambda i: chance(i, 0.95, 0.1), lambda i: 20)
    dear = way(data, "self-consistency", lambda i: chance(i, 0.95, 0.9), lambda i: 200, parameters={"n": 3})
    return arm_table([cheap, dear])


@pytest.fixture(scope="module")
def gathered(table):
    return QuestionSignals(tuple(QuestionFeatures(named_features(q)) for q in table.questions))


def test_the_router_sends_hard_questions_to_the_expensive_arm(table, gathered):
    trained = train_auto(table, gathered, price=0.5)
    file = trained.file
    assert [a.label for a in file.arms] == ["cot", "self-consistency n=3"]
    assert not file.arms[0].right.constant
    assert file.trained.questions == N
    assert set(file.trained.digests) == set(table.digests)
    assert trained.held is None
    at = next(p for p in trained.crossed.prices if p.price == 0.5)
    assert at.shares[1] == pytest.approx(1 / 3, abs=0.06)
    cheap, dear = trained.crossed.comparisons
    assert at.right == pytest.approx(dear.right, abs=0.03)
    assert at.cost < 0.6 * dear.cost
    assert at.over_random.interval.low > 0
    assert dear.auto_cost <= dear.cost
    assert dear.difference.value == pytest.approx(0, abs=0.03)
    assert cheap.reach == "equal"
    assert all(w.interval.low > 0 for w in trained.crossed.worth)


def test_held_out_questions_are_never_trained_on(table, gathered):
    trained = train_auto(table, gathered, price=0.5, holdout=0.4)
    held = [d for d in table.digests if is_held_out(d, 0.4)]
    assert trained.held.questions == len(held)
    assert not set(held) & set(trained.file.trained.digests)
    assert trained.crossed.questions + trained.held.questions == N
    assert trained.file.trained.held_out == 0.4


def test_too_few_questions_are_refused(table, gathered):
    few = table.only(range(6))
    with pytest.raises(UserError, match="too few for 5 folds"):
        train_auto(few, QuestionSignals(gathered.signals[:6]), price=0.1)
    with pytest.raises(UserError, match="none of the 1 questions is"):
        train_auto(table.only([0]), QuestionSignals(gathered.signals[:1]), price=0.1, holdout=0.5)


# -- looking at the questions


@pytest.fixture
def opened(monkeypatch):
    model, words = ScriptedModel(replies("a.", "b.", "c.")), WordVectors(dimension=17)

    async def load_model(*_):
        return model

    async def load_embedding_model(*_):
        return words

    monkeypatch.setattr(gathering, "load_model", load_model)
    monkeypatch.setattr(gathering, "load_embedding_model", load_embedding_model)
    return model, words


async def test_signals_are_computed_once_per_question(opened, tmp_path):
    model, words = opened
    settings = load_settings(store=tmp_path / "runs.sqlite3")
    questions = [asked(i) for i in range(20)]
    heard = []
    first = await compute_signals(
        questions, settings, model="scripted", identity="scripted@1", watch=lambda *n: heard.append(n)
    )
    assert [s.named["numerals"] for s in first.signals] == [named_features(q)["numerals"] for q in questions]
    assert all(s.named[ENTROPY] == pytest.approx(np.log(3)) for s in first.signals)
    assert (first.embedding_identity, len(first.signals[0].vector)) == ("words-1", 17)
    assert heard[-1] == (20, 20)
    assert model.closed
    embedded = len(words.asked)
    assert await compute_signals(questions, settings, model="scripted") == first
    assert len(words.asked) == embedded
    store = await SqliteStore.open(settings.store)
    runs = await store.list_runs(100)
    await store.aclose()
    assert len(runs) == 20
    assert {r.status for r in runs} == {"finished"}


async def test_unused_models_are_not_opened(opened, tmp_path, monkeypatch):
    async def never(*_):
        raise AssertionError("opened")

    monkeypatch.setattr(gathering, "load_model", never)
    result = await compute_signals([asked(1)], load_settings(store=tmp_path / "r.sqlite3"), model=None)
    assert ENTROPY not in result.signals[0].named


async def test_another_model_than_the_runs_is_refused(opened, tmp_path):
    settings = load_settings(store=tmp_path / "r.sqlite3")
    with pytest.raises(UserError, match="made with other@1, and scripted is scripted@1 here"):
        await compute_signals([asked(1)], settings, model="scripted", identity="other@1")


async def test_a_missing_embedding_is_skipped(opened, tmp_path, monkeypatch):
    async def missing(*_):
        raise UserError("no such extra")

    monkeypatch.setattr(gathering, "load_embedding_model", missing)
    result = await compute_signals([asked(1)], load_settings(store=tmp_path / "r.sqlite3"), model=None)
    assert (result.missing, result.embedding, result.signals[0].vector) == ("no such extra", "", ())


async def test_computing_signals_can_be_cancelled_and_resumed(opened, tmp_path, monkeypatch):
    _, words = opened

    class Slow(ScriptedModel):
        async def next_token(self, prompts, top=20):
            if len(words.asked) >= 3:
                await asyncio.Event().wait()
            return await super().next_token(prompts, top)

    slow = Slow(replies("a.", "b.", "c."))

    async def open_slow(*_):
        return slow

    settings = load_settings(store=tmp_path / "r.sqlite3")
    questions = [asked(i) for i in range(40)]
    with monkeypatch.context() as patched:
        patched.setattr(gathering, "load_model", open_slow)
        task = asyncio.ensure_future(compute_signals(questions, settings, model="scripted"))
        await wait_until(lambda: len(words.asked) >= 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert slow.closed
    store = await SqliteStore.open(settings.store)
    status = [r.status for r in await store.list_runs(100)]
    await store.aclose()
    assert set(status) <= {"finished", "interrupted"}
    before = len(words.asked)
    result = await compute_signals(questions, settings, model="scripted")
    assert len(result.signals) == 40
    assert len(words.asked) - before <= 40 - status.count("finished")


async def test_efforts_are_arms(data, gathered):
    identity = ScriptedModel(replies(""), profile=THINKS).identity
    low = way(data, "cot", lambda i: chance(i, 0.95, 0.1), lambda i: 20, effort="low")
    high = way(data, "cot", lambda i: chance(i, 0.95, 0.9), lambda i: 200, effort="high")
    for run in (low, high):
        run.rows[:] = [row.model_copy(update={"engines": {"main": identity}}) for row in run.rows]
    file = train_auto(arm_table([low, high]), gathered, price=0.5).file
    assert [(a.label, a.effort) for a in file.arms] == [("cot effort=low", "low"), ("cot effort=high", "high")]
