"""How good verdicts and their probabilities are: accuracy, macro F1, NLL, Brier, ECE, AURC, reliability bins.

None of them depends on the order of the examples; where confidences tie, tied examples are treated alike. ECE and AURC
stand in `evals/statistics/calibration` too, for arrays of answers and in numpy alone; a test holds both to the same
numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ..support import Label, Support

LABELS: Final[tuple[Label, ...]] = get_args(Label)
"""In the order of `Support`."""
LEAST: Final = 1e-12
"""A probability below it counts as it in a log-likelihood: a 0 for the right label costs 27.6 nats, not everything."""
BINS: Final = 10


class Bin(NamedTuple):
    """One bar of a reliability diagram: examples with a confidence in (low, high]; the first bar has 0 too.

    Attributes:
        low: Where it begins.
        high: Where it ends.
        verdicts: Examples in it.
        confidence: Their mean confidence.
        accuracy: Share of them that are right.
    """

    low: float
    high: float
    verdicts: int
    confidence: float
    accuracy: float


def places_of(supports: Sequence[Support], golds: Sequence[str]) -> NDArray[np.intp]:
    """Place of each right label in a `Support`, `[examples]`.

    Raises:
        UserError: There are no examples, not as many labels as probabilities, or a label is none of the three.
    """
    if not golds or len(supports) != len(golds):
        raise UserError(
            f"{len(supports)} verdicts and {len(golds)} right labels: there must be as many, and at least one"
        )
    strange = next((gold for gold in golds if gold not in LABELS), None)
    if strange is not None:
        raise UserError(
            f"{strange!r} is none of the labels {', '.join(LABELS)}", hint="leave out the claims of another label"
        )
    return np.array([LABELS.index(gold) for gold in golds], dtype=np.intp)


def nll(supports: Sequence[Support], golds: Sequence[str]) -> float:
    """Mean negative log-likelihood of the right labels, in nats; probabilities below 1e-12 count as 1e-12.

    Raises:
        UserError: As `places_of`.
    """
    right = places_of(supports, golds)
    return math.fsum(-math.log(max(s[r], LEAST)) for s, r in zip(supports, right, strict=True)) / len(golds)


def brier(supports: Sequence[Support], golds: Sequence[str]) -> float:
    """Mean over examples of Σ_y (p_y - [y is right])², in [0, 2].

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.

    Raises:
        UserError: As `places_of`.
    """
    right = places_of(supports, golds)
    distances = ((p - (place == r)) ** 2 for s, r in zip(supports, right, strict=True) for place, p in enumerate(s))
    return math.fsum(distances) / len(golds)


def accuracy(labels: Sequence[str], golds: Sequence[str]) -> float:
    """Share of right labels.

    Raises:
        UserError: There are none, or not as many of the one as of the other.
    """
    _check(labels, golds)
    return sum(label == gold for label, gold in zip(labels, golds, strict=True)) / len(golds)


def macro_f1(labels: Sequence[str], golds: Sequence[str], over: Sequence[str] = ()) -> float:
    """Mean F1 of the labels.

    Args:
        labels: What was said of each example.
        golds: What is right.
        over: The labels to average over; by default those that were said or are right. One that was never said and is
            never right has an F1 of 0.

    Raises:
        UserError: There are none, or not as many of the one as of the other.
    """
    _check(labels, golds)
    averaged = sorted(set(over) or {*labels, *golds})
    scores = []
    for label in averaged:
        given, support = sum(said == label for said in labels), sum(right == label for right in golds)
        both = sum(said == label == right for said, right in zip(labels, golds, strict=True))
        scores.append(2 * both / (given + support) if given + support else 0.0)
    return math.fsum(scores) / len(scores)


def reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> tuple[Bin, ...]:
    """Mean confidence and accuracy in bins (b/bins, (b+1)/bins] of equal width; empty ones are left out.

    Args:
        confidences: Stated probability of being right, in [0, 1].
        correct: Whether it was right.
        bins: How many, at least 1.

    Raises:
        UserError: There are none, not as many of the one as of the other, or a confidence is outside [0, 1].
    """
    _check(confidences, correct)
    if not all(0 <= c <= 1 for c in confidences):
        raise UserError("a confidence lies outside [0, 1]")
    edges = [b / bins for b in range(bins + 1)]
    inside: dict[int, list[int]] = {}
    for i, confidence in enumerate(confidences):
        # compared with the edges, and not multiplied: 0.7 * 10 is above 7
        inside.setdefault(max(bisect_left(edges, confidence) - 1, 0), []).append(i)
    return tuple(
        Bin(
            edges[b],
            edges[b + 1],
            len(at),
            math.fsum(confidences[i] for i in at) / len(at),
            sum(bool(correct[i]) for i in at) / len(at),
        )
        for b, at in sorted(inside.items())
    )


def ece(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b/n · |accuracy_b - confidence_b|.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Raises:
        UserError: As `reliability`.
    """
    found = reliability(confidences, correct, bins)
    return math.fsum(b.verdicts * abs(b.accuracy - b.confidence) for b in found) / len(confidences)


def aurc(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Area under the risk-coverage curve: mean over k of the share wrong among the k most confident; ties share.

    Source: Geifman, Uziel, El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", section 2.

    Raises:
        UserError: As `reliability`.
    """
    _check(confidences, correct)
    groups: dict[float, list[bool]] = {}
    for confidence, right in zip(confidences, correct, strict=True):
        groups.setdefault(confidence, []).append(bool(right))
    wrong, seen, risks = 0.0, 0, []
    for confidence in sorted(groups, reverse=True):
        share = 1 - sum(groups[confidence]) / len(groups[confidence])
        for _ in groups[confidence]:
            wrong, seen = wrong + share, seen + 1
            risks.append(wrong / seen)
    return math.fsum(risks) / len(risks)


def hits(supports: Sequence[Support], golds: Sequence[str]) -> tuple[list[float], list[bool]]:
    """Confidence of the likeliest label of each example, and whether that label is right."""
    return [s.confidence for s in supports], [s.label == g for s, g in zip(supports, golds, strict=True)]


def _check(said: Sequence[object], right: Sequence[object]) -> None:
    if not said or len(said) != len(right):
        raise UserError(f"{len(said)} things said and {len(right)} right ones: there must be as many, and at least one")
