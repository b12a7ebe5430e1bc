"""`reason verify` over saved indexes, and its interruption: nothing is lost, and the remedy is printed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from reason.verify.entailment.lexical import lexical_support
from reason.verify.types import Pair, Support
from support.scripted_entailment import ScriptedEntailment

LEXICAL = ["--judge", "lexical", "--set", "verdicts=none", "--set", "threshold=0.5"]
INDEX_FACTS = "Paris is the capital of France. Madrid is the capital of Spain."


@pytest.fixture
def workspace(home: Path) -> Path:
    work = home / "work"
    (work / "answer.txt").write_text("Paris is the capital of France. Barcelona is the capital of Spain.")
    (work / "facts.md").write_text(INDEX_FACTS)
    return work


def test_documents_and_an_index_together(cli, workspace, monkeypatch):
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


def test_ctrl_c_saves_the_run_and_prints_the_resume_command(cli, workspace, monkeypatch):
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
