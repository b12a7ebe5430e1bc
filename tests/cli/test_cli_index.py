"""`reason index`: build, add and show, lexically and with a small model; interruption; invalid input."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from reason.cli.render.status import StatusLine
from support.word_vectors import WordVectors

pytest.importorskip("bm25s")


@pytest.fixture
def documents(home: Path) -> Path:
    directory = home / "work" / "docs"
    directory.mkdir()
    (directory / "a.md").write_text("# Whales\n\nA whale is a mammal. It breathes air.\n")
    (directory / "b.jsonl").write_text(
        "".join(f'{{"id": "r{i}", "page": "P{i}", "text": "Fact {i}."}}\n' for i in range(3))
    )
    return directory


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Replaces every embedding model by one that counts words; returns the names of the loaded models."""
    pytest.importorskip("faiss")
    names: list[str | None] = []

    async def load_embedding_model(name: str | None, settings: Any, *_: Any) -> WordVectors:
        names.append(name)
        model = WordVectors(identity=name or settings.embedding_model, dimension=32)
        model.name = name or settings.embedding_model
        return model

    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", load_embedding_model)
    return names


def test_build_show_add_without_vectors(cli, documents):
    status, out, err = cli("index", "build", "i", "docs", "--no-vectors")
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "reading"
    assert lines[-1] == "the index i has 4 passages of 2 documents: 2 new, 0 changed, 0 unchanged"
    status, out, err = cli("index", "show", "i")
    assert (status, err) == (0, "")
    shown = {line[:16].strip(): line[16:].strip() for line in out.splitlines()}
    expected = {"passages": "4", "documents": "2", "embedding model": "none: lexical search only"}
    assert shown | expected == shown
    (documents / "c.txt").write_text("More.")
    (documents / "a.md").unlink()
    status, out, err = cli("index", "build", "i", "docs", "--no-vectors", "--json")
    assert status == 0
    updated = json.loads(out)
    assert len(updated.pop("digest")) == 64
    assert updated == {
        "index": "i",
        "passages": 4,
        "documents": 2,
        "new": ["docs/c.txt"],
        "changed": [],
        "unchanged": 1,
        "removed": ["docs/a.md"],
        "notes": [],
        "embedding": None,
    }
    assert "1 documents were removed: docs/a.md" in err
    status, out, err = cli("index", "build", "i", "docs", "--no-vectors")
    assert err.splitlines()[-1] == "the index i has 4 passages of 2 documents: 0 new, 0 changed, 2 unchanged"


def test_embedding_model_is_that_of_the_index(cli, documents, opened, monkeypatch):
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "test/words")
    assert cli("index", "build", "i", "docs")[0] == 0
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "test/other")
    assert cli("index", "build", "i", "docs")[0] == 0
    assert cli("index", "build", "i", "docs")[0] == 0
    assert opened == [None, "test/words", "test/words"]
    shown = json.loads(cli("index", "show", "i", "--json")[1])
    assert (shown["state"], shown["embedding"], shown["vectors"]) == ("ready", "test/words", "exact")
    status, out, err = cli("index", "build", "i", "docs", "--no-vectors")
    assert (status, out) == (2, "")
    assert "leave out --no-vectors" in err


def test_invalid_index_commands_are_refused(cli, documents, home):
    for arguments, *parts in (
        (("show", "none"), "there is no index in none", "reason index build DIR PATH"),
        (("build", "i", "absent", "--no-vectors"), "absent does not exist"),
        (("build", "docs", "docs", "--no-vectors"), "the directory docs holds something else"),
    ):
        status, out, err = cli("index", *arguments)
        assert (status, out, [part for part in parts if part not in err]) == (2, "", [])
    (documents / "bad.pdf").write_bytes(b"no pdf")
    status, _, err = cli("index", "build", "k", "docs", "--no-vectors")
    assert status == 0
    assert "note: docs/bad.pdf: " in err
    assert "a damaged PDF" in err
    assert cli("index", "build", "k", "docs/bad.pdf", "--no-vectors")[0] == 2
    assert cli("index")[1].count("build") >= 1


def test_a_cancelled_build_reports_saved_work_and_resumes(cli, documents, monkeypatch):
    with (documents / "many.jsonl").open("w") as file:
        for i in range(300):
            file.write(json.dumps({"id": i, "text": f"The fact number {i} of a long file."}) + "\n")
    pulled = StatusLine.pulled

    def cancel(self: StatusLine, stage: str, done: int, of: int | None) -> None:
        pulled(self, stage, done, of)
        if stage == "indexing words":  # the passages are saved by then
            raise asyncio.CancelledError

    command = ("index", "build", "i", "docs", "--no-vectors")
    with monkeypatch.context() as cancelling:
        cancelling.setattr(StatusLine, "pulled", cancel)
        status, out, err = cli(*command)
    assert (status, out) == (130, "")
    assert "the index i is not finished: 304 passages saved" in err.splitlines()[-1]
    assert "run the same command again to resume" in err.splitlines()[-1]
    status, _, err = cli(*command)
    assert status == 0
    assert "the index i has 304 passages of 3 documents" in err
