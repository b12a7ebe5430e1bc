"""`reason ask --verify`: claims under the answer, evidence and parameters by flags, exit status 5, the trace."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cli_json import printed_answer
from support.html_page import carried
from support.scripted_model import answering, replies

LEXICAL = ["davinci.judge=lexical", "davinci.verdicts=none", "davinci.threshold=0.5"]
DAVINCI = ["--verify", "davinci", *(word for value in LEXICAL for word in ("--verify-set", value))]
VERIFY = [*DAVINCI, "--evidence", "facts.md"]
REPLY = "Paris is the capital of France. Barcelona is the capital of Spain."


@pytest.fixture
def facts(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REASON_EMBEDDING_MODEL", "none")
    path = home / "work" / "facts.md"
    path.write_text("Paris is the capital of France. Madrid is the capital of Spain.")
    return path


def test_flags_reach_the_run_and_its_page(cli, scripted, facts):
    scripted(replies(REPLY))
    flags = ["--repairs", "2", "--verify-set", "davinci.k=3", "--trace", "trace.html", "--json"]
    status, out, _ = cli("ask", "Capitals?", *VERIFY, *flags)
    answer = printed_answer(out)
    assert status == 0
    config = json.loads(cli("runs", "show", answer.run_id, "--json")[1])["config"]
    assert (config["repairs"], config["evidence"]) == (2, [str(facts)])
    assert config["verify_parameters"]["davinci"]["k"] == 3
    page = (facts.parent / "trace.html").read_text()
    events = carried(page)["events"]
    payload = [e["report"] for e in events if e["type"] == "claim.checked"]
    assert [(r["verdict"], r["claim"]["text"]) for r in payload[-2:]] == [
        ("supported", "Paris is the capital of France."),
        ("refuted", "Barcelona is the capital of Spain."),
    ]
    proof = events[-1]["answer"]["verification"]["claims"][1]["evidence"]
    assert proof == [{"source": "facts.md", "text": "Madrid is the capital of Spain.", "start": 32, "end": 63}]
    shown = cli("runs", "show", answer.run_id)[1]
    assert re.search(r"\[2\] refuted \(\d+% sure\)  Barcelona is the capital of Spain\.", shown)
    assert "judge=lexical" in shown
    assert str(facts) in shown


def test_the_documents_of_the_question_are_evidence(cli, scripted, facts):
    scripted(replies("Madrid is the capital of Spain."))
    status, _, err = cli("ask", "Capital of Spain?", "--context", "facts.md", *DAVINCI)
    assert status == 0
    assert "supported: 1 of 1 claim supported" in err


@pytest.mark.parametrize(("repairs", "is_shown"), [("1", False), ("0", True)])
def test_a_claim_that_is_repaired_is_never_printed(cli, scripted, facts, repairs, is_shown):
    scripted(answering(lambda prompt: "Madrid is the capital of Spain." if "<check>" in prompt else REPLY))
    status, out, err = cli("ask", "What are capitals?", "--stream", *VERIFY, "--repairs", repairs)
    assert status == 0
    assert ("Barcelona" in out) is ("Barcelona" in err) is is_shown
    assert ("Madrid is the capital of Spain." in out) is not is_shown


def test_usage_errors_are_one_line(cli, scripted, facts):
    scripted()

    def refused(*arguments: str) -> str:
        status, out, err = cli("ask", "?", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        return err

    assert "is not NAME.key=value" in refused("--verify", "davinci", "--verify-set", "k=3")
    assert "is not key=value" in refused("--verify", "davinci", "--verify-set", "davinci.k")
    assert "'other', which is not named" in refused("--verify", "davinci", "--verify-set", "other.k=3")
    assert "davinci parameter k = 0" in refused("--verify", "davinci", "--verify-set", "davinci.k=0")
    assert "add --verify davinci" in refused("--evidence", "facts.md")
    assert "does not exist" in refused(*DAVINCI, "--evidence", "nowhere")
