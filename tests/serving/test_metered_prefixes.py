"""Named prefixes through a metered model: what is charged, recorded, done again and left undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable, CapabilityMissing, LimitExceeded, StoreError, UnknownName, UserError
from reason.core.event_sinks import MemorySink
from reason.core.messages import Prompt, Request, Sampling, Usage
from reason.core.question import Question
from reason.core.run import Run, RunConfig
from reason.core.sqlite_store import SqliteStore
from reason.serving.kv_store import (
    KVStore,
    Pinned,
    PinsPrefixes,
    PrefixState,
    PrefixTooLarge,
    SavedPrefix,
    check_name,
    kv_store_of,
)
from reason.serving.metered import MeteredModel
from reason.serving.model import Capabilities, LanguageModel
from reason.serving.recorded import RecordedModel
from support.scripted_model import ScriptedModel, replies

PROMPT = Prompt.user("a long beginning")


class Shelf:
    """Named prefixes of a scripted model: a token a character, half of which it finds in its cache."""

    def __init__(self, model: PinningModel) -> None:
        self.model = model
        self.kept: dict[str, SavedPrefix] = {}
        self.done: list[str] = []
        self.failing: Exception | None = None
        self.hold: asyncio.Event | None = None

    def _keep(self, name: str, ids: tuple[int, ...], cached: int) -> Pinned:
        self.kept[name] = SavedPrefix(
            name=name,
            token_ids=ids,
            stored=len(ids),
            model=self.model.name,
            identity=self.model.identity,
            dtype="float32",
            layout="scripted/1",
            files=(),
        )
        return Pinned(saved=self.kept[name], usage=Usage(prompt_tokens=len(ids), cached_tokens=cached))

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        self.done.append(f"save {name}")
        if self.hold is not None:
            await self.hold.wait()
        if self.failing is not None:
            raise self.failing
        ids = tuple(map(ord, self.model.render(prompt)))
        return self._keep(name, ids, len(ids) // 2)

    async def restore(self, name: str, *, cache_salt: str = "") -> Pinned:
        self.done.append(f"restore {name}")
        if name not in self.kept:
            raise UnknownName("prefix", name)
        ids = self.kept[name].token_ids
        return self._keep(name, ids, len(ids))

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = "") -> Pinned:
        self.done.append(f"fork {name}")
        ids = self.kept[name].token_ids
        return self._keep(new_name, (*ids, *(map(ord, more) if isinstance(more, str) else more)), len(ids))

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        self.done.append(f"drop {name}")
        del self.kept[name]

    async def saved(self) -> list[PrefixState]:
        return [PrefixState(saved=s, pinned=True, folder=None, used_at=0) for s in self.kept.values()]


class PinningModel(ScriptedModel):
    def __init__(self) -> None:
        super().__init__(replies("yes"), name="pinning")
        self.shelf = Shelf(self)

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities.model_copy(update={"pins": True})

    @property
    def kv_store(self) -> KVStore:
        return self.shelf


class Desk:
    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.sink = MemorySink()

    async def run(self, *, new: bool = True, **budget: Any) -> Run:
        config = RunConfig(
            question=Question(text="?"),
            strategy="cot",
            parameters={},
            models={"main": "pinning"},
            budget=Budget(**budget),
            seed=7,
        )
        if new:
            await self.store.create_run("r", {})
        return Run("r", config, self.store, sinks=[self.sink])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield Desk(store)
    await store.aclose()


async def test_a_metered_model_pins_where_its_model_does(desk: Desk) -> None:
    run = await desk.run()
    can, cannot = MeteredModel(PinningModel(), "main", run), MeteredModel(ScriptedModel(replies("x")), "small", run)
    assert isinstance(can, LanguageModel)
    assert isinstance(can, PinsPrefixes)
    assert isinstance(kv_store_of(can), KVStore)
    for reach in (lambda: kv_store_of(cannot), lambda: cannot.kv_store):
        with pytest.raises(CapabilityMissing, match="pins"):
            reach()


async def test_what_had_to_be_computed_is_charged_and_no_call(desk: Desk) -> None:
    model = PinningModel()
    run = await desk.run(calls=1)
    metered = MeteredModel(model, "main", run)
    made = await metered.pin("p", PROMPT)
    assert made is not None
    count = len(made.saved.token_ids)
    usage = run.ledger.usage()
    assert (usage.prompt_tokens, usage.cached_tokens) == (count - count // 2, 0)
    assert (usage.model_calls, usage.completion_tokens) == (0, 0)
    await metered.kv_store.restore("p")
    await metered.kv_store.fork("p", "q", "xyz")
    assert run.ledger.usage().prompt_tokens == count - count // 2 + 3
    await metered.generate([Request(prompt=PROMPT, sampling=Sampling(max_tokens=9))])
    assert run.ledger.usage().model_calls == 1
    assert [e.operation for e in desk.sink.of_type("call.started")] == [
        "save_prefix",
        "restore_prefix",
        "fork_prefix",
        "generate",
    ]
    assert {s.saved.name for s in await metered.kv_store.saved()} == {"p", "q"}
    await metered.kv_store.drop("p")
    assert [s.saved.name for s in await metered.kv_store.saved()] == ["q"]


async def test_a_resumed_run_pins_again_and_pays_once(desk: Desk) -> None:
    first = MeteredModel(PinningModel(), "main", run := await desk.run())
    await first.pin("p", PROMPT)
    paid = run.ledger.usage().prompt_tokens
    model = PinningModel()
    again = await desk.run(new=False)
    await MeteredModel(model, "main", again).pin("p", PROMPT)
    assert model.shelf.done == ["save p"]
    assert again.ledger.usage().prompt_tokens == paid


async def test_the_same_pin_is_paid_for_once_in_a_run(desk: Desk) -> None:
    model = PinningModel()
    metered = MeteredModel(model, "main", run := await desk.run())
    await metered.kv_store.save("p", PROMPT)
    await metered.kv_store.fork("p", "q", "xyz")
    paid = run.ledger.usage().prompt_tokens
    for _ in range(2):
        await metered.kv_store.restore("p")
    assert run.ledger.usage().prompt_tokens == paid
    await metered.kv_store.fork("p", "q", "xyz")
    assert run.ledger.usage().prompt_tokens == paid + 3, "the engine computed it again"
    shown = await desk.run(new=False)
    without = MeteredModel(RecordedModel(model.name, model.identity, model.capabilities), "main", shown)
    for _ in range(2):
        await without.kv_store.save("p", PROMPT)
        await without.kv_store.fork("p", "q", "xyz")
    assert shown.ledger.usage().prompt_tokens == paid


async def test_a_run_without_its_model_takes_pins_from_the_record(desk: Desk) -> None:
    model = PinningModel()
    metered = MeteredModel(model, "main", run := await desk.run())
    made = [
        await metered.kv_store.save("p", PROMPT),
        await metered.kv_store.restore("p"),
        await metered.kv_store.fork("p", "q", (1, 2)),
    ]
    gone = RecordedModel(model.name, model.identity, model.capabilities)
    shown = await desk.run(new=False)
    without = MeteredModel(gone, "main", shown)
    assert [
        await without.kv_store.save("p", PROMPT),
        await without.kv_store.restore("p"),
        await without.kv_store.fork("p", "q", (1, 2)),
    ] == made
    assert shown.ledger.usage().prompt_tokens == run.ledger.usage().prompt_tokens
    await without.kv_store.drop("p")
    assert await without.kv_store.saved() == []
    with pytest.raises(StoreError):
        await without.kv_store.save("other", PROMPT)
    with pytest.raises(UnknownName):
        await without.kv_store.restore("other")
    assert await without.pin("other", PROMPT) is None


@pytest.mark.parametrize(
    "error", [PrefixTooLarge("too large"), BackendUnavailable("the disk is full"), UserError("no folder")]
)
async def test_a_pin_that_fails_is_a_note_and_no_end(desk: Desk, error: Exception) -> None:
    model = PinningModel()
    model.shelf.failing = error
    metered = MeteredModel(model, "main", await desk.run())
    assert await metered.pin("p", PROMPT) is None
    [note] = desk.sink.of_type("strategy.note")
    assert (note.name, note.data["prefix"], note.data["why"]) == ("prefix.not_pinned", "p", str(error))
    with pytest.raises(type(error)):
        await metered.kv_store.save("p", PROMPT)


async def test_a_model_that_cannot_pin_leaves_a_note(desk: Desk) -> None:
    metered = MeteredModel(ScriptedModel(replies("x")), "main", run := await desk.run())
    assert await metered.pin("p", PROMPT) is None
    assert desk.sink.of_type("strategy.note")[0].name == "prefix.not_pinned"
    assert run.degraded == [], "the results are the same"
    with pytest.raises(UserError, match="cannot name"):
        await metered.pin("../p", PROMPT)


async def test_the_time_limit_ends_a_pin(desk: Desk) -> None:
    model = PinningModel()
    model.shelf.hold = asyncio.Event()
    metered = MeteredModel(model, "main", await desk.run(seconds=0.05))
    with pytest.raises(LimitExceeded):
        await metered.pin("p", PROMPT)
    assert model.shelf.kept == {}


async def test_a_cancelled_pin_is_not_recorded(desk: Desk) -> None:
    model = PinningModel()
    model.shelf.hold = asyncio.Event()
    metered = MeteredModel(model, "main", run := await desk.run())
    task = asyncio.create_task(metered.pin("p", PROMPT))
    while not model.shelf.done:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    without = MeteredModel(RecordedModel(model.name, model.identity, model.capabilities), "main", run)
    with pytest.raises(StoreError):
        await without.kv_store.save("p", PROMPT)


async def test_a_tenants_names_are_its_own(desk: Desk) -> None:
    model, stores = PinningModel(), {}
    for tenant in ("acme", "other"):
        run = await desk.run(new=tenant == "acme")
        run.config = run.config.model_copy(update={"tenant": tenant})
        stores[tenant] = MeteredModel(model, "main", run).kv_store
    long = "a" * 80
    for name in ("p", long):
        await stores["acme"].save(name, PROMPT)
    assert len(model.shelf.kept) == 2
    assert all(check_name(name) != "p" for name in model.shelf.kept)
    assert {s.saved.name for s in await stores["acme"].saved()} == set(model.shelf.kept)
    assert await stores["other"].saved() == []
    with pytest.raises(UnknownName):
        await stores["other"].restore("p")
    with pytest.raises(KeyError):  # of a shelf that has no such name
        await stores["other"].drop("p")
    assert (await stores["acme"].restore(long)).saved.name in model.shelf.kept
    await stores["acme"].drop(long)
    assert len(await stores["acme"].saved()) == 1
    nobody = MeteredModel(model, "main", await desk.run(new=False)).kv_store
    await nobody.save("p", PROMPT)
    assert "p" in model.shelf.kept
    with pytest.raises(UserError):
        await stores["acme"].save("../p", PROMPT)
