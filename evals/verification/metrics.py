"""`VerdictMetrics`: metrics of verdicts and their probabilities with bootstrap intervals, and paired differences.

Resamples are of groups, and the same for all methods on the same claims, so that metrics of two methods can be
subtracted resample by resample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.calibration_fit import BINS, aurc, bin_index, ece
from ...core.errors import UserError
from ...verify import metrics as scores
from ...verify.metrics import EvidenceScores, evidence_recall, evidence_scores, mean_evidence_scores
from ...verify.types import Support
from ..statistics.intervals import percentiles, resample_groups
from ..statistics.outcomes import number_groups
from ..statistics.paired import exact_sign_test
from .claims import LabelledClaim
from .methods import ClaimVerdict

Array = NDArray[np.float64]

RESAMPLES: Final = 1000
BY_LABELS: Final = ("accuracy", "macro_f1", "weighted_f1")
BY_PROBABILITIES: Final = ("ece", "brier", "nll", "aurc")
NAMES: Final = (*BY_LABELS, *BY_PROBABILITIES)


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
        values: By name (`NAMES`); the last four only where probabilities are stated.
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
        low, high = percentiles(self.replicates[name])
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
    values = {
        "accuracy": scores.accuracy(labels, golds),
        "macro_f1": scores.macro_f1(labels, golds),
    }
    full = _by_labels(confusion.sum(axis=0, keepdims=True), len(names))
    values["weighted_f1"] = float(full["weighted_f1"][0])
    replicates = _by_labels(_summed(confusion, group, counts), len(names))
    plain = [i for i, g in enumerate(golds) if g in scores.LABELS]
    if probs is None:
        plain = []
    if plain and probs is not None:
        kept, right = [probs[i] for i in plain], [golds[i] for i in plain]
        more, again = _by_probabilities(kept, right, group[plain], counts)
        values |= more
        replicates |= again
    return VerdictMetrics(n, len(plain), values, replicates, text == gold)


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
        low, high = percentiles(a.replicates[name] - b.replicates[name])
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


def _by_labels(confusion: Array, size: int) -> dict[str, Array]:
    """Accuracy and F1s of confusions, `[rows, size²]`; the right label goes with the row of each."""
    table = confusion.reshape(-1, size, size)
    total = table.sum(axis=(1, 2))
    hit = np.diagonal(table, axis1=1, axis2=2)
    is_right, provided = table.sum(axis=2), table.sum(axis=1)
    f1 = 2 * hit / np.maximum(is_right + provided, 1)
    # a label that a resample lacks altogether has no F1 there
    present = np.maximum((is_right + provided > 0).sum(axis=1), 1)
    return {
        "accuracy": hit.sum(axis=1) / total,
        "macro_f1": f1.sum(axis=1) / present,
        "weighted_f1": (f1 * is_right).sum(axis=1) / total,
    }


def _by_probabilities(
    probs: Sequence[Support], golds: Sequence[str], group: NDArray[np.intp], counts: Array
) -> tuple[dict[str, float], dict[str, Array]]:
    confidences, correct = scores.top_label_hits(probs, golds)
    confidences = [min(c, 1.0) for c in confidences]
    values = {
        "ece": ece(confidences, correct),
        "brier": scores.brier(probs, golds),
        "nll": scores.nll(probs, golds),
        "aurc": aurc(confidences, correct),
    }
    n, positions = len(golds), scores.label_indices(probs, golds)
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
            -np.log(np.maximum(table[np.arange(n), positions], scores.MIN_PROBABILITY)),
            gaps,
        ]
    )
    sums = _summed(each, group, counts)
    size = np.maximum(sums[:, 0], 1)
    return values, {
        "ece": np.abs(sums[:, 3:]).sum(axis=1) / size,
        "brier": sums[:, 1] / size,
        "nll": sums[:, 2] / size,
        "aurc": _aurcs(c, right, counts[:, group]),
    }


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


class EvidenceRecall(NamedTuple):
    """How often the right passages are among the first k.

    Attributes:
        enough: Share of claims with a sufficient set among them; None if no claim has a set.
        any: Share of claims of which some right passage is; None if no claim has one.
        sets: Claims with a sufficient set.
        claims: Claims with a right passage.
    """

    enough: float | None
    any: float | None
    sets: int
    claims: int


def recall_at(rows: Sequence[LabelledClaim], k: int) -> EvidenceRecall:
    """Evidence recall among the first k passages; claims without right passages are skipped.

    Passages that have the text of a right one count as it: a corpus may hold a sentence twice.
    """
    enough, some = [], []
    for row in rows:
        seen = named_ids(row, [p.id for p in (row.passages or ())[:k]])
        match = evidence_recall(seen, row.sets)
        if match is not None:
            enough.append(match)
        if row.right:
            some.append(float(bool(seen & row.right_ids)))
    return EvidenceRecall(_mean(enough), _mean(some), len(enough), len(some))


def mean_attribution_of(
    rows: Sequence[LabelledClaim], verdicts: Sequence[ClaimVerdict]
) -> tuple[EvidenceScores | None, int]:
    """Means of precision, recall and F1 of the cited passages over claims with right passages, and their number.

    A verdict of "neutral" names nothing and has 0 in all three.
    """
    return mean_evidence_scores(
        evidence_scores(named_ids(row, one.named), row.right_ids) for row, one in zip(rows, verdicts, strict=True)
    )


def named_ids(row: LabelledClaim, ids: Sequence[str]) -> set[str]:
    """Ids of shown passages, those of the text of a right passage by its id."""
    by_text = {p.text: p.id for p in row.right}
    right = row.right_ids
    own = {p.id: p.id if p.id in right else by_text.get(p.text, p.id) for p in row.passages or ()}
    return {own.get(name, name) for name in ids}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
