"""Metrics of verdicts: accuracy, macro F1, NLL, Brier score, attribution of evidence, and gold labels.

None of them depends on the order of the examples. ECE, AURC and reliability bins are in `core.calibration_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, UserError
from .types import Label, Support

LABELS: Final[tuple[Label, ...]] = get_args(Label)
"""In the order of `Support`."""
MIN_PROBABILITY: Final = 1e-12
"""Minimum probability in a log-likelihood: a 0 for the gold label gives a loss of 27.6 nats, not infinity."""


# -- labels and probabilities


def label_indices(supports: Sequence[Support], golds: Sequence[str]) -> NDArray[np.intp]:
    """Index of each gold label in a `Support`, `[examples]`.

    Raises:
        UserError: There are no examples, the lengths differ, or a label is none of the three.
    """
    _check_lengths(supports, golds)
    unknown = next((gold for gold in golds if gold not in LABELS), None)
    if unknown is not None:
        raise UserError(
            f"unknown label {unknown!r}, expected one of {', '.join(LABELS)}",
            hint="leave out the claims with another label",
        )
    return np.array([LABELS.index(gold) for gold in golds], dtype=np.intp)


def nll(supports: Sequence[Support], golds: Sequence[str]) -> float:
    """Mean negative log-likelihood of the gold labels, in nats; probabilities below 1e-12 count as 1e-12.

    Raises:
        UserError: As `label_indices`.
    """
    indices = label_indices(supports, golds)
    losses = (-math.log(max(s[i], MIN_PROBABILITY)) for s, i in zip(supports, indices, strict=True))
    return math.fsum(losses) / len(golds)


def brier(supports: Sequence[Support], golds: Sequence[str]) -> float:
    """Mean over examples of Σ_y (p_y - [y is gold])², in [0, 2].

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.

    Raises:
        UserError: As `label_indices`.
    """
    indices = label_indices(supports, golds)
    distances = ((p - (y == i)) ** 2 for s, i in zip(supports, indices, strict=True) for y, p in enumerate(s))
    return math.fsum(distances) / len(golds)


def accuracy(labels: Sequence[str], golds: Sequence[str]) -> float:
    """Share of correct labels.

    Raises:
        UserError: There are none, or the lengths differ.
    """
    _check_lengths(labels, golds)
    return sum(label == gold for label, gold in zip(labels, golds, strict=True)) / len(golds)


def macro_f1(labels: Sequence[str], golds: Sequence[str], over: Sequence[str] = ()) -> float:
    """Mean F1 of the labels.

    Args:
        labels: Predicted labels.
        golds: Gold labels.
        over: The labels to average over; by default those that occur. One that never occurs has an F1 of 0.

    Raises:
        UserError: There are none, or the lengths differ.
    """
    _check_lengths(labels, golds)
    scores = []
    for label in sorted(set(over) or {*labels, *golds}):
        predicted, actual = sum(one == label for one in labels), sum(one == label for one in golds)
        both = sum(one == label == gold for one, gold in zip(labels, golds, strict=True))
        scores.append(2 * both / (predicted + actual) if predicted + actual else 0.0)
    return math.fsum(scores) / len(scores)


def top_label_hits(supports: Sequence[Support], golds: Sequence[str]) -> tuple[list[float], list[bool]]:
    """Confidence of the top label of each example, and whether that label is correct."""
    return [s.confidence for s in supports], [s.label == g for s, g in zip(supports, golds, strict=True)]


def _check_lengths(predictions: Sequence[object], golds: Sequence[object]) -> None:
    if not predictions or len(predictions) != len(golds):
        raise UserError(
            f"{len(predictions)} predictions and {len(golds)} gold labels: there must be as many, and at least one"
        )


# -- attribution of evidence


class EvidenceScores(NamedTuple):
    """Predicted against gold evidence.

    Attributes:
        precision: Share of the predicted texts that are gold; 0 if none is predicted.
        recall: Share of the gold texts that are predicted.
        f1: Their harmonic mean; 0 if no predicted text is gold.
    """

    precision: float
    recall: float
    f1: float


def evidence_scores(predicted: Collection[Hashable], gold: Collection[Hashable]) -> EvidenceScores | None:
    """Precision, recall and F1 of predicted evidence.

    None without gold evidence, as for an undecidable claim: such a row is skipped rather than counted as 1.
    """
    predicted_set, gold_set = set(predicted), set(gold)
    if not gold_set:
        return None
    both = len(predicted_set & gold_set)
    return EvidenceScores(
        both / len(predicted_set) if predicted_set else 0.0,
        both / len(gold_set),
        2 * both / (len(predicted_set) + len(gold_set)),
    )


def evidence_recall(predicted: Collection[Hashable], sets: Collection[Collection[Hashable]]) -> float | None:
    """1 if one of the sufficient sets is predicted completely, else 0; None if there is no set.

    Source: Thorne et al. 2018, "FEVER: a Large-scale Dataset for Fact Extraction and VERification", section 5.
    """
    predicted_set, sufficient = set(predicted), [set(one) for one in sets if one]
    if not sufficient:
        return None
    return float(any(one <= predicted_set for one in sufficient))


def mean_evidence_scores(rows: Iterable[EvidenceScores | None]) -> tuple[EvidenceScores | None, int]:
    """Means over the rows that are not skipped, and their number; None and 0 if all are skipped."""
    kept = [row for row in rows if row is not None]
    if not kept:
        return None, 0
    means = (math.fsum(values) / len(kept) for values in zip(*kept, strict=True))
    return EvidenceScores(*means), len(kept)


# -- gold labels

GoldLabel = Literal["supports", "refutes", "neutral", "disputed"]
"""The relation of the evidence to a claim; "disputed": some of it supports the claim and some refutes it."""

_GOLD_NAMES: Final[dict[str, GoldLabel]] = {
    "supports": "supports",
    "supported": "supports",
    "refutes": "refutes",
    "refuted": "refutes",
    "neutral": "neutral",
    "nei": "neutral",
    "not enough": "neutral",
    "not enough info": "neutral",
    "not enough evidence": "neutral",
    "partially supported": "neutral",
    "disputed": "disputed",
}


def parse_gold_label(name: str) -> GoldLabel:
    """The label of a data set's name for it, in any case, with spaces or underscores.

    Raises:
        DataError: The name is unknown.
    """
    label = _GOLD_NAMES.get(" ".join(name.casefold().replace("_", " ").split()))
    if label is None:
        raise DataError(
            f"unknown label of a claim {name[:60]!r}", hint="expected SUPPORTS, REFUTES, NOT ENOUGH INFO or DISPUTED"
        )
    return label


def claim_label(labels: Iterable[Label]) -> GoldLabel:
    """A claim's label by those of its sentences: one sentence on a side suffices, and one on each side is a dispute.

    Source: Diggelmann et al. 2020, "CLIMATE-FEVER", arXiv:2012.00614, section 3; it holds for all of that data.
    """
    sides = set(labels)
    if "supports" in sides:
        return "disputed" if "refutes" in sides else "supports"
    return "refutes" if "refutes" in sides else "neutral"
