"""The training of the embedded judge: splits, contrasts, epochs, the temperature, and one run on a tiny encoder."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
import train
from cases import (
    ClaimCase,
    EpochSource,
    SamplingMix,
    ValuePools,
    contrast_pairs,
    make_batches,
    negated_claim,
    normalize_claim,
    parse_paths,
    read_cases,
    read_corpus,
    sample_epoch,
    split_cases,
)
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.serving.model_files.find import ModelFiles
from reason.verify.entailment.embedded import TokenRow, load_delta
from reason.verify.types import Pair
from support.entailment_files import write_claims
from support.tiny_encoder import write_tiny_encoder


def case(claim: str, group: str = "", label: str = "supports") -> ClaimCase:
    return ClaimCase(source="vitaminc", name=claim, claim=claim, label=label, case=group)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_claims(tmp_path)


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["", "1", "2", "3"])), max_size=30))
def test_no_claim_and_no_group_is_in_two_splits(drawn):
    cases = [case(f"claim {letter}", group) for letter, group in drawn]
    splits = split_cases(cases, holdout=0.5)
    where = {}
    for split in ("train", "validation", "test"):
        for one in getattr(splits, split):
            where.setdefault(normalize_claim(one.claim), set()).add(split)
            if one.case:
                where.setdefault(f"group {one.case}", set()).add(split)
    assert all(len(result) == 1 for result in where.values())
    assert sum(len(getattr(splits, split)) for split in ("train", "validation", "test")) == len(cases)


def test_a_fifth_is_held_out_in_any_order():
    cases = [case(f"claim number {i}") for i in range(2000)]
    held = {c.claim for c in split_cases(cases).test}
    assert 0.17 < len(held) / 2000 < 0.23
    assert held == {c.claim for c in split_cases(cases[::-1]).test}
    assert held <= {c.claim for c in split_cases(cases, holdout=0.3).test}


def test_what_is_connected_to_a_test_claim_is_not_trained_on():
    claims = [case(f"claim number {i}", group=str(i // 3)) for i in range(300)]
    more = [
        ClaimCase(source="extra", name=f"x{i}", claim=f"Claim number {i}!", label="refutes", case="")
        for i in range(400)
    ]
    splits = split_cases([*claims, *more], holdout=0.3, train_only=["extra"])
    tested = {normalize_claim(c.claim) for c in (*splits.test, *splits.validation)}
    assert tested
    assert all(c.source == "vitaminc" for c in (*splits.test, *splits.validation))
    trained_extra = {normalize_claim(c.claim) for c in splits.train if c.source == "extra"}
    assert trained_extra == {normalize_claim(c.claim) for c in more} - tested


def test_neither_claim_nor_text_of_a_contrast_predicts_the_label():
    pair = Pair("The film was directed by Hanna Okafor in 1998.", "The film was directed by Hanna Okafor.")
    pools = ValuePools.of(["It was directed by Paul Green.", "It was written by Ann Moss."])
    made = contrast_pairs(pair, pools, random.Random(1), "k", "g")
    labels = {(pair.claim, pair.evidence): "supports"} | {(m.pair.claim, m.pair.evidence): m.label for m in made}
    assert len(labels) == 4
    for position in (0, 1):
        by = {}
        for key, label in labels.items():
            by.setdefault(key[position], Counter())[label] += 1
        assert all(result == {"supports": 1, "refutes": 1} for result in by.values())


def test_a_compared_number_is_not_exchanged():
    pools = ValuePools.of(["It has 130 cats and 140 dogs."])
    pair = Pair("It has 120 cats.", "It has more than 119 cats.")
    assert contrast_pairs(pair, pools, random.Random(1), "k", "g") == []
    assert contrast_pairs(pair._replace(claim="It has 120 cats."), pools, random.Random(1), "k", "g") != []


@pytest.mark.parametrize(
    ("claim", "label", "made"),
    [
        ("Ann is a judge.", "supports", ("Ann is not a judge.", "refutes")),
        ("Ann is not a judge.", "supports", ("Ann is a judge.", "refutes")),
        ("Ann has been a judge.", "refutes", ("Ann has not been a judge.", "supports")),
        ("Ann is only a judge.", "supports", None),
        ("Ann sings.", "supports", None),
        ("Ann is a judge.", "neutral", None),
    ],
)
def test_negation_turns_the_label(claim, label, made):
    result = negated_claim(Pair("text", claim), label, "k", "g")
    assert [(one.pair.claim, one.label) for one in result] == ([made] if made else [])


def test_an_epoch_depends_on_its_seed(files):
    corpus = read_corpus(files["corpus"])
    stock = EpochSource.of(read_cases("fever", files["fever"], corpus), corpus, SamplingMix())
    first = sample_epoch(stock, 3, 0)
    assert first == sample_epoch(stock, 3, 0)
    assert first != sample_epoch(stock, 3, 1)
    assert first != sample_epoch(stock, 4, 0)
    labels = Counter(one.label for one in first)
    assert min(labels.values()) > 0.15 * len(first)
    assert any("exchanged" in one.kind for one in first)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abcd")), min_size=1, max_size=60), st.integers(2, 9))
def test_batches_hold_every_pair_once_and_groups_together(drawn, size):
    rows = [TokenRow((1,) * length, (0,) * length, 0, ()) for length, _ in drawn]
    result = make_batches(rows, [group for _, group in drawn], size, random.Random(0))
    assert sorted(i for batch in result for i in batch) == list(range(len(drawn)))
    assert all(len(batch) <= size + 3 for batch in result)
    counts = Counter(group for _, group in drawn)
    for group, count in counts.items():
        if count <= 4:
            assert sum(any(drawn[i][1] == group for i in batch) for batch in result) == 1


def test_the_temperature_corrects_overconfidence():
    logits = torch.tensor([[math.log(98.0), 0.0, 0.0]] * 40, dtype=torch.float64)
    labels = torch.tensor([0 if i % 4 else 1 for i in range(40)])
    # then the right share, 3 of 4, is stated
    assert train.fit_temperature(logits, labels) == pytest.approx(math.log(98) / math.log(6), abs=0.01)


def test_a_training_is_repeated_exactly_and_can_be_continued(files, tmp_path, monkeypatch, capsys):
    directory = write_tiny_encoder(tmp_path / "encoder")
    found = ModelFiles("local/all-minilm-l6-v2", directory, "f" * 64, "test")
    monkeypatch.setattr(train, "find_encoder", lambda *_, **__: found)
    data = ["--data", f"fever={files['fever']}", f"vitaminc={files['vitaminc']}", "--corpus", str(files["corpus"])]
    data += ["--test-only", f"fever_symmetric={files['fever_symmetric']}", "--rate", "vitaminc=0.5"]
    digests = []
    for name, more in (("a", []), ("b", []), ("c", ["--start", str(tmp_path / "a")])):
        options = ["--epochs", "1", "--batch-size", "40", "--out", str(tmp_path / name), *more]
        monkeypatch.setattr("sys.argv", ["train.py", *data, *options])
        train.main()
        digests.append(load_delta(file=tmp_path / name).digest)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert digests[2] != digests[0]
    assert "validation accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match="is not NAME=PATH"):
        parse_paths(["fever"])
