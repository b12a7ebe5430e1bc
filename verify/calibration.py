"""Curves from the confidence of the likeliest label to how often it is right: isotonic and Platt, fitted without scipy.

They are `CalibrationCurve`s, the same functions that calibrate the confidences of strategies. `with_confidence` carries
such a confidence back into a three-way `Support`.

Temperature scaling of three-way support: sharpen or flatten, and never change what is likeliest.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, on log-probabilities in place of
logits, which differ from them by a constant alone.

`VerdictCalibration`: what a verifier's probabilities turned out to be worth, in a file; it refuses other verifiers.

Applying one never changes what is likeliest, and needs no scipy.

`fit_calibration`: a `VerdictCalibration` from verdicts and right labels, and an honest figure of what it is worth.

The map that is kept is fitted to all examples. What is told of it is out of sample: the examples are cut into parts,
and each part is calibrated by a map that was fitted to the others alone.

`gate`: stand by a decisive verdict only if it is sure enough. `choose_threshold`: how sure that has to be.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193, which calls the gate
recalibration. It alters no probability; choosing its threshold on development data is ours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from ..core.calibration import CalibrationCurve, CalibrationMethod, CalibrationScores
from ..core.errors import DataError, UserError
from ..core.files import FittedFile, read_fitted_file, write_fitted_file
from ..core.version import __version__
from .metrics import LEAST, ece, label_indices, macro_f1, nll, top_label_hits
from .types import Label, Support

Array = NDArray[np.float64]

COLDEST: Final = 0.05
HOTTEST: Final = 20.0
SEARCH_STEPS: Final = 80
"""Steps of the golden-section search: each leaves 0.618 of the range, so that these leave nothing to be seen."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def apply_temperature(support: Support, temperature: float) -> Support:
    """q_y = p_y^(1/T) / Σ p^(1/T). A 0 stays 0, equals stay equal, and T = 1 changes nothing.

    The likeliest label stays the likeliest, among equals as before: where rounding makes the two largest equal, the one
    that was larger stays so by the least step that a number can make.

    Args:
        support: The probabilities.
        temperature: T, above 0: below 1 sharpens, above 1 flattens.

    Raises:
        UserError: T is not above 0, or no number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"a temperature of {temperature:g} cannot be divided by", hint="a number above 0")
    if temperature == 1:
        return support
    logs = [math.log(p) if p > 0 else -math.inf for p in support]
    top = max(logs)
    raised = [math.exp((log - top) / temperature) for log in logs]
    total = math.fsum(raised)
    return keeping(Support(*(r / total for r in raised)), support.label)


def keeping(support: Support, label: Label) -> Support:
    """The same with this label the likeliest, by the least step, where rounding has made it one of several equals."""
    if support.label == label:
        return support
    return support._replace(**{label: math.nextafter(support.confidence, 1.0)})


def fit_temperature(supports: Sequence[Support], golds: Sequence[Label]) -> float:
    """The temperature with the least negative log-likelihood, in [0.05, 20].

    As a function of 1/T that is convex, so that it has one valley in T and a golden-section search over log T finds it.
    Probabilities below 1e-12 count as 1e-12. Never worse than no scaling.

    Args:
        supports: Probabilities, one for each example.
        golds: The right label of each.

    Raises:
        UserError: There are no examples, or not as many labels as probabilities.
    """
    right = label_indices(supports, golds)
    logs = np.log(np.maximum(np.array(supports, dtype=np.float64), LEAST))

    def loss(log_temperature: float) -> float:
        return float(-log_rows(logs, math.exp(log_temperature))[np.arange(len(right)), right].mean())

    found = math.exp(_valley(loss, math.log(COLDEST), math.log(HOTTEST)))
    return found if loss(math.log(found)) < loss(0.0) else 1.0


def log_rows(logs: Array, temperature: float) -> Array:
    """Logarithms of tempered probabilities, `[examples, 3]`, from logarithms of probabilities (-inf of a 0)."""
    scaled = logs / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Array = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def _valley(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden section.

    Source: Kiefer 1953, "Sequential minimax search for a maximum".
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(SEARCH_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    # a valley at the edge: the edge itself, not a point just inside
    return min(((low + high) / 2, low, high), key=loss)


RIDGE: Final = 1e-3
"""Weight of the squared distance from the identity in the summed log-loss of "platt"."""
LEAST_CLIP: Final = 1e-6
MOST_CLIP: Final = 0.25
MAX_NEWTON_STEPS: Final = 100


def isotonic_curve(confidences: Sequence[float], correct: Sequence[bool]) -> CalibrationCurve:
    """The never falling function of least squared error, by pooling adjacent violators.

    Examples of one confidence are one point with their number as its weight. Points within a level stretch are left out
    where their neighbours are on it too: the line through them is the same.

    Source: Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates",
    section 3.

    Args:
        confidences: Probability of the likeliest label, in [0, 1].
        correct: Whether that label is right.

    Raises:
        UserError: There are no examples, or not as many of the one as of the other.
    """
    c, right = _arrays(confidences, correct)
    at, group = np.unique(c, return_inverse=True)
    counts = np.bincount(group)
    sums = np.bincount(group, weights=right)
    blocks: list[tuple[float, int, int]] = []  # right ones, examples, points
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        points = 1
        # shares of two blocks compared crosswise: whole numbers, so that equal shares are equal
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:
            total, count, points = total + blocks[-1][0], count + blocks[-1][1], points + blocks[-1][2]
            blocks.pop()
        blocks.append((total, count, points))
    fitted = [total / count for total, count, points in blocks for _ in range(points)]
    knots = [
        (float(x), y)
        for i, (x, y) in enumerate(zip(at, fitted, strict=True))
        if not 0 < i < len(at) - 1 or not fitted[i - 1] == y == fitted[i + 1]
    ]
    return CalibrationCurve(method="isotonic", knots=tuple(knots))


def platt_curve(confidences: Sequence[float], correct: Sequence[bool]) -> CalibrationCurve:
    """sigmoid(intercept + slope · logit(c)) with the least log-loss; the slope is at least 0.

    RIDGE/2 · (intercept² + (slope - 1)²) is added to the summed loss, so that examples which a threshold separates do
    not drive the slope to infinity, and confidences are cut to [clip, 1 - clip], the clip being half the distance from
    0 or 1 of the closest one that is not itself 0 or 1, within [1e-6, 0.25]. The minimum is found by Newton's method.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", equation 1, on the log-odds.

    Args:
        confidences: Probability of the likeliest label, in [0, 1].
        correct: Whether that label is right.

    Raises:
        UserError: There are no examples, or not as many of the one as of the other.
    """
    c, right = _arrays(confidences, correct)
    distance = np.minimum(c, 1 - c)
    inside = distance[distance > 0]
    clip = float(np.clip(inside.min() / 2, LEAST_CLIP, MOST_CLIP)) if len(inside) else MOST_CLIP
    c = np.clip(c, clip, 1 - clip)
    design = np.column_stack([np.ones(len(c)), np.log(c) - np.log1p(-c)])
    w = _least_loss(design, right, np.array([0.0, 1.0]))
    if w[1] < 0:  # the loss is convex: where its minimum is not allowed, the best allowed one is on the edge
        w = np.array([*_least_loss(design[:, :1], right, np.array([0.0])), 0.0])
    return CalibrationCurve(method="platt", intercept=float(w[0]), slope=float(w[1]), clip=clip)


def with_confidence(support: Support, confidence: float) -> Support:
    """The same support with another probability of its likeliest label; the others keep their proportion.

    The likeliest label stays the likeliest: a confidence that would put another above it is raised to where they meet.
    Of a support of 1 the rest is shared evenly.

    Args:
        support: The probabilities.
        confidence: What the likeliest label's is to be, in [0, 1].
    """
    label = support.label
    shares = support._replace(**{label: 0.0})
    others = math.fsum(shares)  # and not what is left of 1: very small ones would be lost
    shares = Support(*(p / others for p in shares)) if others > 0 else Support(0.5, 0.5, 0.5)._replace(**{label: 0.0})
    most = max(shares)
    taken = max(confidence, most / (1 + most))
    return keeping(Support(*(p * (1 - taken) for p in shares))._replace(**{label: taken}), label)


def apply_map(support: Support, temperature: float, curve: CalibrationCurve | None) -> Support:
    """A support by a curve of its likeliest label's confidence, or, where there is none, by a temperature."""
    if curve is None:
        return apply_temperature(support, temperature)
    return with_confidence(support, curve.apply(min(support.confidence, 1.0)))


