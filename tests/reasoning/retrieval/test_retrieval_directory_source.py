"""A folder as a knowledge: what it reads, skips, tells, finds and cites; caching, cancellation and hostile folders."""

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from reason.core.errors import BackendError, DataError, UserError
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.embedding_cache import EmbeddingCache
from reason.reasoning.retrieval.readers import read_directory
from reason.reasoning.retrieval.sources.client import KnowledgeClient
from reason.reasoning.retrieval.sources.directory import DirectoryOptions, DirectorySource
from support.knowledge_sources import WordEmbedding

pytest.importorskip("numpy")
pytest.importorskip("bm25s")

GUIDE = "# Guide\n\nThe lunar lander has four thin legs.\n\n## Sun\n\nThe Sun is a star. It is hot.\n"


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "more").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE)
    (folder / "more" / "facts.jsonl").write_text('{"text": "Mars is red."}\n{"text": "Venus is hot and cloudy."}\n')
    (folder / "plain.txt").write_text("A moon orbits a planet.")
    return folder


async def test_it_finds_by_words_and_cites_the_characters(docs):
    knowledge = await DirectorySource.load(docs)
    assert isinstance(knowledge, KnowledgeSource)
    assert (knowledge.kind, knowledge.name, knowledge.num_files, len(knowledge), knowledge.notes) == (
        "directory",
        str(docs),
        3,
        5,
        (),
    )
    found = await knowledge.query("What is the Sun?", 2)
    assert found[0].text == "Guide > Sun\nThe Sun is a star. It is hot."
    source, _, place = found[0].source_id.partition(":")
    start, end = map(int, place.split("-"))
    assert source == "docs/guide.md"
    assert GUIDE[start:end] == "The Sun is a star. It is hot."
    (mars,) = await knowledge.query("Mars", 3)
    assert (mars.text, mars.source_id) == ("Mars is red.", "docs/more/facts.jsonl#1:0-12")
    assert await knowledge.query("xylophone", 3) == await knowledge.query("", 3) == []
    await knowledge.aclose()


