"""How good verdicts and their probabilities are: accuracy, macro F1, NLL, Brier, ECE, AURC, reliability bins.

None of them depends on the order of the examples; where confidences tie, tied examples are treated alike. ECE and AURC
stand in `evals/statistics/calibration` too, for arrays of answers and in numpy alone; a test holds both to the same
numbers.

How well named evidence meets the right evidence: precision, recall, F1, and FEVER's recall of whole sets.

`Gold`: the label a claim has in data, and how the labels of its sentences make it.

A reliability diagram without a drawing library: lines for a terminal, and a self-contained SVG.

What is drawn is the share of right answers in each bin of stated confidence; on the diagonal the two are equal.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Sequence
from html import escape
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, UserError
from .types import Label, Support

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


def label_indices(supports: Sequence[Support], golds: Sequence[str]) -> NDArray[np.intp]:
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
        UserError: As `label_indices`.
    """
    right = label_indices(supports, golds)
    return math.fsum(-math.log(max(s[r], LEAST)) for s, r in zip(supports, right, strict=True)) / len(golds)


def brier(supports: Sequence[Support], golds: Sequence[str]) -> float:
    """Mean over examples of Σ_y (p_y - [y is right])², in [0, 2].

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.

    Raises:
        UserError: As `label_indices`.
    """
    right = label_indices(supports, golds)
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


def top_label_hits(supports: Sequence[Support], golds: Sequence[str]) -> tuple[list[float], list[bool]]:
    """Confidence of the likeliest label of each example, and whether that label is right."""
    return [s.confidence for s in supports], [s.label == g for s, g in zip(supports, golds, strict=True)]


def _check(said: Sequence[object], right: Sequence[object]) -> None:
    if not said or len(said) != len(right):
        raise UserError(f"{len(said)} things said and {len(right)} right ones: there must be as many, and at least one")


class EvidenceScores(NamedTuple):
    """Named against right texts.

    Attributes:
        precision: Share of the named texts that are right; 0 if none is named.
        recall: Share of the right texts that are named.
        f1: Their harmonic mean; 0 if none of the named is right.
    """

    precision: float
    recall: float
    f1: float


def evidence_scores(named: Collection[Hashable], right: Collection[Hashable]) -> EvidenceScores | None:
    """Precision, recall and F1 of the named texts.

    Args:
        named: What a verdict rests on.
        right: What it should rest on.

    Returns:
        The three; None if no text is right, as of a claim without evidence: such a row is skipped and is no success.
    """
    given, gold = set(named), set(right)
    if not gold:
        return None
    both = len(given & gold)
    return EvidenceScores(both / len(given) if given else 0.0, both / len(gold), 2 * both / (len(given) + len(gold)))


def evidence_recall(named: Collection[Hashable], sets: Collection[Collection[Hashable]]) -> float | None:
    """1 if one of the sets, each of which alone is enough, is named whole, else 0.

    Source: Thorne et al. 2018, "FEVER: a Large-scale Dataset for Fact Extraction and VERification", section 5.

    Args:
        named: What a verdict rests on.
        sets: The sufficient sets; an empty one is none.

    Returns:
        1 or 0; None if there is no set: such a row is skipped.
    """
    given, enough = set(named), [set(one) for one in sets if one]
    if not enough:
        return None
    return float(any(one <= given for one in enough))


def mean_evidence_scores(rows: Iterable[EvidenceScores | None]) -> tuple[EvidenceScores | None, int]:
    """Means over the rows that are not skipped, and how many those are; None and 0 if all are skipped."""
    kept = [row for row in rows if row is not None]
    if not kept:
        return None, 0
    n = len(kept)
    means = (math.fsum(values) / n for values in zip(*kept, strict=True))
    return EvidenceScores(*means), n


GoldLabel = Literal["supports", "refutes", "neutral", "disputed"]
"""A relation of the evidence to a claim, or "disputed": some of it supports the claim and some refutes it."""

_NAMES: Final[dict[str, GoldLabel]] = {
    "supports": "supports",
    "supported": "supports",
    "refutes": "refutes",
    "refuted": "refutes",
    "neutral": "neutral",
    "nei": "neutral",
    "not enough info": "neutral",
    "not enough evidence": "neutral",
    "disputed": "disputed",
}


def parse_gold_label(name: str) -> GoldLabel:
    """The label that a data set writes by this name, whatever its case and whether blanks are underscores.

    Raises:
        DataError: It is none of them.
    """
    found = _NAMES.get(" ".join(name.casefold().replace("_", " ").split()))
    if found is None:
        raise DataError(f"{name[:60]!r} is no label of a claim", hint="SUPPORTS, REFUTES, NOT ENOUGH INFO or DISPUTED")
    return found


