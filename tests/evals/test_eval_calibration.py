"""Calibration against scikit-learn where it has the measure, by hand and by property where not."""

import math

import numpy as np
import pytest
from reason.core.errors import UserError
from reason.evals.statistics.calibration import (
    adaptive_ece,
    aurc,
    auroc,
    calibration_metrics,
    ece,
    nll,
    reliability,
)

EXACT = {"rel": 0, "abs": 1e-9}


def test_ece_by_hand():
    """Bins (0.5, 0.6] and (0.8, 0.9]: |0.5 - 0.55|·2/4 + |1 - 0.875|·2/4."""
    c, y = np.array([0.55, 0.55, 0.85, 0.9]), np.array([1.0, 0.0, 1.0, 1.0])
    assert ece(c, y) == pytest.approx(0.05 * 0.5 + 0.125 * 0.5, **EXACT)
    bins = reliability(c, y)
    assert [(b.low, b.count) for b in bins] == [(0.5, 2), (0.8, 2)]


def test_edges_belong_to_the_lower_bin():
    c = np.array([0.0, 0.1, 0.3, 0.7, 1.0])
    assert [b.high for b in reliability(c, np.ones(5))] == pytest.approx([0.1, 0.3, 0.7, 1.0], **EXACT)


def test_adaptive_ece_by_hand():
    """Two bins of two: |0.15 - 0.5| and |0.75 - 0.5|, halved each."""
    c, y = np.array([0.9, 0.1, 0.6, 0.2]), np.array([1.0, 0.0, 0.0, 1.0])
    assert adaptive_ece(c, y, bins=2) == pytest.approx((0.35 + 0.25) / 2, **EXACT)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(8)
    c = np.round(rng.random(200), 2)  # with ties
    y = (rng.random(200) < c).astype(float)
    result = calibration_metrics(c, y)
    assert result.brier == pytest.approx(metrics.brier_score_loss(y, c), **EXACT)
    assert result.nll == pytest.approx(metrics.log_loss(y, c), **EXACT)
    assert result.auroc == pytest.approx(metrics.roc_auc_score(y, c), **EXACT)


def test_auroc_needs_both_kinds():
    assert auroc(np.array([0.1, 0.9]), np.ones(2)) is None


def test_a_wrong_certainty_costs_much_but_not_infinitely():
    assert nll(np.array([1.0]), np.array([0.0])) == pytest.approx(52 * math.log(2), **EXACT)


def test_aurc_by_hand():
    c, y = np.array([0.9, 0.8, 0.8, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    # errors 0, then two that share 1/2, then 1: risks 0, 1/4, 1/3, 1/2
    assert aurc(c, y) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4, **EXACT)


def test_bad_input_is_refused():
    for c, y in (([], []), ([0.5], [0.5]), ([1.5], [1.0]), ([math.nan], [1.0]), ([0.5, 0.5], [1.0])):
        with pytest.raises(UserError):
            calibration_metrics(np.array(c, dtype=float), np.array(y, dtype=float))
