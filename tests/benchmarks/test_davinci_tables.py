"""The tables of verification on small made data: every row is there, and the baselines are what they have to be."""

from __future__ import annotations

import sys

import davinci_table
import pytest
import verify_speed
from davinci_table import AGGREGATIONS, GATES, MAIN, always, majority, two_labels
from reason.evals.verification.judging import VerdictStore
from reason.evals.verification.methods import ClaimVerdict
from reason.evals.verification.metrics import verdict_metrics
from reason.verify.types import Support
from support.labelled_claims import judged, row, write_fever, write_lines

SPELLED = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
WORDS = {"SUPPORTS": "yes", "REFUTES": "no", "NOT ENOUGH INFO": "hm", "NOT_ENOUGH_INFO": "hm"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """All datasets, small, of which all claims are taken; grids and resamples are small too."""
    monkeypatch.setattr("reason.verify.fusion_fitting.A_GRID", (0.4, 1.0))
    monkeypatch.setattr("reason.verify.fusion_fitting.BETA_GRID", (0.3,))
    monkeypatch.setattr("davinci_table.unseen_claims", lambda rows, other_rows: list(rows))
    monkeypatch.setattr("reason.verify.fusion_fitting.TEMPERATURE_GRID", (0.5, 1.0))
    monkeypatch.setattr("davinci_table.RESAMPLES", 50)
    monkeypatch.setitem(verdict_metrics.__kwdefaults__, "resamples", 50)
    monkeypatch.setattr("davinci_table._COPIED", 3)
    write_fever(tmp_path, claims=45)
    climate, symmetric, vitamin, facts = [], [], [], []
    for i in range(40):
        label = (*SPELLED, "DISPUTED")[i % 4].replace(" ", "_")
        said = {"DISPUTED": ["SUPPORTS", "REFUTES"]}.get(label, [label]) + ["NOT_ENOUGH_INFO"] * 4
        evidence = [
            {"doc_id": f"c{i}-{j}", "page": f"C {i} {j}", "text": f"warm{i} sea{j} ice{i}{j} {WORDS[x]}", "label": x}
            for j, x in enumerate(said[:5])
        ]
        climate.append({"id": f"c{i}", "claim": f"climate {i}", "label": label, "evidence": evidence})
        side = SPELLED[i % 2]
        pair = {"claim": f"sym {i // 2}", "label": side, "evidence": f"one {i} {WORDS[side]}"}
        symmetric.append(pair | {"id": f"y{i}", "base_id": f"{i // 2}"})
        vitamin.append(pair | {"id": f"v{i}", "case_id": f"{i // 4}", "page": "V", "claim": f"vita {i}"})
        left = [{"page": "F", "text": f"fact {i} {WORDS[side]}"}]
        enough = "NOT ENOUGH" if i % 3 else "ENOUGH -- REPEATED"
        facts.append({"id": f"f{i}", "claim": f"fact {i}", "evidence": left, "label_full": side, "sufficiency": enough})
    for name, rows in (
        ("climate_fever", climate),
        ("fever_symmetric", symmetric),
        ("vitaminc", vitamin),
        ("sufficient_facts", facts),
    ):
        write_lines(tmp_path / name / "dev.jsonl", rows)
    return tmp_path


def run(module, *arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    capsys.readouterr()
    module.main()
    return capsys.readouterr().out


def test_all_tables_are_printed_from_stored_verdicts(data, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    given = ("--data", data, "--entailment", "lexical", "--work", work)
    assert run(davinci_table, "judge", *given, monkeypatch=monkeypatch, capsys=capsys) == ""
    with VerdictStore(work / "verdicts.sqlite") as store:
        known = store.count("lexical-2")
    assert known > 500
    out = run(davinci_table, "table", *given, monkeypatch=monkeypatch, capsys=capsys)
    with VerdictStore(work / "verdicts.sqlite") as store:
        assert store.count("lexical-2") == known  # nothing was left to judge
    for method in (*MAIN, *AGGREGATIONS, *GATES):
        assert f"| {method.name}" in out, method.name
    for title in ("Retrieval", "Stress tests", "Combining evidence (LPF)", "four labels", "Spans"):
        assert title in out
    assert "FEVER, five random sentences | 0.000" in out
    assert "Seed 0, 50 resamples, 5 folds" in out
    # invariant 11: without evidence, two labels on claims that have both
    line = next(x for x in out.splitlines() if "FEVER Symmetric: two labels: the judge without evidence" in x)
    assert line.split("|")[3].strip().startswith("0.500")
    line = next(x for x in out.splitlines() if x.startswith("| always not enough evidence"))
    assert line.split("|")[3].strip().startswith("0.000")  # of supported and refuted claims alone


def test_majority_label_is_that_of_the_other_folds():
    rows = [judged(row(str(i), "supports" if i % 4 else "refutes", ["hm"])) for i in range(80)]
    reported = majority(rows)
    assert {t.label for t in reported} == {"supports"}
    assert all(abs(t.probs.supports - 0.75) < 0.08 for t in reported)
    assert {t.label for t in always(rows, "neutral")} == {"neutral"}


def test_two_labels_take_the_more_likely_and_refutes_on_ties():
    reported = [ClaimVerdict("neutral", Support(0.2, 0.1, 0.7)), ClaimVerdict("supports", Support(0.3, 0.3, 0.4))]
    assert [t.label for t in two_labels(reported)] == ["supports", "refutes"]


def test_speed_is_measured_on_what_is_listed(data, monkeypatch, capsys):
    given = ("--data", data, "--entailment", "lexical", "--claims", 20, "-k", 3)
    out = run(verify_speed, *given, monkeypatch=monkeypatch, capsys=capsys)
    assert "20 claims, 60 passages" in out
    assert "lexical-2" in out
