"""`VerdictMetrics`: metrics of verdicts and their probabilities with bootstrap intervals, and paired differences.

Resamples are of groups, and the same for all methods on the same claims, so that metrics of two methods can be
subtracted resample by resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reason.core.errors import UserError
from reason.evals.statistics.calibration import BINS, aurc, bin_index, ece
from reason.evals.statistics.intervals import percentiles, resample_groups
from reason.evals.statistics.outcomes import number_groups
from reason.evals.statistics.paired import exact_sign_test
from reason.verify.types import Support

Array = NDArray[np.float64]

RESAMPLES: Final = 1000
BY_LABELS: Final = ("accuracy", "macro_f1", "false_supported", "wrong_supported", "answered")
BY_PROBABILITIES: Final = ("ece", "brier", "nll", "aurc")
LABELS: Final = ("supports", "refutes", "neutral")
"""In the order of `Support`."""
MIN_PROBABILITY: Final = 1e-12
"""Minimum probability in a log-likelihood: a 0 for the gold label gives a loss of 27.6 nats, not infinity."""
NAMES: Final = (*BY_LABELS, *BY_PROBABILITIES)
ECE_BY_CHANCE: Final = "ece_by_chance"
"""The ECE that calibrated probabilities would stay below in 95 % of such samples: in a small one it is far from 0."""


class Estimate(NamedTuple):
    """A metric and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class VerdictMetrics:
    """Metrics of one method on some claims.

    Attributes:
        n: Claims.
        stated: Claims whose probabilities are scored: those that are not disputed; 0 if the method states none.
        values: By name (`NAMES`, `ECE_BY_CHANCE`); those from "ece" on only where probabilities are stated.
            "false_supported" is the share of
            supported ones among the claims that are not, "wrong_supported" that of the claims that are not among the
            supported ones (absent if there are no such claims), "answered" the share of labels other than neutral.
        replicates: Resamples of each metric, `[resamples]`.
        right: Whether the label of each claim is right, `[n]`.
    """

    n: int
    stated: int
    values: dict[str, float]
    replicates: dict[str, Array]
    right: NDArray[np.bool_]

    def estimate(self, name: str) -> Estimate | None:
        """A metric with its percentile interval; None if there is none."""
        if name not in self.values:
            return None
        replicates = self.replicates[name]
        low, high = percentiles(replicates[np.isfinite(replicates)])
        return Estimate(self.values[name], float(low), float(high))


class MetricDifference(NamedTuple):
    """One method less another on the same claims.

    Attributes:
        metrics: By name, with the interval over the same resamples.
        wins: Claims that only the first has right.
        losses: Claims that only the second has right.
        p: Two-sided, by McNemar's exact test.
    """

    metrics: dict[str, Estimate]
    wins: int
    losses: int
    p: float


def verdict_metrics(
    golds: Sequence[str],
    labels: Sequence[str],
    probs: Sequence[Support] | None,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> VerdictMetrics:
    """Metrics with their replicates.

    F1s are over the labels that occur as gold or as predicted. ECE, Brier score, NLL and AURC are of
    the probabilities before the gate, over the claims that are not disputed.

    Args:
        probs: Probabilities; None if the method states none.

    Raises:
        UserError: There are no claims, or the lists differ in length.
    """
    n = len(golds)
    if not n or not (len(labels) == len(groups) == n) or (probs is not None and len(probs) != n):
        raise UserError("metrics need as many labels and groups as claims, and at least one claim")
    group = number_groups(list(groups))
    counts = _counts(int(group.max()) + 1, resamples, seed)
    names = sorted({*golds, *labels})
    text, gold = (np.array([names.index(x) for x in provided]) for provided in (labels, golds))
    confusion = np.zeros((n, len(names) ** 2))
    confusion[np.arange(n), gold * len(names) + text] = 1
    full = _by_labels(confusion.sum(axis=0, keepdims=True), names)
    values = {name: float(value[0]) for name, value in full.items() if np.isfinite(value[0])}
    replicates = _by_labels(_summed(confusion, group, counts), names)
    plain = [i for i, g in enumerate(golds) if g in LABELS]
    if probs is None:
        plain = []
    if plain and probs is not None:
        kept, right = [probs[i] for i in plain], [golds[i] for i in plain]
        more, again = _by_probabilities(kept, right, group[plain], counts)
        values |= more
        replicates |= again
    return VerdictMetrics(n, len(plain), values, replicates, text == gold)


def top_label_hits(probs: Sequence[Support], golds: Sequence[str]) -> tuple[list[float], list[bool]]:
    """Confidence of the top label of each example, and whether that label is correct."""
    return [min(p.confidence, 1.0) for p in probs], [p.label == g for p, g in zip(probs, golds, strict=True)]


def difference(a: VerdictMetrics, b: VerdictMetrics) -> MetricDifference:
    """The first less the second; both of the same claims with the same groups, resamples and seed.

    Raises:
        UserError: They are not of as many claims or resamples.
    """
    shared: list[str] = [name for name in NAMES if name in a.values and name in b.values]
    if a.n != b.n or any(len(a.replicates[x]) != len(b.replicates[x]) for x in shared):
        raise UserError("two methods are compared on the same claims and resamples")
    results: dict[str, Estimate] = {}
    for name in shared:
        gap = a.replicates[name] - b.replicates[name]
        low, high = percentiles(gap[np.isfinite(gap)])
        results[name] = Estimate(a.values[name] - b.values[name], float(low), float(high))
    wins, losses = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    return MetricDifference(results, wins, losses, exact_sign_test(wins, losses))


def _counts(groups: int, resamples: int, seed: int) -> Array:
    """How often each group is in each resample, `[resamples, groups]`."""
    sampled = (np.bincount(row, minlength=groups) for some in resample_groups(groups, resamples, seed) for row in some)
    return np.stack(list(sampled)).astype(np.float64)


def _summed(columns: Array, group: NDArray[np.intp], counts: Array) -> Array:
    """Sums of columns over each resample, `[resamples, columns]`."""
    sums = np.zeros((counts.shape[1], columns.shape[1]))
    np.add.at(sums, group, columns)
    result: Array = counts @ sums
    return result


def _by_labels(confusion: Array, names: Sequence[str]) -> dict[str, Array]:
    """Metrics by label of confusions, `[rows, labels²]`, the gold label first; NaN where undefined."""
    size = len(names)
    table = confusion.reshape(-1, size, size)
    total = table.sum(axis=(1, 2))
    hit = np.diagonal(table, axis1=1, axis2=2)
    is_right, provided = table.sum(axis=2), table.sum(axis=1)
    f1 = 2 * hit / np.maximum(is_right + provided, 1)
    # a label that a resample lacks altogether has no F1 there
    present = np.maximum((is_right + provided > 0).sum(axis=1), 1)
    none = np.zeros(len(table))
    at = {name: i for i, name in enumerate(names)}
    supported = provided[:, at["supports"]] if "supports" in at else none
    rightly = hit[:, at["supports"]] if "supports" in at else none
    others = total - (is_right[:, at["supports"]] if "supports" in at else none)
    abstained = provided[:, at["neutral"]] if "neutral" in at else none
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": hit.sum(axis=1) / total,
            "macro_f1": f1.sum(axis=1) / present,
            "false_supported": (supported - rightly) / others,
            "wrong_supported": (supported - rightly) / supported,
            "answered": 1 - abstained / total,
        }


