"""`NamedMemory`: what is kept, found, evicted and removed; alone in one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from reason.core.errors import BackendError, StoreError, UnknownName, UserError
from reason.core.settings import Settings
from reason.reasoning.knowledge import KnowledgeSource, MemoryItem, Snippet
from reason.reasoning.memory import named_memory
from reason.reasoning.memory.named_memory import (
    MemoryDamaged,
    NamedMemory,
    find_memory,
    list_memories,
    load_memory,
    memory_path,
    remove_memory,
    summarize_memory,
)
from reason.reasoning.retrieval.deduplication import text_hash
from support.word_vectors import WordVectors

FACTS = ("Paris is the capital of France", "Rome lies on the Tiber", "Water boils at 100 degrees")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=tmp_path / "data" / "runs.sqlite3")


Load = Callable[..., Awaitable[NamedMemory]]


@pytest.fixture
async def load(settings: Settings) -> AsyncIterator[Load]:
    """Loads the memory `facts` with an embedding model or without, and closes it after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def load(embedding: WordVectors | None = None) -> NamedMemory:
            memory = await load_memory("facts", settings, embedding)
            stack.push_async_callback(memory.aclose)
            return memory

        yield load


@pytest.fixture
async def memory(load: Load) -> NamedMemory:
    return await load(WordVectors())


def item(text: str, score: float = 0.5, source: str = "") -> MemoryItem:
    kind = "folder" if source else "self"
    return MemoryItem(text=text, hash=text_hash(text), score=score, source_id=source, source_kind=kind, tokens=9)


async def held(memory: NamedMemory) -> list[str]:
    return [one.item.text for one in await memory.items()]


async def recalled(memory: NamedMemory, text: str, k: int) -> list[str]:
    return [one.stored.item.text for one in await memory.recall(text, k)]


async def test_it_outlasts_the_object(memory, load):
    before = time.time()
    assert await held(memory) == []
    assert await memory.recall("anything", 3) == []
    kept = await memory.add([item(FACTS[0], 0.75, "a.md:0-30"), item(FACTS[1])], run_id="r1", question="Where?")
    assert kept == (1, 2)
    written = await memory.items()
    await memory.aclose()
    await memory.aclose()

    embedding = WordVectors()
    memory = await load(embedding)
    assert await memory.items() == written
    [first, second] = written
    assert (first.id, first.item) == (1, item(FACTS[0], 0.75, "a.md:0-30"))
    assert (second.run_id, second.question) == ("r1", "Where?")
    assert before <= first.created <= time.time()
    assert await recalled(memory, "the capital", 1) == [FACTS[0]]
    assert embedding.asked == [["the capital"]]  # what it held was not embedded again