def _least_loss(design: Array, right: Array, towards: Array) -> Array:
    """Where Σ [ln(1 + e^η) - y η] + RIDGE/2 · |w - towards|² is least, η = design · w; halved steps until it falls."""

    def loss(w: Array) -> float:
        odds = design @ w
        return float(np.sum(np.logaddexp(0, odds) - right * odds) + RIDGE / 2 * np.sum((w - towards) ** 2))

    w = towards
    value = loss(w)
    for _ in range(MAX_NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0, -(design @ w)))
        gradient = design.T @ (p - right) + RIDGE * (w - towards)
        if np.abs(gradient).max() <= 1e-12 * len(right):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + RIDGE * np.eye(len(w))
        step, scale = np.linalg.solve(hessian, gradient), 1.0
        while loss(w - scale * step) >= value and scale > 1e-10:
            scale /= 2
        if scale <= 1e-10:  # rounding is all that is left
            break
        w = w - scale * step
        value = loss(w)
    return w


def _arrays(confidences: Sequence[float], correct: Sequence[bool]) -> tuple[Array, Array]:
    if not confidences or len(confidences) != len(correct):
        raise UserError(f"{len(confidences)} confidences and {len(correct)} outcomes: as many, and at least one")
    return np.array(confidences, dtype=np.float64), np.array(correct, dtype=np.float64)