def _by_probabilities(
    probs: Sequence[Support], golds: Sequence[str], group: NDArray[np.intp], counts: Array
) -> tuple[dict[str, float], dict[str, Array]]:
    confidences, correct = top_label_hits(probs, golds)
    n, positions = len(golds), [LABELS.index(gold) for gold in golds]
    table = np.array(probs, dtype=np.float64)
    hot = np.zeros_like(table)
    hot[np.arange(n), positions] = 1
    c, right = np.array(confidences), np.array(correct, dtype=np.float64)
    gaps = np.zeros((n, BINS))
    gaps[np.arange(n), bin_index(c)] = right - c  # Σ over a bin is n_b · (accuracy - confidence)
    each = np.column_stack(
        [
            np.ones(n),
            ((table - hot) ** 2).sum(axis=1),
            -np.log(np.maximum(table[np.arange(n), positions], MIN_PROBABILITY)),
            gaps,
        ]
    )
    values = {
        "ece": ece(confidences, correct),
        "brier": float(each[:, 1].mean()),
        "nll": float(each[:, 2].mean()),
        "aurc": aurc(confidences, correct),
        ECE_BY_CHANCE: _ece_by_chance(c),
    }
    sums = _summed(each, group, counts)
    size = np.maximum(sums[:, 0], 1)
    return values, {
        "ece": np.abs(sums[:, 3:]).sum(axis=1) / size,
        "brier": sums[:, 1] / size,
        "nll": sums[:, 2] / size,
        "aurc": _aurcs(c, right, counts[:, group]),
    }


def _ece_by_chance(confidence: Array) -> float:
    """95 % quantile of the ECE of these confidences where each is right with just this probability."""
    bins, n = bin_index(confidence), len(confidence)
    rng = np.random.default_rng(0)
    gaps = (rng.random((RESAMPLES, n)) < confidence) - confidence
    each = np.stack([gaps[:, bins == b].sum(axis=1) for b in range(BINS)], axis=1)
    return float(np.quantile(np.abs(each).sum(axis=1) / n, 0.95))


def _aurcs(confidence: Array, right: Array, times: Array) -> Array:
    """Area under the risk-coverage curve where each claim counts so many times, `[resamples]`; ties share.

    Within a block of m equal confidences, e of them wrong, after M claims with E wrong ones the risks sum to
    e + (E - M·e/m) · (H(M + m) - H(M)), with harmonic numbers H.
    """
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(confidence[order]) != 0])
    ordered = times[:, order]
    m = np.add.reduceat(ordered, starts, axis=1)
    e = np.add.reduceat(ordered * (1 - right[order]), starts, axis=1)
    after_m, after_e = np.cumsum(m, axis=1), np.cumsum(e, axis=1)
    before_m, before_e = after_m - m, after_e - e
    harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, int(after_m[:, -1].max()) + 1))]
    share = np.divide(e, m, out=np.zeros_like(e), where=m > 0)
    reach = harmonic[after_m.astype(np.intp)] - harmonic[before_m.astype(np.intp)]
    result: Array = (e + (before_e - share * before_m) * reach).sum(axis=1) / np.maximum(after_m[:, -1], 1)
    return result
