"""The files of a named memory: damaged, stale, of another model, of another version; and what is made of each."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from reason.core.errors import StoreError, UserError
from reason.core.extras import install_command
from reason.core.settings import Settings
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory import named_memory
from reason.reasoning.memory.named_memory import NamedMemory, load_memory, store_index
from reason.reasoning.memory.storage import (
    MemoryDamaged,
    MemoryDatabase,
    MemoryState,
    find_memory,
    remove_memory,
    summarize_memory,
)
from reason.reasoning.retrieval.deduplication import text_hash
from reason.reasoning.retrieval.vector_index import FlatVectorIndex
from support.word_vectors import WordVectors

faiss = pytest.importorskip("faiss")

COLOURS = ("red", "green", "blue")


def item(text: str) -> MemoryItem:
    return MemoryItem(text=text, hash=text_hash(text))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=tmp_path / "runs.sqlite3")


@pytest.fixture
async def folder(settings: Settings) -> Path:
    """A memory of three colours, closed."""
    memory = await load_memory("facts", settings, WordVectors())
    await memory.add([item(colour) for colour in COLOURS])
    await memory.aclose()
    return settings.store.parent / "memory" / "facts"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many vectors were put into an index each time."""
    sizes: list[int] = []
    add = FlatVectorIndex.add

    def count(self: FlatVectorIndex, vectors: dict[int, object]) -> None:
        sizes.append(len(vectors))
        add(self, vectors)  # type: ignore[arg-type]

    monkeypatch.setattr(FlatVectorIndex, "add", count)
    return sizes


async def whole(memory: NamedMemory) -> bool:
    """Whether each item is found by its own text."""
    hits = [[hit.stored.item.text for hit in await memory.recall(colour, 1)] for colour in COLOURS]
    return hits == [[colour] for colour in COLOURS]


async def test_a_good_index_is_taken_as_it_is(settings: Settings, folder: Path, built: list[int]) -> None:
    before = (folder / "index.faiss").read_bytes(), (folder / "index.json").read_bytes()
    embedding = WordVectors()
    memory = await load_memory("facts", settings, embedding)
    assert await whole(memory)
    await memory.aclose()
    assert built == []
    assert embedding.asked == [[colour] for colour in COLOURS]  # what was looked for alone
    assert ((folder / "index.faiss").read_bytes(), (folder / "index.json").read_bytes()) == before


async def test_the_index_is_what_faiss_reads(folder: Path) -> None:
    index = faiss.read_index(str(folder / "index.faiss"))
    assert (index.ntotal, index.d) == (3, WordVectors().dimension)
    assert sorted(faiss.vector_to_array(index.id_map).tolist()) == [1, 2, 3]


def no_index(folder: Path) -> None:
    (folder / "index.faiss").unlink()


def no_stamp(folder: Path) -> None:
    (folder / "index.json").unlink()


def cut_index(folder: Path) -> None:
    path = folder / "index.faiss"
    path.write_bytes(path.read_bytes()[:-100])


def flipped_bit(folder: Path) -> None:
    path = folder / "index.faiss"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def garbage_index(folder: Path) -> None:
    (folder / "index.faiss").write_bytes(b"\xff" * 5000)


def garbage_under_its_own_sum(folder: Path) -> None:
    """Not chance but somebody's hand: the sum is right, the bytes are no index."""
    import hashlib

    (folder / "index.faiss").write_bytes(b"IxMp" + b"\x01" * 64)
    stamp = json.loads((folder / "index.json").read_text())
    stamp["sha256"] = hashlib.sha256((folder / "index.faiss").read_bytes()).hexdigest()
    (folder / "index.json").write_text(json.dumps(stamp))


def garbage_stamp(folder: Path) -> None:
    (folder / "index.json").write_text('{"state": 1')


def other_stamp(folder: Path) -> None:
    (folder / "index.json").write_text('{"version": 99}')


def a_folder_in_its_place(folder: Path) -> None:
    (folder / "index.faiss").unlink()
    (folder / "index.faiss").mkdir()