async def test_embeddings_find_what_shares_no_word_and_both_rankings_are_fused(docs):
    embedding = WordEmbedding({"moon": "luna", "lunar": "luna"})
    knowledge = await DirectorySource.load(docs, embedding=embedding)
    texts = [s.text for s in await knowledge.query("Moon", 5)]
    assert texts[0] == "A moon orbits a planet."  # first in both
    assert texts[1] == "Guide\nThe lunar lander has four thin legs."  # by meaning alone
    assert len(texts) == 5
    scores = [s.score for s in await knowledge.query("moon", 5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(2 / 61)
    kinds = {kind for _, kind in embedding.embedded}
    assert kinds == {"query", "document"}
    assert not embedding.closed
    await knowledge.aclose()
    assert not embedding.closed
    owned = await DirectorySource.load(docs, embedding=embedding, owned=True)
    await owned.aclose()
    assert embedding.closed


async def test_the_identity_follows_content_names_options_and_models(docs):
    async def identity(**how):
        return (await DirectorySource.load(docs, **how)).identity

    first = await identity()
    assert await identity(name="other") == first
    different = [
        await identity(options=DirectoryOptions(words=50)),
        await identity(embedding=WordEmbedding()),
        await identity(embedding=WordEmbedding(name="other")),
    ]
    (docs / "plain.txt").write_text("A moon orbits a planet!")
    different.append(await identity())
    (docs / "plain.txt").rename(docs / "renamed.txt")
    different.append(await identity())
    assert len({first, *different}) == 6


async def test_vectors_are_embedded_once_for_all_time(docs, tmp_path):
    cache = EmbeddingCache(tmp_path / "home" / "vectors.sqlite3")
    first, second = WordEmbedding(), WordEmbedding()
    one = await DirectorySource.load(docs, embedding=first, cache=cache)
    (docs / "plain.txt").write_text("Something new.")
    two = await DirectorySource.load(docs, embedding=second, cache=EmbeddingCache(cache.path))
    assert [len(first.embedded), second.embedded] == [5, [("Something new.", "document")]]
    assert [s.text for s in await two.query("star", 1)] == [s.text for s in await one.query("star", 1)]
    other = WordEmbedding(name="other")
    await DirectorySource.load(docs, embedding=other, cache=cache)
    assert len(other.embedded) == 5


async def test_progress_is_told(docs):
    told = []
    await DirectorySource.load(docs, embedding=WordEmbedding(), progress=lambda *at: told.append(at))
    assert told == [*(("reading", i, 3) for i in (1, 2, 3)), ("embedding", 5, 5)]


async def test_a_run_is_charged_for_its_queries(docs, runs):
    knowledge = await DirectorySource.load(docs, embedding=WordEmbedding())
    run = await runs.run()
    (found,) = await KnowledgeClient([knowledge], run).query(["the Sun"], 1)
    assert found[0].source_kind == "directory"
    assert run.ledger.usage().by_role["embedding:words"].prompt_tokens == 2
    # by words alone there is nothing to pay
    plain = await DirectorySource.load(docs)
    assert plain.metered(run, 1.0) is plain


async def test_opening_can_be_cancelled_while_it_reads_and_while_it_embeds(docs):
    reading, go_on = threading.Event(), threading.Event()

    def hold(*_):
        reading.set()
        go_on.wait(30)

    task = asyncio.create_task(DirectorySource.load(docs, progress=hold))
    await asyncio.to_thread(reading.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    begun = asyncio.Event()

    async def never():
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(DirectorySource.load(docs, embedding=WordEmbedding(step=never)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failing_embedding_model_is_an_error_of_its_own(docs):
    with pytest.raises(BackendError, match="gone"):
        await DirectorySource.load(docs, embedding=WordEmbedding(failing=True))


# -- hostile folders


def left_out(contents):
    return {note.path: note.reason for note in contents.notes if note.skipped}


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text("a file")])
async def test_what_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(DataError, match="is not a directory"):
        await DirectorySource.load(tmp_path / "x")


async def test_a_folder_without_text_is_refused_and_says_what_was_left_out(tmp_path):
    with pytest.raises(DataError, match="no text in the directory"):
        await DirectorySource.load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"2 files were skipped.*a\.png.*binary"):
        await DirectorySource.load(tmp_path)


def test_hidden_files_and_those_of_programs_are_not_looked_at(docs):
    for name in (".git", "node_modules", "__pycache__", ".hidden"):
        (docs / name).mkdir()
        (docs / name / "a.txt").write_text("no")
    (docs / ".env").write_text("SECRET=1")
    contents = read_directory(docs)
    assert [source for source, _ in contents.files] == ["docs/guide.md", "docs/more/facts.jsonl", "docs/plain.txt"]
    assert contents.notes == []


def test_links_are_followed_to_files_within_the_folder_alone(docs, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the password")
    (docs / "loop").symlink_to(docs)
    (docs / "more" / "up").symlink_to("..")
    (docs / "self").symlink_to("self")
    (docs / "gone").symlink_to("nowhere")
    (docs / "out.txt").symlink_to(secret)
    (docs / "in.txt").symlink_to("plain.txt")
    contents = read_directory(docs)
    assert len(contents.files) == 4
    out = left_out(contents)
    assert out.pop("docs/gone").startswith("cannot be read")
    assert "circular" in out["docs/self"] or "cannot be read" in out["docs/self"]
    del out["docs/self"]
    assert out == {
        "docs/loop": "a link to a directory",
        "docs/more/up": "a link to a directory",
        "docs/out.txt": "a link out of the directory",
    }


def test_a_folder_may_be_a_link_itself(docs, tmp_path):
    (tmp_path / "link").symlink_to(docs)
    assert len(read_directory(tmp_path / "link").files) == 3


def test_binary_huge_broken_and_odd_files_are_left_out_or_told(docs):
    (docs / "data.bin").write_bytes(b"\0\1\2")
    (docs / "disguised.txt").write_bytes(b"PK\3\4\0\0")
    with (docs / "huge.txt").open("wb") as file:
        file.truncate(50 << 20)
    (docs / "latin.txt").write_bytes(b"caf\xe9")
    os.mkfifo(docs / "pipe.txt")
    contents = read_directory(docs)
    assert left_out(contents) == {
        "docs/data.bin": "a binary file",
        "docs/disguised.txt": "a binary file",
        "docs/huge.txt": "larger than 10 MiB",
        "docs/pipe.txt": "not a regular file",
    }
    assert [n.path for n in contents.notes if not n.skipped] == ["docs/latin.txt"]
    assert dict(contents.files)["docs/latin.txt"][0].text == "café"


def test_unreadable_files_and_folders_are_told(docs, monkeypatch):
    (docs / "locked.txt").write_text("x")
    (docs / "shut").mkdir()
    real_open, real_scan = os.open, os.scandir

    def refuse(real, name):
        def call(path, *rest):
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied")
            return real(path, *rest)

        return call

    monkeypatch.setattr(os, "open", refuse(real_open, "locked.txt"))
    monkeypatch.setattr(os, "scandir", refuse(real_scan, "shut"))
    contents = read_directory(docs)
    assert left_out(contents) == dict.fromkeys(("docs/shut/", "docs/locked.txt"), "cannot be read: Permission denied")
    assert len(contents.files) == 3


def test_names_that_are_no_text_are_shown_as_far_as_they_are(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("un café")
    except OSError:
        pytest.skip("this file system takes no such name")
    ((source, _),) = read_directory(tmp_path).files
    assert source == f"{tmp_path.name}/caf\ufffd.txt"


def test_bounds_of_files_and_bytes(docs):
    few = read_directory(docs, max_files=1)
    assert [source for source, _ in few.files] == ["docs/guide.md"]
    assert left_out(few) == {"docs/more/facts.jsonl": "this file and all after it: more than 1 files"}
    small = read_directory(docs, max_bytes=len(GUIDE) + 30)
    assert [source for source, _ in small.files] == ["docs/guide.md", "docs/plain.txt"]
    assert left_out(small) == {"docs/more/facts.jsonl": "the limit on the bytes of the directory is reached"}
    assert left_out(read_directory(docs, max_file_bytes=30)).keys() == {"docs/guide.md", "docs/more/facts.jsonl"}


async def test_too_many_chunks_are_refused(docs):
    with pytest.raises(UserError, match="more than 2 chunks"):
        await DirectorySource.load(docs, options=DirectoryOptions(max_chunks=2))


# -- the cache of vectors


def vectors(*rows):
    import numpy as np

    return {f"t{i}": np.array(row, dtype=np.float32) for i, row in enumerate(rows)}


async def test_the_cache_gives_back_the_same_bits_by_model_and_text(tmp_path):
    cache = EmbeddingCache(tmp_path / "v.sqlite3")
    kept = vectors([0.1, -2.5], [1e-30, 3.0])
    await cache.put("m", kept)
    found = await cache.get("m", 2, ["t1", "t0", "t9"])
    assert {t: v.tobytes() for t, v in found.items()} == {t: v.tobytes() for t, v in kept.items()}
    assert await cache.get("other", 2, ["t0"]) == await cache.get("m", 3, ["t0"]) == await cache.get("m", 2, []) == {}
    many = [f"t{i}" for i in range(2000)]
    assert set(await cache.get("m", 2, many)) == {"t0", "t1"}


async def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = EmbeddingCache(tmp_path / "v.sqlite3", max_bytes=24)
    for i in range(3):
        await cache.put("m", {f"t{i}": vectors([i, i])["t0"]})
    await cache.get("m", 2, ["t0"])
    await cache.put("m", {"t3": vectors([3, 3])["t0"]})
    assert sorted(await cache.get("m", 2, ["t0", "t1", "t2", "t3"])) == ["t0", "t3"]


async def test_a_damaged_cache_is_begun_anew_and_one_that_cannot_be_is_none(tmp_path):
    path = tmp_path / "v.sqlite3"
    path.write_bytes(b"this is no database" * 500)
    cache = EmbeddingCache(path)
    assert await cache.get("m", 2, ["t0"]) == {}
    await cache.put("m", vectors([1, 2]))
    assert set(await cache.get("m", 2, ["t0"])) == {"t0"}
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = x'00'")
    assert await cache.get("m", 2, ["t0"]) == {}
    (tmp_path / "file").touch()
    nowhere = EmbeddingCache(tmp_path / "file" / "v.sqlite3")
    await nowhere.put("m", vectors([1, 2]))
    assert await nowhere.get("m", 2, ["t0"]) == {}


# -- the real embedding model


async def test_with_the_real_embedding_model(docs):
    from reason.core.errors import BackendUnavailable
    from reason.core.settings import load_settings
    from reason.serving.encoders.factory import load_embedding_model

    pytest.importorskip("sentence_transformers")
    try:
        embedding = await load_embedding_model(None, load_settings())
    except BackendUnavailable as e:
        pytest.skip(f"the embedding model cannot be had: {e}")
    knowledge = await DirectorySource.load(docs, embedding=embedding, owned=True)
    try:
        (first, *_) = await knowledge.query("landing gear of spacecraft", 3)
        assert "lunar lander" in first.text
    finally:
        await knowledge.aclose()
