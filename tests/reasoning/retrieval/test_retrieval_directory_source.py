"""A folder as a knowledge: what it reads, skips, tells, finds and cites; caching, cancellation and hostile folders."""

import os
import sqlite3
from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.settings import Settings
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.embedding_cache import EmbeddingCache
from reason.reasoning.retrieval.index.builder import build_index
from reason.reasoning.retrieval.passages import read_passages
from reason.reasoning.retrieval.sources.client import KnowledgeClient
from reason.reasoning.retrieval.sources.factory import create_knowledge_source
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


@pytest.fixture
def load(docs, tmp_path):
    settings = Settings(store=tmp_path / "home" / "runs.sqlite3", cache_dir=tmp_path / "cache")

    async def load(embedding=None, path=docs, **how):
        async def opener(_name):
            if embedding is None:
                raise BackendUnavailable("no weights")
            return embedding

        return await create_knowledge_source(path, settings, load_embedding=opener, **how)

    return load


async def test_it_finds_by_words_and_cites_the_characters(load, docs):
    knowledge = await load()
    assert isinstance(knowledge, KnowledgeSource)
    assert (knowledge.kind, knowledge.name) == ("directory", str(docs))
    assert knowledge.degraded == ("passages are retrieved by their words only: backend_unavailable",)
    found = await knowledge.query("What is the Sun?", 2)
    assert found[0].text == "Guide > Sun\nThe Sun is a star. It is hot."
    source, _, place = found[0].source_id.partition(":")
    start, end = map(int, place.split("-"))
    assert source == "docs/guide.md"
    assert GUIDE[start:end] == "The Sun is a star. It is hot."
    (mars,) = await knowledge.query("Mars", 3)
    assert (mars.text, mars.source_id) == ("Mars is red.", "docs/more/facts.jsonl#1")
    assert await knowledge.query("xylophone", 3) == await knowledge.query("", 3) == []
    await knowledge.aclose()


async def test_embeddings_find_what_shares_no_word_and_both_rankings_are_fused(load):
    embedding = WordEmbedding({"moon": "luna", "lunar": "luna"})
    knowledge = await load(embedding)
    texts = [s.text for s in await knowledge.query("Moon", 5)]
    assert texts[0] == "A moon orbits a planet."  # first in both, without the name of its file
    assert texts[1] == "Guide\nThe lunar lander has four thin legs."  # by meaning alone
    assert len(texts) == 5
    scores = [s.score for s in await knowledge.query("moon", 5)]
    assert scores == sorted(scores, reverse=True)
    assert 1 / 61 < scores[0] <= 2 / 61
    assert {kind for _, kind in embedding.embedded} == {"query", "document"}
    await knowledge.aclose()
    assert not embedding.closed


async def test_the_identity_follows_content_names_and_models(load, docs):
    async def identity(*embedding):
        return (await load(*embedding)).identity

    first = await identity()
    assert await identity() == first
    different = [await identity(WordEmbedding()), await identity(WordEmbedding(name="other"))]
    (docs / "plain.txt").write_text("A moon orbits a planet!")
    different.append(await identity())
    (docs / "plain.txt").rename(docs / "renamed.txt")
    different.append(await identity())
    assert len({first, *different}) == 5


async def test_vectors_are_embedded_once_for_all_time(load, docs):
    first, second = WordEmbedding(), WordEmbedding()
    one = await load(first)
    (docs / "plain.txt").write_text("Something new.")
    two = await load(second)
    assert [len(first.embedded), second.embedded] == [5, [("plain.txt\nSomething new.", "document")]]
    assert [s.text for s in await two.query("star", 1)] == [s.text for s in await one.query("star", 1)]
    other = WordEmbedding(name="other")
    await load(other)
    assert len(other.embedded) == 5