KIND: Final = "reason verdict calibration"
FORMAT: Final = 1
MADE_BY: Final = "fit one to this verifier's verdicts on development data"


class VerdictCalibration(FittedFile):
    """A map of three-way supports, with what it may be used for and how well it did.

    "temperature" raises all three probabilities to 1/T. "platt" and "isotonic" map the probability of the likeliest
    label, and the others share the rest in their old proportion. One map of the top label, and not one for each label,
    because the gate looks at nothing else, and because renormalising three maps would undo each of them.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        method: Which function.
        temperature: T of "temperature", above 0; 1 otherwise.
        curve: The function of "platt" and "isotonic"; None otherwise.
        threshold: The gate's threshold that was chosen on the same data after this map; None if none was.
        backend: Identity of what judged the pairs of evidence and claim.
        prompt: Id of the prompt it was asked by; empty if it has none.
        aggregation: How verdicts on pieces of evidence became one: its name and parameters.
        data: Hash of the examples that it was fitted to.
        examples: How many they were.
        version: Version of `reason`.
        before: ECE and Brier of the likeliest label's confidence, and NLL of the right label, as they came.
        after: The same, each example by a map that was fitted without its part of the data.
    """

    kind: Literal["reason verdict calibration"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    method: CalibrationMethod
    temperature: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    curve: CalibrationCurve | None = None
    threshold: Annotated[FiniteFloat, Field(ge=0)] | None = None
    backend: str
    prompt: str = ""
    aggregation: str
    data: str
    examples: Annotated[int, Field(ge=1)]
    version: str
    before: CalibrationScores
    after: CalibrationScores

    @model_validator(mode="after")
    def _is_one_function(self) -> Self:
        if (self.method == "temperature") != (self.curve is None):
            raise ValueError("a curve belongs to the methods platt and isotonic, and they need one")
        if self.curve is not None and (self.curve.method != self.method or self.temperature != 1):
            raise ValueError(f"the curve is not what the method {self.method} says")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.method}, {self.examples} examples)".lstrip()

    def apply(self, support: Support) -> Support:
        """The calibrated probabilities; the likeliest label stays the likeliest."""
        return apply_map(support, self.temperature, self.curve)

    def refuse_other(self, *, backend: str, aggregation: str, prompt: str = "") -> None:
        """Refuse to calibrate what this was not fitted for.

        Args:
            backend: Identity of what judges the pairs now.
            aggregation: How their verdicts become one now.
            prompt: Id of the prompt now.

        Raises:
            DataError: One of them is another; names both.
        """
        for called, own, other in (
            ("backend", self.backend, backend),
            ("prompt", self.prompt, prompt),
            ("aggregation", self.aggregation, aggregation),
        ):
            if own != other:
                raise DataError(
                    f"the calibration {self} was fitted for the {called} {own!r}, not for {other!r}", hint=MADE_BY
                )


