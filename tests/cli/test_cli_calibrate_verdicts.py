"""`reason calibrate verdicts` as a user types it: files that davinci takes, going on, and every way to get it wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from reason.evals.verification.claims import is_test_claim
from reason.evals.verification.judging import VerdictStore
from reason.verify.davinci.config import DavinciConfig
from reason.verify.davinci.decision import decision_rule_for
from support.labelled_claims import said, write_fever, write_lines
from support.scripted_entailment import ScriptedEntailment


@pytest.fixture
def files(home, monkeypatch):
    monkeypatch.setattr("reason.verify.fusion_fitting.A_GRID", (0.4, 1.0))
    monkeypatch.setattr("reason.verify.fusion_fitting.BETA_GRID", (0.3, 1.0))
    data, corpus = write_fever(Path.cwd())
    return ("--data", f"fever={data}", "--corpus", str(corpus))


@pytest.fixture
def judge(monkeypatch):
    results = ScriptedEntailment(said)

    async def open_entailment(name, settings, *, model=None, progress=None):
        results.name = name
        return results

    monkeypatch.setattr("reason.verify.entailment.factory.load_entailment", open_entailment)
    return results


def calibrate(cli, *more, out="fitted"):
    return cli("calibrate", "verdicts", *more, "--out", out)


def test_judge_is_calibrated_and_davinci_loads_the_files(cli, files, judge):
    status, out, err = calibrate(cli, *files, "--entailment", "nli/some")
    assert status == 0, err
    assert "macro F1" in out
    assert "fitted, out of sample" in out
    assert "60 claims are few" in err
    config = DavinciConfig(fusion="fitted/fusion-nli-some.json", calibration="fitted/calibration-nli-some.json")
    rule = decision_rule_for(config, judge.identity)
    assert rule.calibration is not None
    assert rule.fusion.disputed
    assert judge.closed == 1
    used = "--verify-set davinci.fusion=fitted/fusion-nli-some.json"
    assert used in err.replace("\n", " ")


def test_stored_verdicts_are_not_judged_again(cli, files, judge):
    assert calibrate(cli, *files, "--entailment", "x", "--store", "v.sqlite")[0] == 0
    requested = sum(map(len, judge.calls))
    assert requested == 300
    first = Path("fitted/calibration-x.json").read_text()
    status, out, err = calibrate(cli, *files, "--entailment", "x", "--store", "v.sqlite", "--json")
    assert status == 0, err
    assert sum(map(len, judge.calls)) == requested
    assert Path("fitted/calibration-x.json").read_text() == first
    payload = json.loads(out)
    assert payload["after"]["n"] == 60
    assert payload["backend"] == judge.identity
    assert payload["files"] == ["fitted/fusion-x.json", "fitted/calibration-x.json"]
    assert payload["calibration"]["examples"] == 60


def test_embedded_judge_is_calibrated_on_unseen_claims_only(cli, home, judge, monkeypatch):
    monkeypatch.setattr("reason.verify.fusion_fitting.A_GRID", (0.4, 1.0))
    data, corpus = write_fever(Path.cwd(), claims=300)
    unseen = sum(is_test_claim(f"topic{i} is number{i}") for i in range(300))
    status, out, err = calibrate(cli, f"--data=fever={data}", f"--corpus={corpus}", "--json")
    assert status == 0, err
    assert json.loads(out)["after"]["n"] == unseen
    assert f"{unseen} of 300 claims of fever are outside the model's training data" in err


def test_claims_without_lists_are_searched_in_the_corpus(cli, files, judge):
    data = Path("fever/dev.jsonl")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write_lines(data, [{k: v for k, v in row.items() if k != "retrieved"} for row in rows])
    status, out, err = calibrate(cli, *files, "--entailment", "x", "-k", "3", "--json")
    assert status == 0, err
    assert json.loads(out)["after"]["n"] == 60
    assert sum(map(len, judge.calls)) == 180
    assert calibrate(cli, *files[:2], "--entailment", "x")[0] == 2


def test_an_index_is_searched_instead_of_the_lists(cli, files, judge):
    assert cli("index", "build", "idx", "corpus/sentences.jsonl", "--no-vectors")[0] == 0
    status, _, err = calibrate(cli, *files, "--index", "idx", "--entailment", "x", "-k", "2", "--json")
    assert status == 0, err
    assert sum(map(len, judge.calls)) == 120
    assert {len(pair.evidence.split()) for call in judge.calls for pair in call} == {5}


def test_interrupted_calibration_keeps_verdicts_and_resumes(cli, files, monkeypatch):
    class Interrupted(ScriptedEntailment):
        async def judge(self, pairs):
            if len(self.calls) == 1:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
            return await super().judge(pairs)

    judges = [Interrupted(said), ScriptedEntailment(said)]

    async def open_entailment(name, settings, *, model=None, progress=None):
        return judges.pop(0)

    monkeypatch.setattr("reason.verify.entailment.factory.load_entailment", open_entailment)
    monkeypatch.setattr("reason.evals.verification.judging.judge_pairs.__defaults__", (lambda done: None, 100))
    broken, complete = judges
    status, _, err = calibrate(cli, *files, "--entailment", "x")
    assert status == 130
    assert "the same command continues" in err
    with VerdictStore(Path("fitted/verdicts.sqlite")) as store:
        assert store.count("scripted@1") == 100
    assert broken.closed == 1
    assert calibrate(cli, *files, "--entailment", "x")[0] == 0
    assert sum(map(len, complete.calls)) == 200


@pytest.mark.parametrize(
    ("more", "payload"),
    [
        (("--aggregation", "sum"), "unknown aggregation 'sum'"),
        (("--method", "guess"), "unknown method 'guess'"),
        (("--evidence-form", "half"), "unknown evidence form 'half'"),
        (("--entailment", "judge"), "verdicts of a language model cannot be calibrated"),
        (("vitaminc=x.jsonl",), "'vitaminc' has no retrieved evidence"),
        (("--name", "../x"), "cannot be part of a file name"),
        (("--limit", "9"), "at least 20"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(cli, files, judge, more, payload):
    status, _, err = calibrate(cli, *files, "--entailment", "x", *more)
    assert status == 2
    assert payload in err.replace("\n", " ")
    assert not list(Path().glob("fitted/*.json"))


def test_calibration_without_claims_is_refused(cli, home):
    status, _, err = calibrate(cli)
    assert status == 2
    assert "there are no calibration claims" in err
