"""Attribution scores, labels of claims by those of their sentences, and the reliability diagram."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from reason.core.errors import DataError
from reason.verify.metrics import (
    claim_label,
    evidence_recall,
    evidence_scores,
    mean_evidence_scores,
    parse_gold_label,
)
from support.evidence_items import close

CLIMATE = Path("/work/shared/data/climate_fever/dev.jsonl")


def test_7_attribution_by_hand():
    assert evidence_scores({1, 2}, {2, 3, 4}) == close((1 / 2, 1 / 3, 2 / 5), 1e-12)
    assert evidence_scores([1, 1, 2], [2, 2]) == close((1 / 2, 1, 2 / 3), 1e-12)
    assert evidence_scores([], {1}) == (0, 0, 0)
    assert evidence_scores({1}, []) is None  # skipped, not counted as 1


def test_7_rows_without_gold_are_skipped():
    rows = [evidence_scores({1}, {1}), evidence_scores({1}, set()), evidence_scores({1}, {2})]
    assert mean_evidence_scores(rows) == ((0.5, 0.5, 0.5), 2)
    assert mean_evidence_scores([None]) == (None, 0)


@pytest.mark.parametrize(("named", "expected"), [({0}, 1), ({1, 2}, 1), ({1}, 0), ({0, 1}, 1), (set(), 0)])
def test_7_recall_of_fever_sets(named, expected):
    assert evidence_recall(named, [[0], [1, 2]]) == expected


def test_7_no_sets_are_skipped():
    assert evidence_recall({0}, []) is None
    assert evidence_recall({0}, [[]]) is None


SENTENCE_LABELS = ("supports", "refutes", "neutral")


def test_12_the_rule_on_every_three_sentences():
    for labels in itertools.product(SENTENCE_LABELS, repeat=3):
        found = claim_label(labels)
        if "supports" in labels and "refutes" in labels:
            assert found == "disputed"
        elif "supports" in labels:
            assert found == "supports"
        elif "refutes" in labels:
            assert found == "refutes"
        else:
            assert found == "neutral"
    assert claim_label([]) == "neutral"


def test_12_the_rule_on_the_real_data():
    if not CLIMATE.is_file():
        pytest.skip(f"there is no data {CLIMATE}")
    rows = [json.loads(line) for line in CLIMATE.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 783
    wrong = [
        r["id"]
        for r in rows
        if claim_label(parse_gold_label(e["label"]) for e in r["evidence"]) != parse_gold_label(r["label"])
    ]
    assert wrong == []


def test_names_of_labels():
    assert parse_gold_label("SUPPORTS") == "supports"
    assert (
        parse_gold_label("NOT ENOUGH INFO")
        == parse_gold_label("NOT_ENOUGH_INFO")
        == parse_gold_label(" not_enough  info ")
        == "neutral"
    )
    assert parse_gold_label("DISPUTED") == "disputed"
    with pytest.raises(DataError, match="unknown label of a claim 'maybe'"):
        parse_gold_label("maybe")
