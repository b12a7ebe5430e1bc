"""A saved index: equal to search in memory, resumable, incremental, locked, and clear about what is wrong with it."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from reason.core.errors import BackendError, DataError, ReasonError, StoreError, UserError
from reason.reasoning.knowledge import Passage, Retriever
from reason.reasoning.retrieval import vector_index
from reason.reasoning.retrieval.index import builder
from reason.reasoning.retrieval.index.builder import build_index, index_progress
from reason.reasoning.retrieval.index.database import PassageDatabase, index_errors
from reason.reasoning.retrieval.index.saved_index import load_index, published_manifest, summarize_index
from reason.reasoning.retrieval.passages import read_passages
from reason.reasoning.retrieval.retriever import HybridRetriever
from support.word_vectors import WordVectors

pytest.importorskip("faiss")
pytest.importorskip("bm25s")

SUBJECTS = ("moon", "sun", "mars", "river", "tower", "piano", "garden", "engine", "island", "library")
VERBS = ("circles", "warms", "carries", "plays", "guards", "drives")
DIMENSION = 64


class Counted(WordVectors):
    """Fails when it has embedded enough; knows what it was asked for as documents."""

    def __init__(self, *, name: str = "test/words", fails_after: int | None = None, **how: Any) -> None:
        super().__init__(**{"dimension": DIMENSION, **how})
        self.name = name
        self.fails_after = fails_after
        self.documents: list[str] = []
        self.closed = False

    async def embed(self, texts: Sequence[str], *, kind: Any = "text", unit: bool = True, charged: Any = None) -> Any:
        if kind == "document":
            if self.fails_after is not None and len(self.documents) + len(texts) > self.fails_after:
                raise BackendError("the embedding model broke down")
            self.documents += texts
        return await super().embed(texts, kind=kind, unit=unit, charged=charged)

    async def aclose(self) -> None:
        self.closed = True


def write_rows(path: Path, first: int, count: int) -> None:
    rows = []
    for i in range(first, first + count):
        text = f"The {SUBJECTS[i % 10]} {VERBS[i % 6]} the {SUBJECTS[(i // 10) % 10]} number{i}."
        rows.append({"id": f"p{i}", "page": f"{SUBJECTS[i % 10]} {i % 7}", "text": text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CLAIMS = ["The sun warms the moon.", "number7 guards", "The piano plays number141", "nothing of it", "the"]


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(builder, "EMBEDDING_BATCH", 16)
    folder = tmp_path / "docs"
    folder.mkdir()
    write_rows(folder / "rows.jsonl", 0, 150)
    (folder / "note.md").write_text("# Whales\n\nA whale is a mammal. It breathes air.\n")
    return folder


class Index:
    """An index of the fixture's documents, and what it answers to the claims: (id, text, score) of each passage."""

    def __init__(self, path: Path, documents: Path) -> None:
        self.path, self.documents = path, documents

    async def build(self, model: Any = None, *others: Path, **how: Any) -> Any:
        """Build it of the documents, or of `others`."""
        return await build_index(self.path, list(others) or [self.documents], model, **how)

    async def asked(self, model: Any = None, k: int = 5) -> list[list[tuple[str, str, float]]]:
        async def opener(_name: str | None) -> Any:
            return model

        retriever = await load_index(self.path, None if model is None else opener, owned=False)
        assert isinstance(retriever, Retriever)
        return await answers_of(retriever, k)

    async def in_memory(self, model: Any = None, *others: Path, k: int = 5) -> list[list[tuple[str, str, float]]]:
        passages = read_passages(list(others) or [self.documents]).passages
        return await answers_of(await HybridRetriever.build(passages, model), k)

    async def check(self, model: Any = None, *others: Path) -> None:
        """It answers as search in memory does."""
        assert await self.asked(model) == await self.in_memory(model, *others)


async def answers_of(retriever: Retriever, k: int) -> list[list[tuple[str, str, float]]]:
    return [[(p.id, p.text, p.score) for p in found] for found in await retriever.retrieve(CLAIMS, k)]


@pytest.fixture
def index(documents: Path, tmp_path: Path) -> Index:
    return Index(tmp_path / "i", documents)


@pytest.mark.parametrize("vectors", [True, False])
async def test_it_answers_as_search_in_memory_does(index, vectors):
    model = Counted() if vectors else None
    told = []
    built = await index.build(model, progress=lambda stage, done, total: told.append(stage))
    assert (built.manifest.num_passages, built.manifest.num_documents) == (151, 2)
    assert built.changes.new == ["docs/note.md", "docs/rows.jsonl"]
    await index.check(model)
    stages = ["reading", *(["embedding"] if vectors else []), "indexing words"]
    assert list(dict.fromkeys(told)) == [*stages, *(["indexing vectors"] if vectors else [])]