def claim_label(labels: Iterable[Label]) -> GoldLabel:
    """A claim's label by those of its sentences: one sentence on a side is enough, and one on each side is a dispute.

    Source: Diggelmann et al. 2020, "CLIMATE-FEVER", arXiv:2012.00614, section 3; it holds for all of that data.

    Args:
        labels: What each sentence says; none at all are "neutral".
    """
    found = set(labels)
    if "supports" in found:
        return "disputed" if "refutes" in found else "supports"
    return "refutes" if "refutes" in found else "neutral"


WIDTH: Final = 40
"""Characters of a full bar in the terminal."""
SIDE: Final = 240
"""Side of the SVG's square, in its units."""
MARGIN: Final = 40
_LONGEST_TITLE: Final = 200


def reliability_lines(bins: Sequence[Bin], title: str = "") -> list[str]:
    """One line a bin: its range, how many, stated and reached share, and a bar of the latter with `|` at the stated.

    Args:
        bins: The bins that hold anything.
        title: Printed above; control characters in it are left out.

    Returns:
        The lines, without line ends.
    """
    lines = [_plain(title)] if title else []
    if not bins:
        return [*lines, "no verdicts"]
    wide = len(str(max(b.verdicts for b in bins)))
    lines.append(f"{'confidence':<12}  {'n':>{wide}}  stated  right")
    for b in bins:
        bar = ["#" if i < round(b.accuracy * WIDTH) else " " for i in range(WIDTH + 1)]
        bar[round(b.confidence * WIDTH)] = "|"
        drawn = "".join(bar).rstrip()
        lines.append(
            f"({b.low:.2f}, {b.high:.2f}]  {b.verdicts:>{wide}}  {b.confidence:6.3f}  {b.accuracy:.3f}  {drawn}"
        )
    return lines


def reliability_svg(bins: Sequence[Bin], title: str = "reliability") -> str:
    """The diagram as an SVG of its own: no scripts, no fonts, no references; all text escaped.

    The bars are filled the more, the more verdicts they stand for; a dot marks the mean stated confidence.

    Args:
        bins: The bins that hold anything.
        title: Its name, drawn above and read out by screen readers.
    """
    whole = SIDE + 2 * MARGIN
    named = escape(_plain(title))
    most = max((b.verdicts for b in bins), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {whole}" role="img" '
        f'font-family="sans-serif" font-size="10" fill="currentColor">',
        f"<title>{named}</title>",
        f'<text x="{whole // 2}" y="{MARGIN // 2}" text-anchor="middle" font-size="12">{named}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.4"/>',
    ]
    for b in bins:
        x, y = _x(b.low), _y(b.accuracy)
        parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{_x(b.high) - x:.2f}" height="{_y(0) - y:.2f}" fill="#4269d0" '
            f'fill-opacity="{0.25 + 0.65 * b.verdicts / most:.3f}">'
            f"<title>{b.verdicts} verdicts, stated {b.confidence:.3f}, right {b.accuracy:.3f}</title></rect>"
        )
        parts.append(f'<text x="{(x + _x(b.high)) / 2:.2f}" y="{y - 3:.2f}" text-anchor="middle">{b.verdicts}</text>')
    parts.append(
        f'<line x1="{_x(0):.2f}" y1="{_y(0):.2f}" x2="{_x(1):.2f}" y2="{_y(1):.2f}" stroke="currentColor" '
        f'stroke-opacity="0.6" stroke-dasharray="4 3"/>'
    )
    parts += [f'<circle cx="{_x(b.confidence):.2f}" cy="{_y(b.accuracy):.2f}" r="3" fill="#d9822b"/>' for b in bins]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{_x(tick):.2f}" y="{_y(0) + 13:.2f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_x(0) - 5:.2f}" y="{_y(tick) + 3:.2f}" text-anchor="end">{tick:g}</text>')
    middle = MARGIN + SIDE / 2
    parts += [
        f'<text x="{middle:.2f}" y="{whole - 8}" text-anchor="middle">stated confidence</text>',
        f'<text x="12" y="{middle:.2f}" text-anchor="middle" transform="rotate(-90 12 {middle:.2f})">'
        "share right</text>",
        "</svg>",
    ]
    return "".join(parts)


def _x(value: float) -> float:
    return MARGIN + SIDE * value


def _y(value: float) -> float:
    return MARGIN + SIDE * (1 - value)


def _plain(title: str) -> str:
    """A title on one line, without what terminals obey and XML forbids."""
    return "".join(c for c in title[:_LONGEST_TITLE] if c.isprintable())
