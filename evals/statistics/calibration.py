"""Calibration of confidences: ECE, adaptive ECE, Brier, NLL, AUROC and AURC.

All take `confidence`, the stated probability of being right in [0, 1], and `correct`, 0 or 1, both `[answers]`. None of
them depends on the order of the answers; where confidences tie, tied answers are treated alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ...core.errors import UserError
from .outcomes import Array

Values: TypeAlias = Sequence[float] | Sequence[bool] | NDArray[Any]
BINS: Final = 10


class ReliabilityBin(NamedTuple):
    """A bar of a reliability diagram: answers with a confidence in (low, high], the first bar from low on."""

    low: float
    high: float
    count: int  # type: ignore[assignment]
    confidence: float
    accuracy: float


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


def calibration_metrics(confidence: Values, correct: Values, bins: int = BINS) -> CalibrationMetrics:
    """Every metric of these answers.

    Raises:
        UserError: There are none, or a value is outside its range.
    """
    c, right = _checked(confidence, correct)
    return CalibrationMetrics(
        n=len(c),
        ece=ece(c, right, bins),
        adaptive_ece=adaptive_ece(c, right, bins),
        brier=float(np.mean((c - right) ** 2)),
        nll=nll(c, right),
        auroc=auroc(c, right),
        aurc=aurc(c, right),
        bins=reliability(c, right, bins),
    )


def reliability(confidence: Values, correct: Values, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in bins (b/bins, (b+1)/bins] of equal width; empty bins are left out."""
    c, right = _checked(confidence, correct)
    edges = np.arange(bins + 1) / bins
    index = bin_index(c, bins)
    return tuple(
        ReliabilityBin(
            float(edges[b]),
            float(edges[b + 1]),
            int(inside.sum()),
            float(c[inside].mean()),
            float(right[inside].mean()),
        )
        for b in range(bins)
        if (inside := index == b).any()
    )


def bin_index(confidence: Array, bins: int = BINS) -> NDArray[np.intp]:
    """The bin of each confidence, `[answers]`; compared with the edges, since 0.7 * 10 is above 7."""
    index: NDArray[np.intp] = np.searchsorted(np.arange(bins + 1) / bins, confidence, side="left") - 1
    return np.clip(index, 0, bins - 1)


def ece(confidence: Values, correct: Values, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b/n · |accuracy_b - confidence_b| over bins of equal width.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    filled = reliability(confidence, correct, bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / sum(b.count for b in filled)


def aurc(confidence: Values, correct: Values) -> float:
    """Area under the risk-coverage curve: mean over k of the share wrong among the k most confident; ties share.

    Source: Geifman, Uziel, El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", section 2.
    """
    c, right = _checked(confidence, correct)
    order = np.argsort(-c, kind="stable")
    wrong = 1 - _mean_within_ties(c, right)[order]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(order) + 1)))


def adaptive_ece(confidence: Values, correct: Values, bins: int = BINS) -> float:
    """Expected calibration error over bins of nearly equal count.

    Answers of equal confidence share their mean correctness, so that it does not matter which of them falls into which
    bin. With fewer answers than bins, every answer has a bin of its own.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning", section 3 (for two classes).
    """
    c, right = _checked(confidence, correct)
    order = np.argsort(c, kind="stable")
    sorted_confidence, shared = c[order], _mean_within_ties(c, right)[order]
    error = 0.0
    for part in np.array_split(np.arange(len(order)), min(bins, len(order))):
        error += len(part) * abs(float(shared[part].mean() - sorted_confidence[part].mean()))
    return error / len(order)


def nll(confidence: Values, correct: Values) -> float:
    """Mean negative log-likelihood in nats."""
    c, right = _checked(confidence, correct)
    eps = float(np.finfo(float).eps)
    p = np.clip(c, eps, 1 - eps)
    return float(-np.mean(right * np.log(p) + (1 - right) * np.log1p(-p)))


def auroc(confidence: Values, correct: Values) -> float | None:
    """Area under the ROC curve, by ranks (Mann and Whitney 1947); None if only one kind of answer is there."""
    c, right = _checked(confidence, correct)
    num_right = int(right.sum())
    num_wrong = len(right) - num_right
    if not num_right or not num_wrong:
        return None
    ranks = stats.rankdata(c)
    return float((ranks[right == 1].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def _mean_within_ties(confidence: Array, correct: Array) -> Array:
    """The mean correctness of the answers of the same confidence, `[answers]`."""
    _, group = np.unique(confidence, return_inverse=True)
    means: Array = (np.bincount(group, weights=correct) / np.bincount(group))[group]
    return means


def _checked(confidence: Values, correct: Values) -> tuple[Array, Array]:
    if not len(confidence) or len(confidence) != len(correct):
        raise UserError("calibration needs one confidence and one correctness per answer, and at least one answer")
    c, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not ((c >= 0) & (c <= 1)).all():
        raise UserError("a confidence lies outside [0, 1]")
    if not np.isin(right, (0.0, 1.0)).all():
        raise UserError("correctness must be 0 or 1")
    return c, right
