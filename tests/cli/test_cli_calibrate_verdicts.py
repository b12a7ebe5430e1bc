"""`reason calibrate verdicts` as a user types it: a file that davinci takes, resuming, and invalid options."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from reason.evals.verification.judging import VerdictStore
from reason.verify.davinci.config import DavinciConfig
from reason.verify.davinci.decision import decision_rule_for
from reason.verify.davinci.verdict_model import load_verdict_model
from support.labelled_claims import SAYS, said, write_fever, write_lines
from support.scripted_entailment import ScriptedEntailment


@pytest.fixture
def files(home):
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


def write_vitaminc(folder: Path, claims: int = 60) -> Path:
    labels = {"SUPPORTS": "yes", "REFUTES": "no", "NOT ENOUGH INFO": "hm"}
    rows = []
    for i in range(claims):
        label = list(labels)[i % 3]
        evidence = f"item{i} of list{i} {labels[label]}"
        rows.append(
            {
                "id": str(i),
                "case_id": f"c{i}",
                "claim": f"item{i} is list{i}",
                "label": label,
                "evidence": evidence,
                "page": f"L{i}",
            }
        )
    return write_lines(folder / "vitaminc" / "dev.jsonl", rows)


def test_judge_is_calibrated_and_davinci_loads_the_file(cli, files, judge):
    vitaminc = write_vitaminc(Path.cwd())
    status, out, err = calibrate(cli, *files, "--data", f"vitaminc={vitaminc}", "--judge", "nli/some")
    assert status == 0, err
    assert "fever_retrieved" in out
    assert "vitaminc" in out
    assert "supported from 0." in out
    assert "220 claims are few" in err
    rule = decision_rule_for(DavinciConfig(verdicts="fitted/verdicts-nli-some.json"), judge.identity)
    assert rule.model.name == "verdicts-nli-some"
    assert {s.part for s in rule.model.scores} == {"fever_two", "fever_oracle", "fever_retrieved", "vitaminc"}
    assert judge.closed == 1
    assert "--verify-set davinci.verdicts=fitted/verdicts-nli-some.json" in err.replace("\n", " ")


def test_stored_verdicts_are_not_judged_again(cli, files, judge):
    assert calibrate(cli, *files, "--judge", "x", "--store", "v.sqlite")[0] == 0
    requested = sum(map(len, judge.calls))
    first = Path("fitted/verdicts-x.json").read_text()
    status, out, err = calibrate(cli, *files, "--judge", "x", "--store", "v.sqlite", "--json")
    assert status == 0, err
    assert sum(map(len, judge.calls)) == requested > 0
    assert Path("fitted/verdicts-x.json").read_text() == first
    payload = json.loads(out)
    assert payload["file"] == "fitted/verdicts-x.json"
    assert payload["model"]["judge"] == judge.identity
    assert sum(s["claims"] for s in payload["model"]["scores"]) == 160  # 40 of two labels, and 60 twice


def test_one_dataset_is_measured_on_its_own_fifths_and_that_is_said(cli, files, judge):
    status, _, err = calibrate(cli, *files, "--judge", "x")
    assert status == 0
    assert "of a single dataset, its own fifths are left out" in err.replace("\n", " ")


def test_a_stricter_bound_has_a_higher_threshold(cli, files, monkeypatch):
    def mistaken(pair):
        """Finds half of the neutral claims, which are every third one, supported."""
        number = int("".join(c for c in pair.claim.split()[0] if c.isdigit()))
        return SAYS["yes"] if number % 6 == 2 else said(pair)

    async def open_entailment(name, settings, *, model=None, progress=None):
        return ScriptedEntailment(mistaken)

    monkeypatch.setattr("reason.verify.entailment.factory.load_entailment", open_entailment)
    thresholds = []
    for bound in ("0.01", "0.4"):
        status, _, err = calibrate(cli, *files, "--judge", "x", "--max-false-supported", bound, out=f"f{bound}")
        assert status == 0, err
        thresholds.append(load_verdict_model(Path(f"f{bound}/verdicts-x.json")).supported)
    assert thresholds[0] > thresholds[1]


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
    monkeypatch.setattr("reason.evals.verification.judging.StoredEntailment.__init__.__defaults__", (100,))
    broken, complete = judges
    status, _, err = calibrate(cli, *files, "--judge", "x")
    assert status == 130
    assert "the same command continues" in err
    with VerdictStore(Path("fitted/verdicts.sqlite")) as store:
        kept = store.count("scripted@1")
    assert kept > 0
    assert broken.closed == 1
    assert calibrate(cli, *files, "--judge", "x")[0] == 0
    with VerdictStore(Path("fitted/verdicts.sqlite")) as store:
        assert store.count("scripted@1") == kept + sum(map(len, complete.calls))


@pytest.mark.parametrize(
    ("more", "payload"),
    [
        (("--judge", "model"), "the judge 'model' cannot be calibrated"),
        (("--judge", "auto"), "the judge 'auto' cannot be calibrated"),
        (("--name", "../x"), "cannot be part of a file name"),
        (("--limit", "5"), "at least 40 claims"),
        (("--max-false-supported", "0"), "--max-false-supported must be in (0, 0.5), got 0"),
        (("nothing=x.jsonl",), "there is no evaluation set of 'nothing'"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(cli, files, judge, more, payload):
    status, _, err = calibrate(cli, *files, "--judge", "x", *more)
    assert status == 2
    assert payload in err.replace("\n", " ")
    assert not list(Path().glob("fitted/*.json"))


def test_calibration_without_claims_is_refused(cli, home):
    status, _, err = calibrate(cli, "--corpus", "x.jsonl")
    assert status == 2
    assert "there are no calibration claims" in err