DAMAGE = [
    no_index,
    no_stamp,
    cut_index,
    flipped_bit,
    garbage_index,
    garbage_under_its_own_sum,
    garbage_stamp,
    other_stamp,
    a_folder_in_its_place,
]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_bad_index_is_made_anew_without_embedding(
    settings: Settings, folder: Path, built: list[int], damage: Callable[[Path], None]
) -> None:
    damage(folder)
    embedding = WordVectors()
    memory = await load_memory("facts", settings, embedding)
    assert built == [3]
    assert embedding.asked == []
    assert await whole(memory)
    await memory.aclose()
    if damage is not a_folder_in_its_place:  # and is there for the next
        memory = await load_memory("facts", settings, embedding)
        assert built == [3]
        await memory.aclose()


async def test_an_index_behind_the_rows_is_made_anew(settings: Settings, folder: Path, built: list[int]) -> None:
    old = folder.parent.parent / "old"
    shutil.copytree(folder, old)
    memory = await load_memory("facts", settings, WordVectors())
    await memory.add([item("yellow")])
    await memory.remove([1])  # as many rows as before
    await memory.aclose()
    for name in ("index.faiss", "index.json"):
        shutil.copy(old / name, folder / name)
    built.clear()
    memory = await load_memory("facts", settings, WordVectors())
    assert built == [3]
    assert [hit.stored.item.text for hit in await memory.recall("red yellow", 5)] == ["yellow"]
    await memory.aclose()


async def test_an_index_of_a_memory_that_went_another_way_is_made_anew(settings: Settings, folder: Path) -> None:
    """Two copies with as many rows and as many changes are told apart."""
    shutil.copytree(folder, folder.with_name("copy"))
    for name, text in (("facts", "yellow"), ("copy", "black")):
        memory = await load_memory(name, settings, WordVectors())
        await memory.add([item(text)])
        await memory.aclose()
    for name in ("index.faiss", "index.json"):
        shutil.copy(folder.with_name("copy") / name, folder / name)
    memory = await load_memory("facts", settings, WordVectors())
    assert [hit.stored.item.text for hit in await memory.recall("yellow", 5)] == ["yellow"]
    await memory.aclose()


async def test_another_embedding_model_has_vectors_of_its_own(settings: Settings, folder: Path) -> None:
    first, other = WordVectors(), WordVectors({"red": "scarlet"}, identity="words-2")
    memory = await load_memory("facts", settings, other)
    assert other.asked == [list(COLOURS)]
    assert [hit.stored.item.text for hit in await memory.recall("scarlet", 1)] == ["red"]
    await memory.add([item("yellow")])
    await memory.aclose()
    # back again: only what the first model has not seen is embedded
    memory = await load_memory("facts", settings, first)
    assert first.asked == [["yellow"]]
    assert await whole(memory)
    await memory.aclose()


async def test_a_vector_of_the_wrong_length_is_embedded_again(settings: Settings, folder: Path) -> None:
    with sqlite3.connect(folder / "items.sqlite3") as db:
        db.execute("UPDATE vectors SET vector = x'0011' WHERE item_id = 2")
    db.close()
    no_index(folder)
    embedding = WordVectors()
    memory = await load_memory("facts", settings, embedding)
    assert embedding.asked == [["green"]]
    assert await whole(memory)
    await memory.aclose()