def save_calibration(calibration: VerdictCalibration, path: Path) -> None:
    """Write a calibration as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted_file(calibration, path)


def load_calibration(path: Path) -> VerdictCalibration:
    """Read a calibration from its file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no calibration of verdicts, or one
            of another version or with impossible values; names the file.
    """
    return read_fitted_file(
        path, VerdictCalibration, kind=KIND, format=FORMAT, called="verdict calibration", made_by=MADE_BY
    )


FEWEST: Final = 20
"""Examples below which nothing is fitted: it would follow the noise."""
FEWEST_ISOTONIC: Final = 500
"""The same for "isotonic", which has as many parameters as the data has steps."""
FOLDS: Final = 5


def fit_calibration(
    method: CalibrationMethod,
    supports: Sequence[Support],
    golds: Sequence[Label],
    *,
    backend: str,
    aggregation: str,
    prompt: str = "",
    groups: Sequence[str] = (),
    threshold: float | None = None,
) -> VerdictCalibration:
    """Fit a calibration; deterministic, and the order of the examples does not matter.

    Args:
        method: "temperature", "platt" or "isotonic".
        supports: The verifier's aggregated probabilities on development data.
        golds: The right labels.
        backend: Identity of what judged the pairs.
        aggregation: How their verdicts became one: its name and parameters.
        prompt: Id of the prompt.
        groups: Group of each example, such as the case of contrastive claims: members of one are never in two parts.
            By default only equal examples are a group.
        threshold: The gate's threshold, if it was chosen already.

    Raises:
        UserError: There are fewer than 20 examples (500 for "isotonic"), not as many of one list as of another, a label
            is none of the three, or all examples are of one group.
    """
    label_indices(supports, golds)
    least = FEWEST_ISOTONIC if method == "isotonic" else FEWEST
    if len(golds) < least:
        raise UserError(
            f"the calibration {method!r} needs at least {least} examples; there are {len(golds)}",
            hint="use more, or the method temperature" if method == "isotonic" else "use more development data",
        )
    if groups and len(groups) != len(golds):
        raise UserError(f"{len(groups)} groups of {len(golds)} examples: there must be as many")
    # in an order of their own, so that the same examples give the same bits
    keys = [_key(s, g) for s, g in zip(supports, golds, strict=True)]
    names = list(groups) or keys
    ranked = sorted(range(len(keys)), key=lambda i: (keys[i], names[i]))
    ordered, right = [supports[i] for i in ranked], [golds[i] for i in ranked]
    parts = _parts([names[i] for i in ranked])
    outside = list(ordered)
    for part in sorted(set(parts)):
        kept = [i for i, p in enumerate(parts) if p != part]
        found = _fit(method, [ordered[i] for i in kept], [right[i] for i in kept])
        for i in (i for i, p in enumerate(parts) if p == part):
            outside[i] = found.apply(ordered[i])
    whole = _fit(method, ordered, right)
    return VerdictCalibration(
        method=method,
        temperature=whole.temperature,
        curve=whole.curve,
        threshold=threshold,
        backend=backend,
        prompt=prompt,
        aggregation=aggregation,
        data=hashlib.sha256("\n".join(keys[i] for i in ranked).encode()).hexdigest()[:16],
        examples=len(golds),
        version=__version__,
        before=calibration_scores(ordered, right),
        after=calibration_scores(outside, right),
    )


def calibration_scores(supports: Sequence[Support], golds: Sequence[Label]) -> CalibrationScores:
    """ECE (ten bins) and Brier score of the likeliest label's confidence, and NLL of the right label.

    Raises:
        UserError: There are no examples, not as many labels as probabilities, or a label is none of the three.
    """
    loss = nll(supports, golds)
    confidences, correct = top_label_hits(supports, golds)
    squares = sum((c - r) ** 2 for c, r in zip(confidences, correct, strict=True))
    return CalibrationScores(ece=ece(confidences, correct), brier=squares / len(golds), nll=loss)


class _Fitted(NamedTuple):
    temperature: float = 1.0
    curve: CalibrationCurve | None = None

    def apply(self, support: Support) -> Support:
        return apply_map(support, self.temperature, self.curve)


def _fit(method: CalibrationMethod, supports: Sequence[Support], golds: Sequence[Label]) -> _Fitted:
    if method == "temperature":
        return _Fitted(temperature=fit_temperature(supports, golds))
    confidences, correct = top_label_hits(supports, golds)
    confidences = [min(c, 1.0) for c in confidences]
    return _Fitted(curve=(isotonic_curve if method == "isotonic" else platt_curve)(confidences, correct))


def _key(support: Support, gold: str) -> str:
    return " ".join([*(float(p).hex() for p in support), gold])


def _parts(names: Sequence[str]) -> list[int]:
    """Which part each example is in; the parts differ by one group at most, and depend on the names alone."""
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(ranked) < 2:
        raise UserError(
            "all examples are of one group, so nothing can be told about others", hint="use more development data"
        )
    part = {name: i % FOLDS for i, name in enumerate(ranked)}
    return [part[name] for name in names]


GRID: Final = (0.0, *(t / 100 for t in range(40, 100, 5)))
"""Thresholds that are tried: none at all, 0.40, 0.45 … 0.95. The first is ours: a gate has to earn its place."""


class GatedVerdict(NamedTuple):
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


def gate(support: Support, threshold: float) -> GatedVerdict:
    """Take a decisive verdict back to "neutral" where its probability is below the threshold; at it, it stands.

    A threshold of 0 lets everything pass, one above 1 nothing. The probabilities are not altered.

    Args:
        support: Calibrated probabilities; among equals "neutral" is the likeliest, then "refutes".
        threshold: Least probability of a verdict that is stood by.
    """
    raw, confidence = support.label, support.confidence
    downgraded = raw != "neutral" and confidence < threshold
    return GatedVerdict("neutral" if downgraded else raw, raw, confidence, downgraded)


class GateMetrics(NamedTuple):
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


def gate_metrics(supports: Sequence[Support], golds: Sequence[str], threshold: float) -> GateMetrics:
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
    return GateMetrics(
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
) -> GateMetrics:
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
    all_of_them = [gate_metrics(supports, golds, t) for t in GRID]
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


def _precisions(at: GateMetrics) -> list[float]:
    return [p for p in (at.precision_supports, at.precision_refutes) if p is not None]
