"""Bad input: one clear line on standard error, the right exit status, nothing on standard output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from reason.cli.interrupts import Interrupted
from reason.core.errors import (
    BackendUnavailable,
    BudgetExceeded,
    CapabilityMissing,
    NotVerified,
    ReasonError,
    StoreError,
)


@pytest.mark.parametrize(
    ("arguments", "expected_text"),
    [
        (["ask", ""], ["the question is empty"]),
        (["ask", "?", "--strategy", "self-consistancy"], ["'self-consistancy'", "'self-consistency'"]),
        (["ask", "?", "-s", "self-consistency", "--set", "samples=3"], ["parameter 'samples'"]),
        (["ask", "?", "--set", "temprature=1"], ["'temprature'", "'temperature'"]),
        (["ask", "?", "--set", "temperature=-1"], ["temperature = -1", "greater than or equal to 0"]),
        (["ask", "?", "--budget", "tokens=-5"], ["budget.tokens = -5", "greater than 0"]),
        (["ask", "?", "--seed", "-1"], ["--seed"]),
        (["ask", "?", "--budget", "tokns=5"], ["'budget.tokns'"]),
        (["ask", "?", "--budget", "5"], ["--budget '5' is not key=value"]),
        (["ask", "-", "--context", "-"], ["standard input"]),
        (["ask", "?", "--trace", "trace.xml"], ["trace.xml", ".jsonl"]),
        (["ask", "?", "--verify", "nobody"], ["verifier", "nobody"]),
        (["ask", "?", "--require-verified"], ["no verifier"]),
        (["ask"], ["QUESTION", "reason ask --help"]),
        (["ask", "?", "--budgets", "5"], ["--budgets"]),
        (["asks", "?"], ["asks", "reason --help"]),
        (["runs", "show", "20990101"], ["unknown run '20990101'", "reason runs list"]),
        (["runs", "list", "--limit", "0"], ["--limit"]),
    ],
)
def test_bad_input(arguments, expected_text, cli, scripted):
    model = scripted()
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    for part in expected_text:
        assert part in err
    assert model.made == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BackendUnavailable("no network", hint="plug it in"), 3),
        (CapabilityMissing("scoring", "m"), 2),
        (BudgetExceeded("tokens", 50, 50), 4),
        (NotVerified("not verified: refuted"), 5),
        (StoreError("disk\nfull"), 3),
        (RuntimeError("a bug"), 1),
        (Interrupted(), 130),
    ],
)
def test_errors_have_their_exit_status(error, status, cli, monkeypatch):
    async def load_model(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    got, out, err = cli("ask", "?", "--json")
    assert got == status
    described = json.loads(out)["error"]
    assert described["exit_status"] == status
    assert described["code"] == getattr(error, "code", "cancelled" if status == 130 else "internal")
    got, out, err = cli("ask", "?")
    assert (got, out) == (status, "")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    if isinstance(error, ReasonError):
        assert error.message.replace("\n", " ") in err
        assert error.hint in err
    if isinstance(error, RuntimeError):
        assert err == "internal error: RuntimeError: a bug (REASON_DEBUG=1 prints the traceback)\n"


@pytest.mark.parametrize(
    ("arguments", "code", "param"),
    [
        (["ask", "?", "--jsno", "--json"], "user_error", "--jsno"),
        (["ask", "?", "--json", "--seed", "-1"], "user_error", "seed"),
        (["ask", "?", "--json", "-s", "cott"], "unknown_name", None),
        (["verify", "--answer", "nowhere.txt", "--json"], "data_error", None),
    ],
)
def test_usage_errors_are_json_too(arguments, code, param, cli):
    status, out, err = cli(*arguments)
    described = json.loads(out)["error"]
    assert (status, described["exit_status"], described["code"], described["param"]) == (2, 2, code, param)
    assert err.startswith(f"error: {described['message']}")
    if described["hint"] is not None:
        assert f"({described['hint']})" in err


def test_a_partial_result_is_the_only_object_and_json_as_a_value_is_no_option(cli, scripted):
    assert cli("strategies", "show", "--", "--json")[:2] == (2, "")
    scripted()
    flags = ["--verify", "davinci", "--require-verified", "--verify-set", "davinci.judge=lexical", "--json"]
    status, out, err = cli("ask", "?", *flags)
    assert status == 5, err
    assert json.loads(out)["answer"] == "42"


def test_every_exit_status_is_documented(cli):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = page.partition("## Exit status")[2].partition("\n## ")[0]
    documented = set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE)))
    listed = cli("--help")[1].partition("Exit status")[2]
    assert documented == set(map(int, re.findall(r"\b(\d+) [a-z]", listed)))
    classes = [ReasonError]
    for known in classes:
        classes += (one for one in known.__subclasses__() if one.__module__.startswith("reason."))
    assert {known.exit_code for known in classes} <= documented
    assert [known for known in classes if known.exit_code == 1] == [ReasonError]


def test_error_lines_are_not_wrapped_or_parsed_as_markup_and_follow_a_traceback_on_request(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "[red]" + "very-long-name-" * 20
    _, _, err = cli("strategies", "show", name)
    assert name in err
    assert len(err.splitlines()) == 1
    monkeypatch.setenv("REASON_DEBUG", "1")
    status, _, err = cli("ask", "")
    assert (status, "Traceback" in err) == (2, True)
    assert err.splitlines()[-1].startswith("error: the question is empty")
