"""`reason verify`: real small documents, judged lexically; output streams and exit status."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from reason.verify.entailment.lexical import lexical_support
from support.cli_json import printed_verification
from support.html_page import carried
from support.scripted_entailment import ScriptedEntailment
from support.waiting import wait_blocking

Cli = Callable[..., tuple[int, str, str]]

ANSWER = "Paris is the capital of France. Barcelona is the capital of Spain.\n\nRabbits dream of snow. 17 * 23 = 391.\n"
FACTS = "# Capitals\nParis is the capital of France. Madrid is the capital of Spain.\n"
REFUTED = r"\[2\] refuted \(\d+% sure\)  Barcelona is the capital of Spain\."
LEXICAL = ["--judge", "lexical", "--set", "verdicts=none", "--set", "threshold=0.5"]
ESCAPE = "\x1b"


@pytest.fixture
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an answer and a document; no embedding model, so that nothing is downloaded."""
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "none")
    work = home / "work"
    (work / "answer.txt").write_text(ANSWER)
    (work / "facts.md").write_text(FACTS)
    return work


@pytest.fixture
def verify(cli: Cli, workspace: Path) -> Cli:
    """Verifies the answer against the document, lexically."""

    def verify(*arguments: str, docs: str = "facts.md") -> tuple[int, str, str]:
        return cli("verify", "--answer", "answer.txt", "--docs", docs, *LEXICAL, *arguments)

    return verify


def test_claims_are_marked_listed_and_summarized(cli, verify, workspace):
    status, out, err = verify()
    assert status == 0
    run = re.search(r"run (\S+)$", out)
    assert run is not None
    assert re.sub(r"\d+% sure", "N% sure", out.rpartition("; run")[0]).splitlines() == [
        "Paris is the capital of France.[1] Barcelona is the capital of Spain.[2]",
        "",
        "Rabbits dream of snow.[3] 17 * 23 = 391.[4]",
        "",
        "[1] supported (N% sure)  Paris is the capital of France.",
        '    facts.md:11-42 "Paris is the capital of France."',
        "[2] refuted (N% sure)  Barcelona is the capital of Spain.",
        '    facts.md:43-74 "Madrid is the capital of Spain."',
        "[3] not enough evidence  Rabbits dream of snow.",
        "    no evidence was found",
        "[4] supported (computed)  17 * 23 = 391.",
        "    17 * 23 = 391",
        "",
        "refuted: 2 of 4 claims supported, 1 refuted, 1 open",
    ]
    assert err == "note: evidence: passages are retrieved by their words only: unknown embedding model 'none'\n"
    assert ESCAPE not in out
    shown = cli("runs", "show", run[1])[1]
    assert "none: the answer was given" in shown
    assert re.search(REFUTED, shown)
    assert str(workspace / "facts.md") in shown
    replayed = cli("runs", "replay", run[1])
    assert replayed[0] == 0
    assert re.search(REFUTED, replayed[1])
    assert "verification of a text" in cli("runs", "list")[1]


def test_json_output_is_the_complete_verification(verify):
    status, out, _ = verify("--question", "Capitals?", "--json")
    results = printed_verification(out)
    assert (status, results.answer, results.question) == (0, ANSWER, "Capitals?")
    assert [claim.verdict for claim in results.verification.claims] == [report.verdict for report in results.reports]
    assert results.reports[1].pairs[0].probs is not None
    assert results.reports[1].passages[0].source == "facts.md"


def test_an_answer_is_not_its_own_evidence(verify, workspace):
    for docs in (".", "answer.txt", str(workspace.parent)):
        one_line(
            verify(docs=docs), "'answer.txt' is part of the documents", "would support itself", "move it elsewhere"
        )


def test_control_characters_never_reach_the_terminal(verify, workspace):
    (workspace / "answer.txt").write_text(
        "Paris is the \x1b[31mcapital\x1b[0m of France.\x07 \x9b2J\x1b]0;owned\x07 [bold]Madrid is big.[/bold]"
    )
    (workspace / "facts.md").write_text("Paris is the capital of\x1b[2J France.")
    _, out, err = verify()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out + err)
    assert "[bold]Madrid is big.[/bold]" in out  # no markup of ours either


