"""Checks on real data, where there is a directory of it: `REASON_TEST_DATA` names it."""

import json
import os
from pathlib import Path

import pytest
from reason.evals.datasets.loading import load_dataset

DATA = Path(os.environ.get("REASON_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="REASON_TEST_DATA names no directory of datasets")


@pytest.mark.parametrize(
    "name",
    [
        "aime", "aime:2024", "math500", "math500:1-3", "gsm8k", "truthfulqa", "truthfulqa:mc2",
        "fever", "fever:oracle-sr", "fever:retrieval",
    ],
)  # fmt: skip
def test_a_dataset_is_read_completely(name):
    dataset = load_dataset(name, data=DATA)
    assert len(dataset.by_id) == dataset.size > 0
    assert len(dataset.sha256) == len(dataset.fingerprint) == 64
    for item in dataset.items:
        if item.question.choices:
            assert 2 <= len(item.question.choices) <= 26
            assert 0 < len(item.gold_positions) < len(item.question.choices)


def test_the_right_choice_of_truthfulqa_is_at_any_position():
    items = [i for i in load_dataset("truthfulqa", data=DATA).items if len(i.question.choices) == 4]
    places = [i.gold_positions[0] for i in items]
    expected = len(items) / 4
    for place in range(4):
        assert abs(places.count(place) - expected) < 4 * (expected * 3 / 4) ** 0.5


def test_truthfulqas_choices_are_the_rows():
    rows = {r["id"]: r for r in map(json.loads, (DATA / "truthfulqa" / "dev.jsonl").read_text().splitlines())}
    for item in load_dataset("truthfulqa:mc2", data=DATA).items:
        row = rows[item.id]
        right = {c for c, one in zip(row["mc2"]["choices"], row["mc2"]["labels"], strict=True) if one}
        assert {item.question.choices[i] for i in item.gold.correct} == right
        best = row["mc1"]["choices"][row["mc1"]["labels"].index(1)]
        assert item.question.choices[item.gold.mc1_correct] == best


def test_every_class_of_fevers_oracle_has_as_many_sentences():
    counts = {len(i.question.documents) for i in load_dataset("fever", data=DATA).items}
    assert counts == {5}
