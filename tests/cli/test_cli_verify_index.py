"""`reason verify` over saved indexes, and its interruption: nothing is lost, and the remedy is printed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from reason.verify.entailment.lexical import lexical_support
from reason.verify.types import Pair, Support
from support.scripted_entailment import ScriptedEntailment
from support.tiny_encoder import SIZE, write_tiny_encoder

Cli = Callable[..., tuple[int, str, str]]
LEXICAL = ["--judge", "lexical", "--set", "verdicts=none", "--set", "threshold=0.5"]
INDEX_FACTS = "Paris is the capital of France. Madrid is the capital of Spain."


@pytest.fixture
def workspace(home: Path) -> Path:
    work = home / "work"
    (work / "answer.txt").write_text("Paris is the capital of France. Barcelona is the capital of Spain.")
    (work / "facts.md").write_text(INDEX_FACTS)
    return work


def write_sentence_model(directory: Path, seed: int) -> Path:
    """A tiny encoder with the files that sentence-transformers needs."""
    write_tiny_encoder(directory, seed=seed)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": SIZE, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return directory


def test_an_index_of_another_embedding_model_is_refused(
    cli: Cli, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = write_sentence_model(workspace / "encoder", seed=1)
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", f"local/{encoder}")
    built = cli("index", "build", "ix", "facts.md")
    assert built[0] == 0, built
    arguments = ["verify", "--answer", "answer.txt", "--docs", "ix", *LEXICAL]
    status, out, _ = cli(*arguments)
    assert (status, "[1] supported" in out) == (0, True)
    write_sentence_model(encoder, seed=2)
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "the vectors of the index" in line
    assert "were made with another version of" in line
    assert "build another index in a new directory" in line


def test_documents_and_an_index_together(cli: Cli, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "none")
    (workspace / "more.txt").write_text("Lisbon is the capital of Portugal.")
    assert cli("index", "build", "ix", "facts.md", "--no-vectors")[0] == 0
    status, out, err = cli("verify", "--answer", "answer.txt", "--docs", "ix", "--docs", "more.txt", *LEXICAL)
    assert status == 0
    assert "facts.md:0-31" in out
    assert "[2] refuted" in out
    assert err.count("note: evidence: ") == 2  # neither place is searched by meaning


class Interrupting(ScriptedEntailment):
    """Is interrupted by Ctrl-C at its first call."""

    def __init__(self) -> None:
        super().__init__(lexical_support)
        self.interrupted = False

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        if not self.interrupted:
            self.interrupted = True
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        return await super().judge(pairs)


def test_ctrl_c_saves_the_run_and_prints_the_resume_command(
    cli: Cli, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "none")
    judge = Interrupting()

    async def open_entailment(*_: object, **__: object) -> ScriptedEntailment:
        return judge

    monkeypatch.setattr("reason.verify.entailment.run_resources.load_entailment", open_entailment)
    arguments = ["verify", "--answer", "answer.txt", "--docs", "facts.md", "--judge", "nli/scripted", *LEXICAL[2:]]
    status, out, err = cli(*arguments, "--html", "page.html")
    assert (status, out) == (130, "")
    results = re.search(r"interrupted; the run is saved: reason (runs resume \S+)", err)
    assert results is not None
    assert judge.closed == 1
    (workspace / "elsewhere").mkdir()
    monkeypatch.chdir(workspace / "elsewhere")  # the run finds its documents from any directory
    status, out, _ = cli(*results[1].split())
    assert status == 0
    assert re.search(r"\[1\] supported \(\d+% sure\)  Paris is the capital of France\.", out)
    assert re.search(r"\[2\] refuted \(\d+% sure\)  Barcelona is the capital of Spain\.", out)
