"""Fitting calibration maps: against direct minima and an algorithm written here, never on a fold's own answers."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.calibration import CalibrationCurve, load_calibration_map
from reason.core.errors import UserError
from reason.core.settings import LocalSettings
from reason.evals.calibration import (
    RIDGE,
    assign_folds,
    calibration_data,
    calibration_scores,
    cross_validated,
    fit_calibration_map,
    fit_curve,
    save_calibration_map,
)
from reason.evals.comparison import run_settings
from reason.evals.results import ResultRow
from scipy.optimize import minimize_scalar
from support.calibration_maps import failed_row, make_plan, make_row, make_run

METHODS = ("temperature", "platt", "isotonic")
pairs = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.125, 0.5, 0.875, 1.0])), st.integers(0, 1)),
    min_size=2,
    max_size=40,
)


def split(result: Sequence[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c for c, _ in result], dtype=float), np.array([y for _, y in result], dtype=float)


def overconfident(items: int, seed: int = 0, seeds: int = 1) -> list[ResultRow]:
    """Votes of eight that are right less often than they say: with a chance of sigmoid(logit(c)/2)."""
    rng = random.Random(seed)
    rows = []
    for i in range(items):
        for s in range(seeds):
            votes = rng.randint(1, 7)
            chance = 1 / (1 + math.sqrt((8 - votes) / votes))
            rows.append(make_row(f"item-{i:04}", votes / 8, rng.random() < chance, s))
    return rows


def log_loss(c: np.ndarray, y: np.ndarray, clip: float, intercept: float, slope: float) -> float:
    """The summed loss as the docstring says it, written the plain way."""
    total = RIDGE / 2 * (intercept**2 + (slope - 1) ** 2)
    for confidence, right in zip(c, y, strict=True):
        cut = min(max(confidence, clip), 1 - clip)
        p = 1 / (1 + math.exp(-(intercept + slope * math.log(cut / (1 - cut)))))
        total -= math.log(p) if right else math.log(1 - p)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_the_direct_minimum_and_platt_has_no_better_neighbour(seed):
    c, y = split([(r.confidence or 0.0, int(bool(r.correct))) for r in overconfident(60, seed)])
    curve = temperature = fit_curve("temperature", c, y)
    assert curve.clip == 1 / 16
    direct = minimize_scalar(
        lambda b: log_loss(c, y, 1 / 16, 0, b), bounds=(0, 10), method="bounded", options={"xatol": 1e-10}
    )
    assert curve.slope == pytest.approx(max(direct.x, 0), abs=1e-5)
    grid = min(np.arange(0, 4, 0.01), key=lambda b: log_loss(c, y, 1 / 16, 0, b))
    assert curve.slope == pytest.approx(grid, abs=0.0051)
    curve = fit_curve("platt", c, y)
    best = log_loss(c, y, curve.clip, curve.intercept, curve.slope)
    assert best <= log_loss(c, y, curve.clip, 0, temperature.slope)
    for da, db in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)):
        for step in (1e-3, 0.1, 1.0):
            slope = max(curve.slope + step * db, 0)
            assert log_loss(c, y, curve.clip, curve.intercept + step * da, slope) >= best - 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_separable_answers_stay_finite_and_confidence_that_points_the_wrong_way_becomes_constant(method):
    curve = fit_curve(method, *split([(0.25, 0)] * 30 + [(0.75, 1)] * 30))
    assert curve.apply(0.25) < 0.01
    assert curve.apply(0.75) > 0.99
    assert 0 <= curve.apply(0.0) <= curve.apply(1.0) <= 1
    wrong_way = split([(0.25, 1)] * 20 + [(0.25, 0)] * 10 + [(0.75, 1)] * 10 + [(0.75, 0)] * 20)
    curve = fit_curve(method, *wrong_way)
    assert curve.constant
    assert curve.apply(0.9) == pytest.approx(0.5, abs=1e-4)


def pooled(c: Sequence[float], y: Sequence[float]) -> dict[float, float]:
    """The value at each confidence, by pooling neighbours that fall until none does."""
    at = sorted(set(c))
    blocks = [[sum(r for x, r in zip(c, y, strict=True) if x == a), float(list(c).count(a)), 1.0] for a in at]
    i = 0
    while i < len(blocks) - 1:
        if blocks[i][0] / blocks[i][1] > blocks[i + 1][0] / blocks[i + 1][1]:
            blocks[i : i + 2] = [[p + q for p, q in zip(blocks[i], blocks[i + 1], strict=True)]]
            i = max(i - 1, 0)
        else:
            i += 1
    values = [right / n for right, n, points in blocks for _ in range(int(points))]
    return dict(zip(at, values, strict=True))


@given(pairs)
@settings(deadline=None)
def test_isotonic_is_what_pooling_gives(found):
    c, y = split(found)
    curve = fit_curve("isotonic", c, y)
    for x, value in pooled(c.tolist(), y.tolist()).items():
        assert curve.apply(x) == pytest.approx(value, abs=1e-12)


# -- cross-validation


def test_folds_keep_groups_together_and_depend_only_on_names_and_seed():
    groups = [f"g{i % 23}" for i in range(80)]
    fold = assign_folds(groups, 5, seed=3)
    by_group = {g: {int(f) for f, h in zip(fold, groups, strict=True) if h == g} for g in groups}
    assert all(len(result) == 1 for result in by_group.values())
    sizes = [sum(next(iter(f)) == k for f in by_group.values()) for k in range(5)]
    assert (min(sizes), max(sizes), sum(sizes)) == (4, 5, 23)
    assert assign_folds(groups[::-1], 5, seed=3).tolist() == fold.tolist()[::-1]
    assert assign_folds(groups, 5, seed=4).tolist() != fold.tolist()


@pytest.mark.parametrize("folds", [1, 4])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(UserError, match=f"3 groups of items cannot be split into {folds} folds .use 2 to 3 folds"):
        assign_folds(["a", "b", "c"], folds)


def test_a_fold_is_never_fitted_on_itself():
    rows = [r.model_copy(update={"group": f"g{int(r.id[-4:]) // 2}"}) for r in overconfident(40, seeds=2)]
    answers = calibration_data(rows)
    fold = assign_folds(answers.groups, 4, seed=1)
    # a confidence of its own for each answer, so that an answer can be found in what is fitted
    own = np.linspace(0.01, 0.99, len(rows))
    marked = type(answers)(own, answers.correct, answers.groups, answers.items, 0, 0)
    seen = []

    def spy(confidence: np.ndarray, correct: np.ndarray) -> CalibrationCurve:
        assert correct.tolist() == answers.correct[np.isin(own, confidence)].tolist()
        seen.append(set(confidence.tolist()))
        return CalibrationCurve(method="temperature")

    cross_validated(marked, spy, 4, seed=1)
    assert len(seen) == 4
    for i, trained in enumerate(seen):
        held = set(own[fold == i].tolist())
        assert len(held) == 20
        assert trained == set(own.tolist()) - held


# -- maps of runs


def test_a_map_of_a_run(tmp_path):
    rows = [
        *overconfident(200, seeds=2),
        failed_row("gone", 0.875),
        failed_row("silent", None),
        make_row("unread", 0.5, None, parsed=False),
        make_row("neither", 0.5, None),
    ]
    result, answers = fit_calibration_map(make_run(rows), "platt", folds=4)
    assert (answers.unstated, answers.undecided) == (1, 1)
    assert (result.items, result.answers, result.seeds, result.folds) == (202, 402, (0, 1), 4)
    assert answers.correct[-2:].tolist() == [0, 0]
    assert (result.strategy, result.parameters["n"], result.dataset) == ("self-consistency", 8, "sums")
    assert (result.models, result.engines) == ({"main": "scripted"}, {"main": "scripted@1"})
    assert result.before == calibration_scores(answers.confidence, answers.correct)
    assert result.after.ece < result.before.ece
    assert result.regressed_scores == ()
    save_calibration_map(result, tmp_path / "votes.json")
    assert load_calibration_map(tmp_path / "votes.json") == result.model_copy(update={"name": "votes"})
    assert fit_calibration_map(make_run(rows[::-1]), "platt", folds=4)[0].after.brier == pytest.approx(
        result.after.brier, abs=1e-9
    )


def test_a_map_records_the_verifiers_and_how_much_the_models_thought():
    run = make_run(overconfident(200), verify=("davinci",), effort="high", thinking_tokens=500)
    result, _ = fit_calibration_map(run, "platt")
    assert (result.verify, result.effort, result.thinking_tokens) == (("davinci",), "high", 500)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (overconfident(19, seeds=3), r"at least 20 items .*there are 19 .run the evaluation on more items"),
        ([make_row(f"i{i}", None, True) for i in range(30)], r"no row of self-consistency has a confidence"),
        ([make_row(f"i{i}", 0.5, True) for i in range(30)], r"every answer is right.*run on more items"),
        ([failed_row(f"i{i}", 0.5) for i in range(30)], r"every answer is wrong"),
        ([make_row(f"i{i}", 0.5, None) for i in range(30)], r"there are 0"),
    ],
)
def test_runs_that_allow_no_map_are_refused(rows, said):
    with pytest.raises(UserError, match=said):
        fit_calibration_map(make_run(rows), "platt")


def test_rows_of_two_models_are_refused():
    rows = overconfident(30)
    other = rows[0].model_copy(update={"engines": {"main": "scripted@2"}})
    with pytest.raises(UserError, match=r"several main models: scripted@1, scripted@2"):
        fit_calibration_map(make_run([other, *rows[1:]]), "platt")
    with pytest.raises(UserError, match="names the model that answered"):
        fit_calibration_map(make_run([r.model_copy(update={"engines": {}}) for r in rows]), "platt")


# -- what evaluations keep


def test_a_map_changes_the_run_directory_but_not_the_compared_settings():
    result, _ = fit_calibration_map(make_run(overconfident(40)), "platt")
    plain, mapped = make_plan(), make_plan(calibration=result)
    assert plain.digest != mapped.digest
    assert mapped.in_sample
    assert not plain.in_sample
    rows = overconfident(40)
    assert run_settings(make_run(rows)) == run_settings(make_run(rows, calibration=result))


def test_unset_fields_do_not_change_the_digest():
    """A field without a value leaves the digest of plans as it is."""
    where = {"source", "licence", "warning", "sha256", "options"}
    plain = make_plan().model_dump(
        mode="json",
        exclude={
            "limit": True,
            "calibration": True,
            "context": True,
            "local": {"speculative_decoding"},
            "dataset": where,
        },
    )
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert make_plan().digest == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert make_plan().model_copy(update={"context": ("docs",)}).digest != make_plan().digest
    assert make_plan().model_copy(update={"local": LocalSettings(max_num_seqs=3)}).digest != make_plan().digest
