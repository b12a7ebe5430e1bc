"""Calibration of confidences: ECE, adaptive ECE, Brier, NLL, AUROC and AURC.

All take `confidence`, the stated probability of being right in [0, 1], and `correct`, 0 or 1, both `[answers]`. None of
them depends on the order of the answers; where confidences tie, tied answers are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core.calibration_fit import BINS, ReliabilityBin, aurc, ece, mean_within_ties, reliability
from ...core.errors import UserError
from .outcomes import Array


@dataclass(frozen=True)
class CalibrationMetrics:
    """Every metric of a set of answers.

    Attributes:
        n: Number of answers with a confidence.
        ece: Expected calibration error over ten bins of equal width.
        adaptive_ece: ECE over ten bins of equal count.
        brier: Mean squared distance of confidence and correctness.
        nll: Mean negative log-likelihood, in nats; confidences are clipped to [2^-52, 1 - 2^-52].
        auroc: Probability that a right answer has a higher confidence than a wrong one, ties half; None if all answers
            are right or all are wrong.
        aurc: Mean error among the k most confident answers, over all k.
        bins: The ten bins of equal width.
    """

    n: int
    ece: float
    adaptive_ece: float
    brier: float
    nll: float
    auroc: float | None
    aurc: float
    bins: tuple[ReliabilityBin, ...]


def calibration_metrics(confidence: Array, correct: Array, bins: int = BINS) -> CalibrationMetrics:
    """Every metric of these answers.

    Raises:
        UserError: There are none, or a value is outside its range.
    """
    _check(confidence, correct)
    return CalibrationMetrics(
        n=len(confidence),
        ece=ece(confidence, correct, bins),
        adaptive_ece=adaptive_ece(confidence, correct, bins),
        brier=float(np.mean((confidence - correct) ** 2)),
        nll=nll(confidence, correct),
        auroc=auroc(confidence, correct),
        aurc=aurc(confidence, correct),
        bins=reliability(confidence, correct, bins),
    )


def adaptive_ece(confidence: Array, correct: Array, bins: int = BINS) -> float:
    """Expected calibration error over bins of nearly equal count.

    Answers of equal confidence share their mean correctness, so that it does not matter which of them falls into which
    bin. With fewer answers than bins, every answer has a bin of its own.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning", section 3 (for two classes).
    """
    _check(confidence, correct)
    order = np.argsort(confidence, kind="stable")
    sorted_confidence, shared = confidence[order], mean_within_ties(confidence, correct)[order]
    error = 0.0
    for part in np.array_split(np.arange(len(order)), min(bins, len(order))):
        error += len(part) * abs(float(shared[part].mean() - sorted_confidence[part].mean()))
    return error / len(order)


def nll(confidence: Array, correct: Array) -> float:
    """Mean negative log-likelihood in nats."""
    _check(confidence, correct)
    eps = float(np.finfo(float).eps)
    p = np.clip(confidence, eps, 1 - eps)
    return float(-np.mean(correct * np.log(p) + (1 - correct) * np.log1p(-p)))


def auroc(confidence: Array, correct: Array) -> float | None:
    """Area under the ROC curve, by ranks (Mann and Whitney 1947); None if only one kind of answer is there."""
    _check(confidence, correct)
    right = int(correct.sum())
    wrong = len(correct) - right
    if not right or not wrong:
        return None
    ranks = stats.rankdata(confidence)
    return float((ranks[correct == 1].sum() - right * (right + 1) / 2) / (right * wrong))


def _check(confidence: Array, correct: Array) -> None:
    if not len(confidence) or confidence.shape != correct.shape:
        raise UserError("calibration needs one confidence and one correctness per answer, and at least one answer")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise UserError("a confidence lies outside [0, 1]")
    if not np.isin(correct, (0.0, 1.0)).all():
        raise UserError("correctness must be 0 or 1")