async def test_an_index_that_cannot_be_written_stops_nothing(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(named_memory, "atomic_write", full)
        memory = await load_memory("facts", settings, WordVectors())
        assert (await memory.add([item("yellow")])).ids == (4,)
        assert [hit.stored.item.text for hit in await memory.recall("yellow", 1)] == ["yellow"]
        await memory.aclose()
    embedding = WordVectors()
    memory = await load_memory("facts", settings, embedding)
    assert embedding.asked == []
    assert [hit.stored.item.text for hit in await memory.recall("yellow", 1)] == ["yellow"]
    await memory.aclose()


async def test_an_older_state_does_not_overwrite_a_newer_index(settings: Settings, folder: Path) -> None:
    place = find_memory("facts", settings)
    before = (folder / "index.json").read_bytes()
    change = json.loads(before)["state"]["version"]
    older = FlatVectorIndex(WordVectors().dimension)
    store_index(older, place, MemoryState(version=change - 1, token="x", num_items=0), WordVectors().identity)
    assert (folder / "index.json").read_bytes() == before
    store_index(older, place, MemoryState(version=change + 1, token="y", num_items=0), WordVectors().identity)
    assert (folder / "index.json").read_bytes() != before


async def test_leftovers_of_a_crash_are_cleared(settings: Settings, folder: Path) -> None:
    (folder / ".partial-index.faiss-12345678").write_bytes(b"half")
    memory = await load_memory("facts", settings, WordVectors())
    await memory.add([item("yellow")])
    await memory.aclose()
    assert sorted(os.listdir(folder)) == ["index.faiss", "index.json", "items.sqlite3"]


async def test_without_faiss_the_remedy_is_told(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match="'faiss'") as told:
        await load_memory("facts", settings, WordVectors())
    assert told.value.hint == install_command("local")
    memory = await load_memory("facts", settings)  # words need none
    assert len(await memory.items()) == 3
    await memory.aclose()


# -- the rows themselves


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all, but long enough to look at" * 100)


def broken_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def without_items(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE items")
    db.close()


def without_state(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM meta WHERE key = 'token'")
    db.close()


def without_sense(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE items SET tokens = -1")
    db.close()


@pytest.mark.parametrize("damage", [garbage, broken_pages, without_items, without_state, without_sense])
async def test_damaged_rows_are_told_with_the_remedy(
    settings: Settings, folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "items.sqlite3")
    with pytest.raises(MemoryDamaged, match="memory 'facts' is damaged") as told:
        await load_memory("facts", settings, WordVectors())
    assert "reason memory rm facts" in told.value.hint
    place = find_memory("facts", settings)
    if damage is not without_sense:  # which a look at one item shows
        assert summarize_memory(place).state == "damaged"
    remove_memory(place)
    assert "facts" not in os.listdir(folder.parent)


async def test_a_newer_version_is_refused(settings: Settings, folder: Path) -> None:
    with sqlite3.connect(folder / "items.sqlite3") as db:
        db.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
    db.close()
    with pytest.raises(StoreError, match="newer version of reason"):
        await load_memory("facts", settings)


async def test_an_empty_file_becomes_an_empty_memory(settings: Settings, folder: Path) -> None:
    (folder / "items.sqlite3").write_bytes(b"")
    memory = await load_memory("facts", settings, WordVectors())
    assert await memory.items() == []
    await memory.aclose()


async def test_rows_that_another_writer_holds_are_told(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reason.reasoning.memory.storage.BUSY_TIMEOUT_S", 0.05)
    memory = await load_memory("facts", settings, WordVectors())
    db = sqlite3.connect(folder / "items.sqlite3", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="being written by another process"):
        await memory.add([item("yellow")])
    assert len(await memory.items()) == 3  # reading goes on
    db.execute("ROLLBACK")
    db.close()
    assert (await memory.add([item("yellow")])).ids == (4,)
    await memory.aclose()


def test_a_folder_that_is_held_is_told(settings: Settings, folder: Path) -> None:
    place = find_memory("facts", settings)
    with (
        FileLock(folder.parent / ".locks" / "facts.lock"),
        pytest.raises(StoreError, match="locked by another process"),
        place.locked(timeout_s=0),
    ):
        pytest.fail("it is held")


def test_rows_of_another_state_are_not_added_to(settings: Settings, folder: Path) -> None:
    rows = MemoryDatabase(find_memory("facts", settings))
    head = rows.state()
    assert rows.add(head, [(item("x"), None)], run_id="", question="", embedding="", max_items=9) == ([4], [])
    assert rows.add(head, [(item("y"), None)], run_id="", question="", embedding="", max_items=9) is None
    assert rows.state().num_items == 4
    assert rows.state().version == head.version + 1
    rows.close()
    with pytest.raises(StoreError, match="closed"):
        rows.state()
