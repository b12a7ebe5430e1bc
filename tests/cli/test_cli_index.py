"""`reason index`: build, add and show, lexically and with a small model; interruption; invalid input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.word_vectors import WordVectors

pytest.importorskip("bm25s")

Cli = Callable[..., tuple[int, str, str]]


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
        model.name = name or settings.embedding_model  # type: ignore[misc]
        return model

    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", load_embedding_model)
    return names


def test_build_show_add_without_vectors(cli: Cli, documents: Path) -> None:
    status, out, err = cli("index", "build", "i", "docs", "--no-vectors")
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "reading"
    assert lines[-1] == "the index i has 4 passages of 2 documents: 2 new, 0 changed, 0 unchanged"
    status, out, err = cli("index", "show", "i")
    assert (status, err) == (0, "")
    shown = {line[:16].strip(): line[16:].strip() for line in out.splitlines()}
    assert shown["passages"] == "4"
    assert shown["documents"] == "2"
    assert shown["embedding model"] == "none: lexical search only"
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


def test_embedding_model_is_that_of_the_index(
    cli: Cli, documents: Path, opened: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_invalid_index_commands_are_refused(cli: Cli, documents: Path, home: Path) -> None:
    status, out, err = cli("index", "show", "none")
    assert (status, out) == (2, "")
    assert "there is no index in none" in err
    assert "reason index build DIR PATH" in err
    status, _, err = cli("index", "build", "i", "absent", "--no-vectors")
    assert (status, "absent does not exist" in err) == (2, True)
    status, _, err = cli("index", "build", "docs", "docs", "--no-vectors")
    assert (status, "the directory docs holds something else" in err) == (2, True)
    (documents / "bad.pdf").write_bytes(b"no pdf")
    status, _, err = cli("index", "build", "k", "docs", "--no-vectors")
    assert status == 0
    assert "note: docs/bad.pdf: " in err
    assert "a damaged PDF" in err
    assert cli("index", "build", "k", "docs/bad.pdf", "--no-vectors")[0] == 2
    assert cli("index")[1].count("build") >= 1


def test_ctrl_c_reports_saved_work_and_resumes(documents: Path, home: Path) -> None:
    with (documents / "many.jsonl").open("w") as file:
        for i in range(25_000):
            file.write(json.dumps({"id": i, "text": f"The fact number {i} of a long file."}) + "\n")
    code = "import sys; from reason.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "index", "build", "i", "docs", "--no-vectors"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    database = home / "work" / "i" / "passages.sqlite3"
    deadline = time.monotonic() + 60
    while not (database.exists() and database.stat().st_size > 300_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert "the index i is not finished:" in err.splitlines()[-1]
    assert "passages saved (run the same command again to resume)" in err.splitlines()[-1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "the index i has 25,004 passages of 3 documents" in done.stderr