async def test_where_it_lies(settings, memory):
    await memory.add([item(FACTS[0])])
    await memory.aclose()
    folder = settings.store.parent / "memory"
    assert {p.name for p in folder.iterdir()} == {"facts.sqlite3"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [p.stem for p in list_memories(settings)] == ["facts"]


async def test_duplicates_are_left_out_on_all_levels(load):
    memory = await load(WordVectors({"locomotive": "train", "departs": "leaves"}))
    train, ship = "The train leaves at noon from platform nine", "A ship sails to the old harbour of Genoa each day"
    await memory.add([item(train), item(ship)])
    kept = await memory.add(
        [
            item("  the TRAIN leaves, at noon; from platform nine!"),
            item("ship sails to the old harbour of Genoa"),
            item("The locomotive departs at noon from platform nine"),
            item("?!"),
            item("The train is late today"),
            item("the train is late, today"),
        ]
    )
    assert len(kept) == 1
    assert await held(memory) == [train, ship, "The train is late today"]
    # what is only new among themselves
    kept = await memory.add([item("locomotive whistle x y"), item("train whistle x y")])
    assert len(kept) == 1


async def test_without_embeddings_it_goes_by_words(load):
    memory = await load()
    kept = await memory.add([item(text) for text in (*FACTS, "rome lies on the TIBER.")])
    assert kept == (1, 2, 3)
    found = await memory.recall("Which capitals lie on the Tiber?", 5)
    assert [(hit.stored.id, hit.similarity) for hit in found] == [
        (2, pytest.approx(2 / 3)),
        (1, pytest.approx(1 / 3)),
    ]
    assert await recalled(memory, "what is it?", 5) == []
    await memory.aclose()
    # a model that comes later embeds what has no vector, once
    embedding = WordVectors()
    for _ in range(2):
        memory = await load(embedding)
        assert await recalled(memory, "capital", 1) == [FACTS[0]]
        await memory.aclose()
    assert embedding.asked == [list(FACTS), ["capital"], ["capital"]]


async def test_recall_ranks_by_cosine_and_leaves_out_what_has_nothing_in_common(memory):
    await memory.add([item("red"), item("red green"), item("red green blue"), item("yellow")])
    found = await memory.recall("red", 9)
    assert [hit.stored.item.text for hit in found] == ["red", "red green", "red green blue"]
    assert [hit.similarity for hit in found] == pytest.approx([1, 0.5**0.5, 3**-0.5])
    assert await recalled(memory, "red", 2) == ["red", "red green"]
    assert await recalled(memory, "…", 2) == []
    with pytest.raises(UserError, match="k must be at least 1"):
        await memory.recall("red", 0)


async def test_it_is_a_brain(memory):
    assert isinstance(memory, KnowledgeSource)
    assert (memory.name, memory.kind) == ("facts", "memory")
    await memory.add([item("red"), item("red green", source="docs/a.md:0-9")])
    snippets = await memory.query("red", 2, "painting a wall")
    assert all(type(snippet) is Snippet for snippet in snippets)
    assert [(s.text, s.source_id, s.score) for s in snippets] == [
        ("red", "memory:facts#1", pytest.approx(1)),
        ("red green", "memory:facts#2 (docs/a.md:0-9)", pytest.approx(0.5**0.5)),
    ]


async def test_the_identity_is_that_of_the_state(memory, load):
    seen = [memory.identity]
    await memory.add([item("red")])
    seen.append(memory.identity)
    await memory.add([item("Red!")])  # nothing new
    await memory.recall("red", 1)
    assert memory.identity == seen[-1]
    await memory.add([item("green")])
    seen.append(memory.identity)
    await memory.remove([2])
    seen.append(memory.identity)
    await memory.aclose()
    assert len(set(seen)) == 4
    for embedding, same in ((WordVectors(), True), (WordVectors(identity="other"), False), (None, False)):
        memory = await load(embedding)
        assert (memory.identity == seen[-1]) is same


async def test_the_least_relevant_and_then_the_oldest_go(memory, load, monkeypatch):
    monkeypatch.setattr(named_memory, "MAX_ITEMS", 3)
    await memory.add([item("one", 0.5), item("two", 0.2), item("three", 0.5)])
    kept = await memory.add([item("four", 0.5), item("five", 0.1)])
    assert kept == (4,)
    kept = await memory.add([item("six", 0.9)])
    assert kept == (6,)
    assert await held(memory) == ["three", "four", "six"]
    assert await recalled(memory, "one two five", 5) == []
    assert await recalled(memory, "three", 5) == ["three"]
    await memory.aclose()
    # numbers are never used twice, and what went may come again
    memory = await load(WordVectors())
    assert (await memory.add([item("one")])) == (7,)


async def test_a_score_that_is_no_number_counts_as_nothing(memory):
    await memory.add([item("one", float("nan")), item("two", float("inf"))])
    assert [one.item.score for one in await memory.items()] == [0.0, 0.0]


async def test_items_are_removed_all_or_none(memory):
    await memory.add([item(text) for text in FACTS])
    with pytest.raises(UnknownName, match="'facts 9'"):
        await memory.remove([1, 9])
    assert len(await memory.items()) == 3
    await memory.remove([1, 3, 1])
    await memory.remove([])
    assert await held(memory) == [FACTS[1]]
    assert await recalled(memory, "capital of France", 3) == []


async def test_many_tasks_may_use_one(memory):
    async with asyncio.TaskGroup() as group:
        for i in range(12):
            group.create_task(memory.add([item(f"fact{i} word{i}"), item("in common")]))
            group.create_task(memory.recall(f"fact{i}", 2))
    assert sorted(await held(memory)) == sorted([*(f"fact{i} word{i}" for i in range(12)), "in common"])


async def test_a_cancelled_add_is_done_or_not_begun(memory):
    for waits in range(8):
        task = asyncio.create_task(memory.add([item(f"left{waits} right{waits}")]))
        for _ in range(waits):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    before = len(await memory.items())
    assert await memory.add([item("the last")])
    assert len(await memory.items()) == before + 1
    assert await recalled(memory, "last", 1) == ["the last"]


async def test_nothing_is_kept_if_it_cannot_be_embedded(load):
    class Broken(WordVectors):
        async def embed(self, texts: Sequence[str], **_: object) -> None:
            raise BackendError("no embeddings today")

    memory = await load(Broken())
    with pytest.raises(BackendError, match="no embeddings"):
        await memory.add([item("red")])
    assert await memory.items() == []
    await memory.aclose()
    memory = await load()
    await memory.add([item("red")])
    await memory.aclose()
    with pytest.raises(BackendError, match="no embeddings"):
        await load(Broken())


@pytest.mark.parametrize("name", ["", "Facts", "../facts", "a/b", ".hidden", "con", "x" * 81, "café"])
async def test_names_are_checked(settings, name):
    with pytest.raises(UserError, match="is not a valid name of a memory") as told:
        await load_memory(name, settings)
    assert "a name is 1 to 80" in told.value.hint
    assert not settings.store.parent.exists()


async def test_one_that_is_not_there(settings, load):
    assert list_memories(settings) == []
    with pytest.raises(UnknownName, match="'facts'"):
        await load_memory("facts", settings, create=False)
    assert list_memories(settings) == []
    await load()
    with pytest.raises(UnknownName) as told:
        find_memory("fact", settings)
    assert told.value.nearest == ("facts",)


async def test_one_that_was_removed_meanwhile_says_so(settings, memory, load):
    await memory.add([item("red")])
    remove_memory(memory_path("facts", settings))
    assert list_memories(settings) == []
    with pytest.raises(StoreError, match="removed by another process"):
        await memory.add([item("green")])
    other = await load()
    assert await held(other) == []
    with pytest.raises(StoreError, match="removed by another process"):
        await memory.items()


async def test_a_folder_that_must_not_be_written(settings, load):
    home = settings.store.parent
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot use the directory") as told:
        await load()
    assert told.value.hint == "set --store"


async def test_the_summary(settings, memory):
    await memory.add([item(text) for text in FACTS])
    changed = max(one.created for one in await memory.items())
    await memory.aclose()
    place = find_memory("facts", settings)
    told = summarize_memory(place)
    assert (told.name, told.state, told.items, told.changed) == ("facts", "ready", 3, changed)
    assert told.size_bytes == os.stat(place).st_size


# -- damaged, other versions, other writers


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


@pytest.mark.parametrize("damage", ["garbage", "DROP TABLE items", "DROP TABLE state", "UPDATE items SET tokens = -1"])
async def test_a_damaged_file_is_told_with_the_remedy(settings, memory, load, damage):
    await memory.add([item(text) for text in FACTS])
    path = find_memory("facts", settings)
    if damage == "garbage":
        path.write_bytes(b"no database" * 500)
    else:
        change(path, damage)
    with pytest.raises(MemoryDamaged, match="memory 'facts' is damaged") as told:
        await load(WordVectors())
    assert "reason memory rm facts" in told.value.hint
    if "tokens" not in damage:  # which a look at one item shows
        assert summarize_memory(path).state == "damaged"
    remove_memory(path)
    assert not list(path.parent.iterdir())


async def test_another_version_is_refused(settings, load):
    await load()
    change(find_memory("facts", settings), "PRAGMA user_version = 3")
    with pytest.raises(StoreError, match="another version of reason"):
        await load()


async def test_a_file_that_another_writer_holds_is_told(settings, memory, monkeypatch):
    monkeypatch.setattr("reason.reasoning.memory.named_memory.BUSY_TIMEOUT_S", 0.05)
    await memory.add([item("red")])
    with contextlib.closing(sqlite3.connect(find_memory("facts", settings), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="being written by another process"):
            await memory.add([item("yellow")])
        assert len(await memory.items()) == 1  # reading goes on
        db.execute("ROLLBACK")
    assert (await memory.add([item("yellow")])) == (2,)
