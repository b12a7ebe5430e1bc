"""`gate`: stand by a decisive verdict only if it is sure enough. `choose_threshold`: how sure that has to be.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193, which calls the gate
recalibration. It alters no probability; choosing its threshold on development data is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.errors import UserError
from ..support import Label, Support
from .scores import macro_f1

GRID: Final = (0.0, *(t / 100 for t in range(40, 100, 5)))
"""Thresholds that are tried: none at all, 0.40, 0.45 … 0.95. The first is ours: a gate has to earn its place."""


class Gated(NamedTuple):
    """A verdict after the gate.

    Attributes:
        label: What is stood by.
        raw_label: The likeliest label.
        confidence: Its probability.
        downgraded: Whether a decisive label was taken back.
    """

    label: Label
    raw_label: Label
    confidence: float
    downgraded: bool


def gate(support: Support, threshold: float) -> Gated:
    """Take a decisive verdict back to "neutral" where its probability is below the threshold; at it, it stands.

    A threshold of 0 lets everything pass, one above 1 nothing. The probabilities are not altered.

    Args:
        support: Calibrated probabilities; among equals "neutral" is the likeliest, then "refutes".
        threshold: Least probability of a verdict that is stood by.
    """
    raw, confidence = support.label, support.confidence
    downgraded = raw != "neutral" and confidence < threshold
    return Gated("neutral" if downgraded else raw, raw, confidence, downgraded)


class Standing(NamedTuple):
    """How verdicts fare at one threshold. An example is answered if its verdict after the gate is decisive.

    Attributes:
        threshold: The threshold.
        macro_f1: Mean F1 of the labels after the gate, over the labels that are right or were likeliest somewhere.
        answered: Examples answered.
        coverage: Share of the examples that are answered; the rest is abstained from.
        risk: Share of the answered that is wrong; None if none is answered.
        precision_supports: Share right among those called supported; None if there are none.
        precision_refutes: Share right among those called refuted; None if there are none.
    """

    threshold: float
    macro_f1: float
    answered: int
    coverage: float
    risk: float | None
    precision_supports: float | None
    precision_refutes: float | None


def standing(supports: Sequence[Support], golds: Sequence[str], threshold: float) -> Standing:
    """How verdicts fare at a threshold.

    Args:
        supports: Calibrated probabilities of each example.
        golds: The right labels; an answer to one that is none of the three ("disputed") is wrong.
        threshold: The gate's.

    Raises:
        UserError: There are no examples, or not as many labels as probabilities.
    """
    gated = [gate(s, threshold) for s in supports]
    labels = [g.label for g in gated]
    score = macro_f1(labels, golds, sorted({*golds, *(g.raw_label for g in gated)}))
    supported, refuted = ([gold for said, gold in zip(labels, golds, strict=True) if said == side] for side in _SIDES)
    right = supported.count("supports") + refuted.count("refutes")
    answered = len(supported) + len(refuted)
    return Standing(
        threshold=threshold,
        macro_f1=score,
        answered=answered,
        coverage=answered / len(labels),
        risk=1 - right / answered if answered else None,
        precision_supports=supported.count("supports") / len(supported) if supported else None,
        precision_refutes=refuted.count("refutes") / len(refuted) if refuted else None,
    )


def choose_threshold(
    supports: Sequence[Support],
    golds: Sequence[str],
    *,
    most_risk: float | None = None,
    least_precision: float | None = None,
) -> Standing:
    """The smallest threshold of the grid that does what is wanted, on development data.

    Without a wish it is the one of the largest macro F1. `most_risk` bounds the share wrong among the answered;
    `least_precision` the precision of each decisive label that is given at all. A threshold at which nothing is
    answered does neither.

    Args:
        supports: Calibrated probabilities of each example.
        golds: The right labels.
        most_risk: In [0, 1].
        least_precision: In [0, 1].

    Returns:
        The threshold, and how the verdicts fare at it.

    Raises:
        UserError: Both wishes are given, one is outside [0, 1], no threshold of the grid fulfils it (the message names
            the nearest), there are no examples, or not as many labels as probabilities.
    """
    if most_risk is not None and least_precision is not None:
        raise UserError("a threshold is chosen by the risk or by the precision, not by both")
    wish = most_risk if most_risk is not None else least_precision
    if wish is not None and not 0 <= wish <= 1:
        raise UserError(f"{wish:g} is no share of verdicts", hint="between 0 and 1")
    all_of_them = [standing(supports, golds, t) for t in GRID]
    if wish is None:
        return max(all_of_them, key=lambda s: s.macro_f1)  # the first of the largest
    if most_risk is not None:
        shortfall = [(1.0 if s.risk is None else s.risk) - most_risk for s in all_of_them]
        called = f"a share of wrong answers of {most_risk:g} or less"
    else:
        shortfall = [wish - min(_precisions(s), default=0.0) if s.answered else 1.0 for s in all_of_them]
        called = f"a precision of {wish:g}"
    reached = next((s for s, short in zip(all_of_them, shortfall, strict=True) if short <= 0 and s.answered), None)
    if reached is not None:
        return reached
    nearest = min(zip(shortfall, all_of_them, strict=True), key=lambda pair: pair[0])[1]
    if not nearest.answered:
        raise UserError("at no threshold is anything answered", hint="the verifier calls everything neutral")
    raise UserError(
        f"no threshold reaches {called}; the nearest is {nearest.threshold:g}: {nearest.risk:.3f} of the "
        f"{nearest.answered} answers are wrong",
        hint="ask for less, or calibrate on more examples",
    )


_SIDES: Final[tuple[Label, Label]] = ("supports", "refutes")


def _precisions(at: Standing) -> list[float]:
    return [p for p in (at.precision_supports, at.precision_refutes) if p is not None]
