"""Calibrations of verdicts in files: fitted deterministically, measured out of sample, refused to other verifiers."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from reason.core.errors import DataError, UserError
from reason.verify.calibration import (
    VerdictCalibration,
    _folds,
    apply_temperature,
    calibration_scores,
    fit_calibration,
    load_calibration,
    save_calibration,
)
from reason.verify.types import support
from support.evidence_items import A, supports

WHOSE = {"backend": "nli-7f", "aggregation": "witness a=0.4", "prompt": "p1"}
METHODS = ("temperature", "platt", "isotonic")


def overconfident(n, seed, temperature=3.0):
    """Verdicts whose labels come as often as their probabilities say, and what a verifier makes of them."""
    rng = random.Random(seed)
    given_probs, golds = [], []
    for _ in range(n):
        true = support(rng.gammavariate(0.7, 1) + 1e-6 for _ in range(3))
        golds.append(rng.choices(["supports", "refutes", "neutral"], true)[0])
        given_probs.append(apply_temperature(true, 1 / temperature))
    return given_probs, golds


@pytest.fixture(scope="module")
def fitted():
    given_probs, golds = overconfident(600, 1)
    return {method: fit_calibration(method, given_probs, golds, **WHOSE) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_ece_is_halved_out_of_sample(fitted, method):
    found = fitted[method]
    assert found.after.ece < found.before.ece / 2
    assert found.after.brier < found.before.brier
    assert found.after.nll < found.before.nll
    given_probs, golds = overconfident(2000, 2)  # others
    assert calibration_scores([found.apply(s) for s in given_probs], golds).ece < 0.06
    assert calibration_scores(given_probs, golds).ece > 0.12


def test_what_is_told_is_out_of_sample(fitted):
    """On its own examples an isotonic map has no error; on those that it was fitted without it has."""
    given_probs, golds = overconfident(600, 1)
    own = calibration_scores([fitted["isotonic"].apply(s) for s in given_probs], golds)
    assert own.brier < fitted["isotonic"].after.brier - 0.003
    assert own.ece < fitted["isotonic"].after.ece - 0.01


def test_the_temperature_is_found(fitted):
    assert fitted["temperature"].temperature == pytest.approx(3.0, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
@given(supports)
@settings(max_examples=30, deadline=None)
def test_the_likeliest_stays(fitted, method, draw):
    found = fitted[method].apply(draw)
    assert found.label == draw.label
    assert sum(found) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_examples_does_not_matter(fitted, method):
    pairs = list(zip(*overconfident(600, 1), strict=True))
    random.Random(9).shuffle(pairs)
    again = fit_calibration(method, [s for s, _ in pairs], [g for _, g in pairs], **WHOSE)
    assert again == fitted[method]
    assert again.digest == fitted[method].digest


def test_groups_are_never_parted():
    """A map that saw the twin of what it is measured on would tell too good a figure."""
    parts = _folds([f"case {i // 3}" for i in range(60)])
    assert all(len(set(parts[i : i + 3])) == 1 for i in range(0, 60, 3))
    assert sorted(map(parts.count, set(parts))) == [12] * 5
    given_probs, golds = overconfident(40, 3)
    cases = [f"case {i // 2}" for i in range(40)]
    found = fit_calibration("temperature", given_probs, golds, groups=cases, **WHOSE)
    assert found.temperature == fit_calibration("temperature", given_probs, golds, **WHOSE).temperature
    with pytest.raises(UserError, match="one group"):
        fit_calibration("temperature", given_probs, golds, groups=["x"] * 40, **WHOSE)
    with pytest.raises(UserError, match=r"as many groups as examples \(40\), got 39"):
        fit_calibration("temperature", given_probs, golds, groups=cases[1:], **WHOSE)


def test_isotonic_needs_500_examples_and_all_need_20():
    given_probs, golds = overconfident(499, 1)
    with pytest.raises(UserError, match="'isotonic' needs at least 500 examples, got 499"):
        fit_calibration("isotonic", given_probs, golds, **WHOSE)
    with pytest.raises(UserError, match="at least 20 examples, got 19"):
        fit_calibration("temperature", given_probs[:19], golds[:19], **WHOSE)


@pytest.mark.parametrize("method", METHODS)
def test_it_is_kept_in_a_file(tmp_path, fitted, method):
    found = fitted[method].model_copy(update={"threshold": 0.7})
    path = tmp_path / "sub" / "mine.json"
    save_calibration(found, path)
    read = load_calibration(path)
    assert read.name == "mine"
    assert read.model_copy(update={"name": ""}) == found
    assert read.apply(A) == found.apply(A)
    assert (read.digest, read.threshold) == (found.digest, 0.7)
    assert read.digest != fitted[method].digest


@pytest.mark.parametrize("other", [{"backend": "b"}, {"aggregation": "mean"}, {"prompt": "p2"}])
def test_others_are_refused(fitted, other):
    found = fitted["temperature"].model_copy(update={"name": "mine"})
    found.check_fitted_for(**WHOSE)
    [(called, value)] = other.items()
    with pytest.raises(DataError, match=f"mine .* was fitted for the {called} '{WHOSE[called]}', not for '{value}'"):
        found.check_fitted_for(**(WHOSE | other))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "not a complete JSON file"),
        (lambda text: text.replace("reason verdict calibration", "reason calibration map"), "no verdict calibration"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "has format 9"),
        (lambda text: json.dumps(json.loads(text) | {"temperature": 0}), "damaged: temperature"),
        (
            lambda text: json.dumps(json.loads(text) | {"method": "platt"}),
            "damaged: file: the methods platt and isotonic need a curve",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, fitted, damage, message):
    path = tmp_path / "f.json"
    save_calibration(fitted["temperature"], path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=message):
        load_calibration(path)


def test_a_curve_is_that_of_the_method(fitted):
    fields = fitted["platt"].model_dump()
    with pytest.raises(ValidationError):
        VerdictCalibration.model_validate(fields | {"method": "isotonic"})
    with pytest.raises(ValidationError):
        VerdictCalibration.model_validate(fields | {"temperature": 2.0})


def test_data_have_a_hash(fitted):
    given_probs, golds = overconfident(600, 1)
    assert fitted["temperature"].data == fitted["platt"].data
    golds[0] = "neutral" if golds[0] != "neutral" else "supports"
    assert fit_calibration("temperature", given_probs, golds, **WHOSE).data != fitted["temperature"].data