async def test_the_approximate_index_finds_the_nearest(index, documents, monkeypatch):
    monkeypatch.setattr(vector_index, "MAX_EXACT", 100)
    monkeypatch.setattr(vector_index, "_SAMPLES_PER_LIST", 6)
    trained = []
    faiss = vector_index.load_faiss()
    train = faiss.IndexIVFScalarQuantizer.train
    monkeypatch.setattr(
        faiss.IndexIVFScalarQuantizer, "train", lambda self, x: (trained.append(len(x)), train(self, x))
    )
    model = Counted()

    async def check(num_lists: int) -> None:
        files = index.path / published_manifest(index.path).files
        searched = vector_index.VectorIndex.load(files / "vectors.faiss")
        assert searched.num_lists == num_lists
        positions = np.load(files / "positions.npy").tolist()
        with closing(PassageDatabase(index.path / "passages.sqlite3")) as database:
            vectors = database.vectors(np.array(positions), DIMENSION)
        queries = await model.embed(CLAIMS[:3])
        for found, exact in zip(searched.search(queries, 10), queries @ vectors.T, strict=True):
            kept = sorted(exact)[-10:][::-1]
            assert [exact[positions.index(place)] for place in found] == pytest.approx(kept, abs=2e-3)

    await index.build(model)
    await check(25)
    assert trained == [150]
    # a change removes and adds vectors, and trains nothing
    write_rows(documents / "rows.jsonl", 5, 150)
    await index.build(model)
    await check(25)
    assert trained == [150]
    write_rows(documents / "more.jsonl", 500, 600)
    await index.build(model)
    await check(55)
    assert len(trained) == 2


async def test_an_index_of_another_version_is_refused(index):
    index.path.mkdir()
    (index.path / "config.json").write_text('{"chunking": {"words": 100, "overlap": 20}, "embedding": null}')
    (index.path / "passages.sqlite3").touch()
    with pytest.raises(DataError, match="not part of an index of this version"):
        await index.build()


async def test_a_build_that_broke_down_goes_on(index):
    broken = Counted(fails_after=100)
    with pytest.raises(BackendError, match="broke down"):
        await index.build(broken)
    saved = index_progress(index.path)
    assert saved.num_passages == 151
    assert 80 <= saved.num_embedded <= 100
    with pytest.raises(DataError, match="is unfinished") as caught:
        await index.asked()
    assert "to continue" in caught.value.hint
    assert summarize_index(index.path).state == "unfinished"
    model = Counted()
    await index.build(model)
    assert len(model.documents) == 151 - saved.num_embedded
    assert not set(model.documents) & set(broken.documents)
    await index.check(model)


async def test_a_cancelled_build_goes_on_and_gives_the_folder_back(index):
    reached = asyncio.Event()
    model = Counted()

    def told(stage: str, done: int, total: int | None) -> None:
        if stage == "embedding" and done >= 64:
            reached.set()

    task = asyncio.create_task(index.build(model, progress=told))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(model.documents)
    assert before < 151
    await index.build(model)  # nothing is locked
    assert len(model.documents) <= 151 + 16
    await index.check(model)


