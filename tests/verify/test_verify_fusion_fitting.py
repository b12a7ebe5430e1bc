"""Fitting fusion: deterministic, never worse than where it began, kept in a file, and refused to other verifiers."""

from __future__ import annotations

import json
import math
import random

import pytest
from reason.core.errors import DataError, UserError
from reason.verify.fusion import EvidenceItem, FusionParameters, fuse_evidence
from reason.verify.fusion_fitting import (
    FusionExample,
    average_prediction,
    data_hash,
    fit_fusion,
    load_fusion,
    mean_loss,
    save_fusion,
)
from reason.verify.types import Support, support
from support.evidence_items import MODES, A, B, Z, close, of


def world(n, seed, *, disputes=True):
    """Claims of which few sentences tell, by a verifier that is often too sure."""
    rng = random.Random(seed)
    found = []
    for number in range(n):
        gold = rng.choice(["supports", "supports", "refutes", "neutral", *(["disputed"] if disputes else [])])
        sides = {"supports": [0], "refutes": [1], "neutral": [], "disputed": [0, 1]}[gold]
        items = []
        for k in range(5):
            favoured = sides[k % len(sides)] if sides and rng.random() < 0.6 else 2
            weights = [rng.random() * 0.3 + 1.6 * (y == favoured) for y in range(3)]
            items.append(EvidenceItem((support(weights),), id=f"{number}-{k}", document=rng.choice(["", "d"])))
        found.append(FusionExample(tuple(items), gold))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_14_never_worse_than_the_defaults_and_the_same_each_time(mode):
    examples = world(60, 1)
    start = FusionParameters(mode=mode)
    fitted = fit_fusion(examples, verifier="v", source="s", start=start)
    assert fitted.nll_before == pytest.approx(mean_loss(examples, start), abs=1e-9)
    assert fitted.nll == pytest.approx(mean_loss(examples, fitted.parameters), abs=1e-9)
    assert fitted.nll <= fitted.nll_before
    shuffled = random.Random(2).sample(examples, len(examples))
    again = fit_fusion([FusionExample(e.items[::-1], e.gold) for e in shuffled], verifier="v", source="s", start=start)
    assert again == fitted
    assert again.digest == fitted.digest


def test_14_where_the_defaults_are_best_they_stay():
    # nothing on the grid can be better than what is right for certain
    examples = [FusionExample((EvidenceItem((Support(1 / 3, 1 / 3, 1 / 3),)),), "supports")] * 30
    start = FusionParameters(mode="mean")
    fitted = fit_fusion(examples, verifier="v", source="s", start=start)
    assert fitted.parameters == start
    assert fitted.nll == fitted.nll_before == pytest.approx(math.log(3))


def test_fitting_finds_what_is_wrong():
    over = [FusionExample(tuple(of(A, A, A, Z)), "supports" if n % 3 else "neutral") for n in range(60)]
    fitted = fit_fusion(over, verifier="v", source="s", start=FusionParameters(mode="product", beta=1, temperature=1))
    assert fitted.nll < fitted.nll_before - 0.1
    probs = fuse_evidence(over[0].items, fitted.parameters).probs
    assert probs.supports == pytest.approx(2 / 3, abs=0.1)


def test_small_gains_do_not_move_the_prior():
    """Evidence that does not tell leaves it to the prior: 53 of 100 claims that hold may be chance, 90 are not."""
    vague = tuple(of(*[Support(0.45, 0.45, 0.1)] * 3))

    def prior(holding):
        examples = [FusionExample(vague, "supports" if n < holding else "refutes") for n in range(100)]
        return fit_fusion(examples, verifier="v", source="s").parameters.pi

    assert prior(53) == 0.5
    assert prior(90) == pytest.approx(90.5 / 101)


def test_a_label_that_was_thought_impossible_costs_a_bounded_loss():
    examples = [FusionExample(tuple(of(*[Z] * 8)), "supports")] * 20
    start = FusionParameters(mode="product", beta=1, temperature=1)
    assert fit_fusion(examples, verifier="v", source="s", start=start).nll_before == pytest.approx(12 * math.log(10))
    assert mean_loss(examples, start) == pytest.approx(12 * math.log(10))


def test_the_threshold_of_conflict_is_that_of_the_best_f1():
    mild = Support(0.6, 0.3, 0.1)  # a conflict of 0.89 with itself
    examples = [FusionExample(tuple(of(*[mild] * 4)), "supports")] * 30 + [
        FusionExample(tuple(of(A, B, A, B)), "disputed")
    ] * 5
    start = FusionParameters(a=1)
    fitted = fit_fusion(examples, verifier="v", source="s", start=start)
    assert (fitted.examples, fitted.disputed) == (30, 5)
    assert fitted.parameters.theta_c == 0.9  # the nearest to 0.6 that tells them apart
    none = fit_fusion(examples[:30], verifier="v", source="s", start=start)
    assert none.parameters.theta_c == 0.6


def test_it_is_kept_in_a_file_and_refuses_other_verifiers(tmp_path):
    fitted = fit_fusion(world(30, 4), verifier="nli-7f", source="bm25@5")
    path = tmp_path / "sub" / "nli.json"
    save_fusion(fitted, path)
    read = load_fusion(path)
    assert read.name == "nli"
    assert read.model_copy(update={"name": ""}) == fitted
    assert read.digest == fitted.digest
    parameters = read.parameters_for(verifier="nli-7f", source="bm25@5")
    assert parameters.fitted == fitted.digest
    assert fuse_evidence(of(A), parameters).warnings == ()
    with pytest.raises(DataError, match=r"nli .*'nli-7f', not to 'other'"):
        read.parameters_for(verifier="other", source="bm25@5")
    with pytest.raises(DataError, match=r"'bm25@5', not to 'gold'"):
        read.parameters_for(verifier="nli-7f", source="gold")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "not a complete JSON file"),
        (lambda text: text.replace("reason evidence fusion", "reason router"), "is no evidence fusion"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "has format 2"),
        (lambda text: json.dumps(json.loads(text) | {"examples": 0}), "damaged: examples"),
        (lambda text: json.dumps(json.loads(text) | {"more": 1}), "damaged: more"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    path = tmp_path / "f.json"
    save_fusion(fit_fusion(world(24, 4, disputes=False), verifier="v", source="s"), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=message):
        load_fusion(path)
    with pytest.raises(DataError, match="there is no evidence fusion"):
        load_fusion(tmp_path / "none.json")


def test_too_few_claims_are_refused():
    few = world(19, 1, disputes=False)
    with pytest.raises(UserError, match="at least 20 claims that are not disputed, got 19"):
        fit_fusion([*few, FusionExample(tuple(of(A, B)), "disputed")], verifier="v", source="s")


def test_the_data_has_a_hash():
    examples = world(5, 1)
    assert data_hash(examples) == data_hash([FusionExample(e.items[::-1], e.gold) for e in examples[::-1]])
    assert data_hash(examples) != data_hash(examples[1:])
    other = [
        FusionExample(examples[0].items, "refutes" if examples[0].gold != "refutes" else "supports"),
        *examples[1:],
    ]
    assert data_hash(examples) != data_hash(other)


def test_the_average_prediction():
    examples = [FusionExample(tuple(of(A, B)), "supports"), FusionExample(tuple(of(Z)), "neutral")]
    assert average_prediction(examples) == close((0.97 / 3, 0.97 / 3, 1.06 / 3), 1e-5)
    with pytest.raises(UserError, match="no evidence"):
        average_prediction([FusionExample((), "neutral")])