async def test_a_saved_index_is_a_directory_too(load, docs, tmp_path):
    await build_index(tmp_path / "index", [docs], WordEmbedding())
    embedding = WordEmbedding()
    knowledge = await load(embedding, tmp_path / "index")
    (found,) = await knowledge.query("Mars", 1)
    assert (found.text, found.source_id) == ("Mars is red.", "docs/more/facts.jsonl#1")
    assert {kind for _, kind in embedding.embedded} == {"query"}


async def test_a_document_may_be_named_like_a_file_of_an_index(load, docs):
    (docs / "index.json").write_text('["Venus is hot."]')
    (found,) = await (await load(None)).query("Venus", 1)
    assert found.text == "Venus is hot."


async def test_a_run_is_charged_for_its_queries(load, runs):
    knowledge = await load(WordEmbedding())
    run = await runs.run()
    (found,) = await KnowledgeClient([knowledge], run).query(["the Sun"], 1)
    assert found[0].source_kind == "directory"
    assert run.ledger.usage().by_role["embedding:words"].prompt_tokens == 2
    # by words alone there is nothing to pay
    plain = await load()
    assert plain.metered(run) is plain


# -- hostile folders


def read(path):
    collection = read_passages([path])
    return sorted({p.source for p in collection.passages}), {n.path: n.reason for n in collection.notes if n.skipped}


PLAIN = ["docs/guide.md", "docs/more/facts.jsonl#1", "docs/more/facts.jsonl#2", "docs/plain.txt"]


def test_hidden_files_and_those_of_programs_are_not_looked_at(docs):
    for name in (".git", "node_modules", "__pycache__", ".hidden"):
        (docs / name).mkdir()
        (docs / name / "a.txt").write_text("no")
    (docs / ".env").write_text("SECRET=1")
    assert read(docs) == (PLAIN, {})


def test_links_are_followed_to_files_within_the_folder_alone(docs, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the password")
    (docs / "loop").symlink_to(docs)
    (docs / "more" / "up").symlink_to("..")
    (docs / "self").symlink_to("self")
    (docs / "gone").symlink_to("nowhere")
    (docs / "out.txt").symlink_to(secret)
    (docs / "in.txt").symlink_to("plain.txt")
    files, out = read(docs)
    assert files == sorted([*PLAIN, "docs/in.txt"])
    assert out.keys() == {"docs/gone", "docs/self", "docs/loop", "docs/more/up", "docs/out.txt"}
    assert "link to a directory" in out["docs/loop"]
    assert "link to a directory" in out["docs/more/up"]
    assert "link out of the directory" in out["docs/out.txt"]
    (tmp_path / "link").symlink_to(docs)
    assert read(tmp_path / "link") == (files, out)


def test_binary_huge_broken_and_odd_files_are_left_out_or_told(docs):
    (docs / "data.bin").write_bytes(b"\0\1\2")
    (docs / "disguised.txt").write_bytes(b"PK\3\4\0\0")
    with (docs / "huge.txt").open("wb") as file:
        file.truncate(70 << 20)
    (docs / "latin.txt").write_bytes(b"caf\xe9")
    (docs / "broken.jsonl").write_text('{"text": "x"}\n{"no": 1}\n')
    os.mkfifo(docs / "pipe.txt")
    files, out = read(docs)
    assert files == sorted([*PLAIN, "docs/latin.txt"])
    reasons = {"data.bin": "a binary file", "disguised.txt": "a binary file", "huge.txt": "more than the 64 MB"}
    reasons |= {"broken.jsonl": "line 2 is no passage", "pipe.txt": "not a regular file"}
    assert {name for name, reason in reasons.items() if reason in out[f"docs/{name}"]} == reasons.keys()
    collection = read_passages([docs])
    assert [n.path for n in collection.notes if not n.skipped] == ["docs/latin.txt"]
    assert "café" in [p.text for p in collection.passages]


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
    files, out = read(docs)
    assert files == PLAIN
    assert out.keys() == {"docs/shut/", "docs/locked.txt"}
    assert all("Permission denied" in reason for reason in out.values())


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