async def test_additions_embed_what_is_new_alone(index, documents):
    model = Counted()
    first = await index.build(model)
    again = await index.build(model)
    assert (again.changes.new, again.changes.changed, again.changes.unchanged) == ([], [], 2)
    assert again.manifest.digest == first.manifest.digest
    assert len(model.documents) == 151
    # one row of a file is another, one is new
    rows = (documents / "rows.jsonl").read_text().splitlines()
    rows[3] = json.dumps({"id": "p3", "page": "Mars", "text": "Mars was repainted green."})
    rows.append(json.dumps({"id": "p150", "page": "Comet", "text": "A comet has a tail."}))
    (documents / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (documents / "new.txt").write_text("A new file has come.")
    added = await index.build(model)
    assert (added.changes.new, added.changes.changed) == (["docs/new.txt"], ["docs/rows.jsonl"])
    assert sorted(model.documents[151:]) == [
        "Comet\nA comet has a tail.",
        "Mars\nMars was repainted green.",
        "new.txt\nA new file has come.",
    ]
    assert added.manifest.num_passages == 153
    expected = await index.in_memory(model, k=8)
    found = await index.asked(model, k=8)
    assert [sorted(p[0] for p in one) for one in found[1:4]] == [sorted(p[0] for p in one) for one in expected[1:4]]


async def test_documents_that_are_gone_or_not_named_are_removed(index, documents, tmp_path):
    model = Counted()
    await index.build(model)
    (documents / "note.md").unlink()
    updated = await index.build(model)
    assert (updated.changes.removed, updated.manifest.num_documents) == (["docs/note.md"], 1)
    await index.check(model)
    (tmp_path / "other.txt").write_text("Other words.")
    rebuilt = await index.build(model, tmp_path / "other.txt")
    assert rebuilt.changes.removed == ["docs/rows.jsonl"]
    assert rebuilt.manifest.num_passages == index_progress(index.path).num_passages == 1
    # positions are not used twice, though the last ones are free
    write_rows(documents / "rows.jsonl", 0, 5)
    both = [tmp_path / "other.txt", documents]
    await index.build(model, *both)
    await index.check(model, *both)


async def test_an_open_index_answers_as_before_while_it_is_changed(index, documents):
    model = Counted()
    await index.build(model)
    before = await index.asked(model)
    write_rows(documents / "rows.jsonl", 40, 30)
    with pytest.raises(BackendError):
        (documents / "new.txt").write_text("A new file has come that must be embedded.")
        await index.build(Counted(fails_after=0))
    assert await index.asked(model) == before
    assert summarize_index(index.path).state == "outdated"
    await index.build(model)
    assert await index.asked(model) != before
    assert summarize_index(index.path).state == "ready"


async def test_other_models_are_refused_with_both_names(index, documents, tmp_path):
    await index.build(Counted())
    await build_index(tmp_path / "plain", [documents], None)
    other = Counted(name="test/other", identity="other-1")
    with pytest.raises(DataError, match="made with test/words, not with test/other") as caught:
        await index.build(other)
    assert "use the model test/words" in caught.value.hint
    with pytest.raises(DataError, match="another version of test/words"):
        await index.build(Counted(identity="bm25-2"))
    with pytest.raises(DataError, match="has vectors of test/words, but no embedding model"):
        await index.build()
    with pytest.raises(DataError, match="has no vectors, but the embedding model test/words"):
        await build_index(tmp_path / "plain", [documents], Counted())

    async def opener(_name: str | None) -> Any:
        return other

    with pytest.raises(DataError, match="made with test/words, not with test/other"):
        await load_index(index.path, opener)
    assert other.closed


async def test_without_a_model_an_index_is_searched_by_words(index):
    await index.build(Counted())
    retriever = await load_index(index.path, None)
    assert retriever.degraded == ("passages are searched by words only: no embedding model was given",)
    await index.check()


async def test_two_builds_do_not_collide(index):
    index.path.mkdir()
    lock = FileLock(index.path / ".lock", thread_local=False)
    with lock, pytest.raises(UserError, match="another process is building"):
        await index.build()
    await index.build()


async def test_a_full_disk_is_one_clear_error(index, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(builder, "_write_files", full)
        with pytest.raises(StoreError, match="the disk of .* is full; what was saved is kept"):
            await index.build(Counted())
    with pytest.raises(StoreError, match="is full"), index_errors(tmp_path):
        _fill_a_database(tmp_path / "small.sqlite3")
    await index.build(Counted())


def _fill_a_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA max_page_count = 3")
    db.execute("CREATE TABLE t (x BLOB)")
    db.execute("INSERT INTO t VALUES (?)", (b"x" * 100_000,))


async def test_folders_that_are_no_index(index, documents, tmp_path):
    with pytest.raises(UserError, match="holds something else"):
        await build_index(documents, [documents], None)
    with pytest.raises(UserError, match="is not a directory"):
        await build_index(documents / "note.md", [documents], None)
    with pytest.raises(DataError, match="there is no index in"):
        await load_index(tmp_path / "none", None)
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no text in"):
        await index.build(None, tmp_path / "empty")
    # nothing was read into it, so another model may begin it anew
    assert (await index.build(Counted())).manifest.num_passages == 151


@pytest.mark.parametrize("what", ["index.json", "config.json", "passages.sqlite3", "index-*"])
async def test_damage_is_an_error_that_names_it(index, what):
    model = Counted()
    await index.build(model)
    [file] = index.path.glob(what)
    for path in [file] if file.is_file() else list(file.iterdir()):
        path.write_bytes(b"damaged")
    with pytest.raises(ReasonError, match="damaged|missing"):
        await index.asked(model)
        summarize_index(index.path)


async def test_a_broken_file_of_a_folder_is_skipped_and_a_named_one_is_an_error(index, documents):
    (documents / "bad.jsonl").write_text('{"text": "fine"}\n{"no": 1}\n')
    built = await index.build()
    assert built.manifest.num_passages == 151
    assert ["line 2 is no passage: text: Field required" in note.reason for note in built.changes.notes] == [True]
    with pytest.raises(DataError, match="line 2 is no passage"):
        await index.build(None, documents / "bad.jsonl")
    assert len(await index.asked()) == len(CLAIMS)


async def test_texts_without_words(index, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "!!!"}\n{"text": "…"}\n')
    await index.build(None, tmp_path / "d.jsonl")
    assert await index.asked() == [[] for _ in CLAIMS]


def test_adding_a_document_reads_no_other_documents(tmp_path):
    database = PassageDatabase(tmp_path / "passages.sqlite3", write=True)
    passages = [Passage(id=f"p{i}", source="s", title="", text="the same text") for i in range(3)]
    database.add_document("/a", "s", "0", passages)
    statements = []
    database._db.set_trace_callback(statements.append)
    assert database.document("/b") is None
    assert database.unique_source("/b", "s") == "/b"
    database.add_document("/b", "/b", "1", passages[:1])
    database._db.set_trace_callback(None)
    for sql in (s for s in statements if s.startswith(("SELECT", "UPDATE", "DELETE"))):
        plan = [row[3] for row in database._db.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert not [line for line in plan if line.startswith("SCAN") or "TEMP B-TREE" in line], (sql, plan)
    database.close()