def test_standard_input(verify, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Paris is the capital of France.\n")))
    status, out, _ = verify("--answer", "-")
    assert status == 0
    assert "supported: 1 of 1 claim supported" in out


def test_require_verified(verify, workspace):
    status, out, err = verify("--require-verified")
    assert (status, "[2] refuted" in out) == (5, True)
    failed = r"error: not verified: claim 2, “Barcelona .+”: refuted \(\d+% sure\); claim 3, “Rabbits .+”: not enough"
    assert re.match(failed, err.splitlines()[-1])
    for answer, expected in (("Paris is the capital of France.", 0), ("Is it so?", 5)):  # no claim can be checked
        (workspace / "answer.txt").write_text(answer)
        checked = verify("--require-verified")
        assert checked[0] == expected, checked


def test_programs_only(cli, workspace):
    status, out, err = cli("verify", "--answer", "answer.txt", "--programs-only")
    assert status == 0
    assert "[4] supported (computed)  17 * 23 = 391." in out
    assert "not enough evidence: 1 of 4 claims supported, 3 open" in out
    assert "note: no documents were given: only claims that a program can check are checked" in err


def one_line(results: tuple[int, str, str], *wanted: str) -> None:
    status, out, err = results
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    for part in wanted:
        assert part in err


def test_invalid_input_is_one_line_with_a_remedy(cli, verify, workspace):
    (workspace / "empty.txt").write_text(" \n")
    (workspace / "fake.pdf").write_bytes(b"%PDF-1.4 this is no PDF")
    with (workspace / "huge.txt").open("wb") as file:
        file.truncate(200 << 20)
    one_line(
        cli("verify", "--answer", "answer.txt", *LEXICAL),
        "nothing to verify the answer against",
        "--docs",
        "--programs-only",
    )
    for docs, *parts in (
        ("nowhere", "does not exist", "nowhere", "name existing files or directories"),
        ("fake.pdf", "fake.pdf", "give text, Markdown"),
        ("huge.txt", "huge.txt has 200 MB", "reason index build"),
    ):
        one_line(verify(docs=docs), *parts)
    for option, value, *parts in (
        ("--answer", "empty.txt", "'empty.txt' is empty", "pass the text"),
        ("--answer", "none.txt", "answer file 'none.txt' does not exist", "--answer"),
        ("--set", "judge=model", "exclude each other"),
        ("--set", "k=0", "davinci parameter k = 0"),
        ("--verifier", "davincy", "did you mean 'davinci'"),
    ):
        one_line(verify(option, value), *parts)
    assert verify("--html", "nowhere/page.html")[0] == 3


def test_exhausted_budget_is_reported_with_status_4(cli, workspace, monkeypatch):
    async def open_entailment(*_: object, **__: object) -> ScriptedEntailment:
        return ScriptedEntailment(lexical_support)

    monkeypatch.setattr("reason.verify.entailment.run_resources.load_entailment", open_entailment)
    arguments = ["verify", "--answer", "answer.txt", "--docs", "facts.md", "--judge", "nli/scripted", *LEXICAL[2:]]
    status, out, err = cli(*arguments, "--budget", "reward_calls=1")
    assert status == 4
    assert "unchecked  Barcelona is the capital of Spain." in out
    assert "the budget did not reach it" in out
    assert "note: davinci: the budget was exhausted before 1 of 4 claims were checked" in err
    assert cli(*arguments, "--budget", "reward_calls=1", "--require-verified")[0] == 5
    assert cli(*arguments, "--budget", "reward_calls=100")[0] == 0


def test_trace_and_page_are_written(verify, workspace):
    assert verify("--html", "page.html", "--trace", "trace.html")[0] == 0
    results = carried((workspace / "page.html").read_text())["found"]
    events = carried((workspace / "trace.html").read_text())["events"]
    assert events[-1]["answer"]["verification"] == results["verification"]
    claims = results["verification"]["claims"]
    assert [claim["verdict"] for claim in claims].count("supported") == 2
    madrid = {"source": "facts.md", "text": "Madrid is the capital of Spain.", "start": 43, "end": 74}
    assert [claim["text"] for claim in claims if madrid in claim["evidence"]] == ["Barcelona is the capital of Spain."]


def open_for_writing(fifo: Path) -> int | None:
    """The pipe once the program reads it."""
    with contextlib.suppress(OSError):
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    return None


@pytest.mark.nightly
def test_ctrl_c_is_clean(process, workspace):
    os.mkfifo(workspace / "slow.txt")  # nobody writes
    child = process("verify", "--answer", "slow.txt", "--docs", "facts.md", *LEXICAL)
    fifo = wait_blocking(lambda: open_for_writing(workspace / "slow.txt"))
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    os.close(fifo)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_code_is_run_against_a_file_of_tests(cli, workspace):
    (workspace / "answer.md").write_text("```python\ndef f(x):\n    return x + 1\n```\n")
    (workspace / "tests.py").write_text("assert f(1) == 2\nassert f(2) == 4\n")
    given = ["verify", "--answer", "answer.md", "--verifier", "execution", "--tests"]
    status, out, err = cli(*given, "tests.py")
    if "cannot be run in isolation" in err:
        pytest.skip(err)
    assert status == 0
    assert "The code passes the test: assert f(2) == 4" in out
    assert "AssertionError: 3 == 4 is false" in out
    assert cli(*given, "none.py")[0] == 2
    (workspace / "empty.py").write_text("x = 1\n")
    status, out, err = cli(*given, "empty.py")
    assert (status, "there is no test in 'empty.py'" in err) == (2, True)
