"""`calibrate_verdicts.py`: a file that davinci takes, and stored verdicts that are not judged again."""

from pathlib import Path

import calibrate_verdicts
import pytest
from reason.core.errors import UserError
from reason.verify.davinci.decision import DavinciConfig, decision_rule_for, load_verdict_model
from support.labelled_claims import SAYS, said, write_fever
from support.scripted_entailment import ScriptedEntailment


@pytest.fixture
def files(tmp_path):
    data, corpus = write_fever(tmp_path)
    return ("--data", f"fever={data}", "--corpus", str(corpus))


def judged_by(verdict, monkeypatch):
    judge = ScriptedEntailment(verdict)

    async def load(name, settings):
        return judge

    monkeypatch.setattr(calibrate_verdicts, "load_entailment", load)
    return judge


def test_davinci_loads_the_file_and_stored_verdicts_are_not_judged_again(files, tmp_path, monkeypatch, capsys):
    judge = judged_by(said, monkeypatch)
    out = tmp_path / "fitted"
    calibrate_verdicts.main([*files, "--judge", "nli/some", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "fever_retrieved" in printed
    assert "supported from 0." in printed
    file = out / "verdicts-nli-some.json"
    rule = decision_rule_for(DavinciConfig(verdicts=str(file)), judge.identity)
    assert {s.part for s in rule.model.scores} == {"fever_two", "fever_oracle", "fever_retrieved"}
    assert judge.closed == 1
    requested, first = sum(map(len, judge.calls)), file.read_text()
    calibrate_verdicts.main([*files, "--judge", "nli/some", "--out", str(out)])
    assert sum(map(len, judge.calls)) == requested > 0
    assert file.read_text() == first


def test_a_stricter_bound_has_a_higher_threshold(files, tmp_path, monkeypatch):
    def mistaken(pair):
        """Finds half of the neutral claims, which are every third one, supported."""
        number = int("".join(c for c in pair.claim.split()[0] if c.isdigit()))
        return SAYS["yes"] if number % 6 == 2 else said(pair)

    judged_by(mistaken, monkeypatch)
    thresholds = []
    for bound in ("0.01", "0.4"):
        out = tmp_path / bound
        calibrate_verdicts.main([*files, "--judge", "x", "--max-false-supported", bound, "--out", str(out)])
        thresholds.append(load_verdict_model(Path(out / "verdicts-x.json")).supported)
    assert thresholds[0] > thresholds[1]


def test_an_unknown_dataset_is_refused(files, tmp_path):
    with pytest.raises(UserError, match="no evaluation set of 'nothing'"):
        calibrate_verdicts.main(["--data", "nothing=x.jsonl", *files[2:], "--out", str(tmp_path)])
