"""Calibration of verdicts: temperature scaling, curves of the top label's confidence, and the gate.

A `VerdictCalibration` is fitted to development data and applies to exactly the entailment and aggregation that it was
fitted for. The gate then turns a decisive verdict of too little confidence into "neutral". Neither changes the top
label.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2 (temperature scaling, here on
log-probabilities, which differ from logits by a constant); Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI",
arXiv:2604.21193, which calls the gate recalibration. Choosing its threshold on development data is ours.
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
from ..core.calibration_fit import ece, fit_curve
from ..core.errors import DataError, UserError
from ..core.files import FittedFile, read_fitted_file, write_fitted_file
from ..core.version import __version__
from .metrics import MIN_PROBABILITY, label_indices, macro_f1, nll, top_label_hits
from .types import Label, Support

Array = NDArray[np.float64]

# -- maps of a support

MIN_TEMPERATURE: Final = 0.05
MAX_TEMPERATURE: Final = 20.0
_SEARCH_STEPS: Final = 80
"""Steps of the golden-section search; each reduces the interval to 0.618 of its length."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def apply_temperature(support: Support, temperature: float) -> Support:
    """q_y = p_y^(1/T) / Σ p^(1/T): T below 1 sharpens, above 1 flattens, T = 1 changes nothing; a 0 stays 0.

    The top label does not change: where rounding makes the two largest equal, it stays larger by the smallest step of a
    float.

    Raises:
        UserError: T is not positive.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UserError(f"the temperature must be positive, got {temperature:g}")
    if temperature == 1:
        return support
    logs = [math.log(p) if p > 0 else -math.inf for p in support]
    top = max(logs)
    powers = [math.exp((log - top) / temperature) for log in logs]
    total = math.fsum(powers)
    return keep_label(Support(*(r / total for r in powers)), support.label)


def keep_label(support: Support, label: Label) -> Support:
    """The support with this label on top, by the smallest float step, where rounding has made it a tie."""
    if support.label == label:
        return support
    return support._replace(**{label: math.nextafter(support.confidence, 1.0)})


def with_confidence(support: Support, confidence: float) -> Support:
    """The support with another probability of its top label; the others keep their proportion.

    The top label does not change: a confidence that would put another above it is raised to their tie. For a support of
    1 the remainder is divided equally.
    """
    label = support.label
    shares = support._replace(**{label: 0.0})
    others = math.fsum(shares)  # not 1 - p, which would round very small ones to 0
    shares = Support(*(p / others for p in shares)) if others > 0 else Support(0.5, 0.5, 0.5)._replace(**{label: 0.0})
    largest = max(shares)
    top = max(confidence, largest / (1 + largest))
    return keep_label(Support(*(p * (1 - top) for p in shares))._replace(**{label: top}), label)


def apply_map(support: Support, temperature: float, curve: CalibrationCurve | None) -> Support:
    """A support by a curve of its top label's confidence or, without one, by a temperature."""
    if curve is None:
        return apply_temperature(support, temperature)
    return with_confidence(support, curve.apply(min(support.confidence, 1.0)))


def fit_temperature(supports: Sequence[Support], golds: Sequence[Label]) -> float:
    """The temperature with the lowest negative log-likelihood, in [0.05, 20]; never worse than T = 1.

    The loss is convex in 1/T, so a golden-section search over log T finds its minimum. Probabilities below 1e-12 count
    as 1e-12.

    Raises:
        UserError: There are no examples, or the lengths differ.
    """
    indices = label_indices(supports, golds)
    logs = np.log(np.maximum(np.array(supports, dtype=np.float64), MIN_PROBABILITY))

    def loss(log_temperature: float) -> float:
        return float(-tempered_logs(logs, math.exp(log_temperature))[np.arange(len(indices)), indices].mean())

    best = math.exp(_golden_section(loss, math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)))
    return best if loss(math.log(best)) < loss(0.0) else 1.0


def tempered_logs(logs: Array, temperature: float) -> Array:
    """Log-probabilities by a temperature, `[examples, 3]`, from log-probabilities (-inf of a 0)."""
    scaled = logs / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Array = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def _golden_section(loss: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a unimodal function.

    Source: Kiefer 1953, "Sequential minimax search for a maximum".
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_SEARCH_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    # a minimum at the edge: the edge itself, not a point just inside
    return min(((low + high) / 2, low, high), key=loss)


# -- calibration files

KIND: Final = "reason verdict calibration"
FORMAT: Final = 1
_FIT_HINT: Final = "fit one to this verifier's verdicts on development data"


class VerdictCalibration(FittedFile):
    """A map of three-way supports, with what it applies to and how well it did.

    "temperature" raises all three probabilities to 1/T. "platt" and "isotonic" map the probability of the top
    label, and the others keep their proportion in the remainder. One map of the top label rather than one for each
    label, because the gate reads only that, and because renormalising three maps would undo each of them.

    Attributes:
        kind: What the file is.
        format: Version of the file format.
        name: The file's stem; empty before it is saved.
        method: The kind of map.
        temperature: T of "temperature", above 0; 1 otherwise.
        curve: The curve of "platt" and "isotonic"; None otherwise.
        threshold: The gate's threshold chosen on the same data after this map; None if none was.
        backend: Identity of what judged the pairs of evidence and claim.
        prompt: Id of its prompt; empty if it has none.
        aggregation: Name and parameters of the aggregation of verdicts.
        data: Hash of the examples.
        examples: Number of examples.
        version: Version of `reason`.
        before: ECE and Brier score of the top label's confidence, and NLL of the gold label, uncalibrated.
        after: The same out of sample: each example by a map that was fitted without its fold.
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
    def _is_one_map(self) -> Self:
        if (self.method == "temperature") != (self.curve is None):
            raise ValueError("the methods platt and isotonic need a curve, and only these")
        if self.curve is not None and (self.curve.method != self.method or self.temperature != 1):
            raise ValueError(f"the curve does not match the method {self.method}")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.method}, {self.examples} examples)".lstrip()

    def apply(self, support: Support) -> Support:
        """The calibrated probabilities; the top label is unchanged."""
        return apply_map(support, self.temperature, self.curve)

    def check_fitted_for(self, *, backend: str, aggregation: str, prompt: str = "") -> None:
        """Check that the calibration was fitted for this backend, aggregation and prompt.

        Raises:
            DataError: One of them differs; the message names both.
        """
        for label, own, other in (
            ("backend", self.backend, backend),
            ("prompt", self.prompt, prompt),
            ("aggregation", self.aggregation, aggregation),
        ):
            if own != other:
                raise DataError(
                    f"the calibration {self} was fitted for the {label} {own!r}, not for {other!r}", hint=_FIT_HINT
                )


def save_calibration(calibration: VerdictCalibration, path: Path) -> None:
    """Write a calibration as JSON, atomically; its name is the file's stem.

    Raises:
        StoreError: It cannot be written; the previous content stays.
    """
    write_fitted_file(calibration, path)


def load_calibration(path: Path) -> VerdictCalibration:
    """Read a calibration.

    Raises:
        DataError: The file does not exist, cannot be read, or is not a valid calibration of verdicts of this version.
    """
    return read_fitted_file(
        path, VerdictCalibration, kind=KIND, format=FORMAT, label="verdict calibration", hint=_FIT_HINT
    )


# -- fitting

MIN_EXAMPLES: Final = 20
"""Fewer examples would fit noise."""
MIN_ISOTONIC_EXAMPLES: Final = 500
"""The same for "isotonic", which has as many parameters as the data has steps."""
NUM_FOLDS: Final = 5


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
    """Fit a calibration; deterministic and independent of the order of the examples.

    The map is fitted to all examples; its scores are out of sample, by cross-validation.

    Args:
        method: "temperature", "platt" or "isotonic".
        supports: The verifier's aggregated probabilities on development data.
        golds: The gold labels.
        backend: Identity of what judged the pairs.
        aggregation: Name and parameters of the aggregation.
        prompt: Id of the prompt.
        groups: Group of each example, such as the case of contrastive claims, whose members are in the same fold. By
            default only equal examples are a group.
        threshold: The gate's threshold, if it was already chosen.

    Raises:
        UserError: There are fewer than 20 examples (500 for "isotonic"), the lengths differ, a label is none of the
            three, or all examples are of one group.
    """
    label_indices(supports, golds)
    required = MIN_ISOTONIC_EXAMPLES if method == "isotonic" else MIN_EXAMPLES
    if len(golds) < required:
        raise UserError(
            f"the calibration {method!r} needs at least {required} examples, got {len(golds)}",
            hint="use more, or the method temperature" if method == "isotonic" else "use more development data",
        )
    if groups and len(groups) != len(golds):
        raise UserError(f"expected as many groups as examples ({len(golds)}), got {len(groups)}")
    # in a canonical order, so that the result is bitwise reproducible
    keys = [_key(s, g) for s, g in zip(supports, golds, strict=True)]
    names = list(groups) or keys
    order = sorted(range(len(keys)), key=lambda i: (keys[i], names[i]))
    ordered, ordered_golds = [supports[i] for i in order], [golds[i] for i in order]
    folds = _folds([names[i] for i in order])
    out_of_sample = list(ordered)
    for fold in sorted(set(folds)):
        train_indices = [i for i, f in enumerate(folds) if f != fold]
        fitted = _fit(method, [ordered[i] for i in train_indices], [ordered_golds[i] for i in train_indices])
        for i in (i for i, f in enumerate(folds) if f == fold):
            out_of_sample[i] = fitted.apply(ordered[i])
    final = _fit(method, ordered, ordered_golds)
    return VerdictCalibration(
        method=method,
        temperature=final.temperature,
        curve=final.curve,
        threshold=threshold,
        backend=backend,
        prompt=prompt,
        aggregation=aggregation,
        data=hashlib.sha256("\n".join(keys[i] for i in order).encode()).hexdigest()[:16],
        examples=len(golds),
        version=__version__,
        before=calibration_scores(ordered, ordered_golds),
        after=calibration_scores(out_of_sample, ordered_golds),
    )


def calibration_scores(supports: Sequence[Support], golds: Sequence[Label]) -> CalibrationScores:
    """ECE (ten bins) and Brier score of the top label's confidence, and NLL of the gold label.

    Raises:
        UserError: There are no examples, the lengths differ, or a label is none of the three.
    """
    loss = nll(supports, golds)
    confidences, correct = top_label_hits(supports, golds)
    squared_errors = sum((c - r) ** 2 for c, r in zip(confidences, correct, strict=True))
    return CalibrationScores(ece=ece(confidences, correct), brier=squared_errors / len(golds), nll=loss)


class _FittedMap(NamedTuple):
    temperature: float = 1.0
    curve: CalibrationCurve | None = None

    def apply(self, support: Support) -> Support:
        return apply_map(support, self.temperature, self.curve)


def _fit(method: CalibrationMethod, supports: Sequence[Support], golds: Sequence[Label]) -> _FittedMap:
    if method == "temperature":
        return _FittedMap(temperature=fit_temperature(supports, golds))
    confidences, correct = top_label_hits(supports, golds)
    return _FittedMap(curve=fit_curve(method, [min(c, 1.0) for c in confidences], correct))


def _key(support: Support, gold: str) -> str:
    return " ".join([*(float(p).hex() for p in support), gold])


def _folds(names: Sequence[str]) -> list[int]:
    """Fold of each example; the folds differ by up to one group, and depend only on the names."""
    group_names = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(group_names) < 2:
        raise UserError(
            "all examples are of one group, which allows no estimate for others", hint="use more development data"
        )
    fold = {name: i % NUM_FOLDS for i, name in enumerate(group_names)}
    return [fold[name] for name in names]


# -- the gate

GRID: Final = (0.0, *(t / 100 for t in range(40, 100, 5)))
"""Candidate thresholds: none, 0.40, 0.45 … 0.95. The first is ours: a gate must improve the result to be used."""

_SIDES: Final[tuple[Label, Label]] = ("supports", "refutes")


class GatedVerdict(NamedTuple):
    """A verdict after the gate.

    Attributes:
        label: The final label.
        raw_label: The top label.
        confidence: Its probability.
        downgraded: Whether a decisive label was changed to neutral.
    """

    label: Label
    raw_label: Label
    confidence: float
    downgraded: bool


def gate(support: Support, threshold: float) -> GatedVerdict:
    """Turn a decisive verdict into "neutral" if its probability is below the threshold; at the threshold it passes.

    A threshold of 0 lets everything pass, one above 1 nothing. The probabilities are not changed.
    """
    raw, confidence = support.label, support.confidence
    downgraded = raw != "neutral" and confidence < threshold
    return GatedVerdict("neutral" if downgraded else raw, raw, confidence, downgraded)


class GateMetrics(NamedTuple):
    """Metrics of verdicts at one threshold. An example is answered if its verdict after the gate is decisive.

    Attributes:
        threshold: The threshold.
        macro_f1: Mean F1 of the labels after the gate, over the labels that are gold or a top label somewhere.
        answered: Number of answered examples.
        coverage: Share of answered examples.
        risk: Share of wrong ones among the answered; None if none is answered.
        precision_supports: Precision of "supports"; None if there are none.
        precision_refutes: Precision of "refutes"; None if there are none.
    """

    threshold: float
    macro_f1: float
    answered: int
    coverage: float
    risk: float | None
    precision_supports: float | None
    precision_refutes: float | None


def gate_metrics(supports: Sequence[Support], golds: Sequence[str], threshold: float) -> GateMetrics:
    """Metrics of verdicts at a threshold.

    Args:
        supports: Calibrated probabilities of each example.
        golds: The gold labels; an answer to one that is none of the three ("disputed") is wrong.
        threshold: The threshold.

    Raises:
        UserError: There are no examples, or the lengths differ.
    """
    gated = [gate(s, threshold) for s in supports]
    labels = [g.label for g in gated]
    score = macro_f1(labels, golds, sorted({*golds, *(g.raw_label for g in gated)}))
    supported, refuted = ([gold for label, gold in zip(labels, golds, strict=True) if label == side] for side in _SIDES)
    correct = supported.count("supports") + refuted.count("refutes")
    answered = len(supported) + len(refuted)
    return GateMetrics(
        threshold=threshold,
        macro_f1=score,
        answered=answered,
        coverage=answered / len(labels),
        risk=1 - correct / answered if answered else None,
        precision_supports=supported.count("supports") / len(supported) if supported else None,
        precision_refutes=refuted.count("refutes") / len(refuted) if refuted else None,
    )


def choose_threshold(
    supports: Sequence[Support],
    golds: Sequence[str],
    *,
    max_risk: float | None = None,
    min_precision: float | None = None,
) -> GateMetrics:
    """The smallest threshold of the grid that meets a target on development data; by default, of the largest macro F1.

    Args:
        supports: Calibrated probabilities of each example.
        golds: The gold labels.
        max_risk: Maximum share of wrong ones among the answered, in [0, 1].
        min_precision: Minimum precision of each decisive label that occurs, in [0, 1].

    Returns:
        The metrics at the threshold. A threshold at which nothing is answered meets no target.

    Raises:
        UserError: Both targets are set, one is outside [0, 1], no threshold meets it (the message names the nearest),
            there are no examples, or the lengths differ.
    """
    if max_risk is not None and min_precision is not None:
        raise UserError("max_risk and min_precision exclude each other", hint="set one of them")
    target = max_risk if max_risk is not None else min_precision
    if target is not None and not 0 <= target <= 1:
        raise UserError(f"the target must be in [0, 1], got {target:g}")
    candidates = [gate_metrics(supports, golds, t) for t in GRID]
    if target is None:
        return max(candidates, key=lambda m: m.macro_f1)  # the first of the largest
    if max_risk is not None:
        shortfall = [(1.0 if m.risk is None else m.risk) - max_risk for m in candidates]
        description = f"a risk of {max_risk:g} or less"
    else:
        shortfall = [target - min(_precisions(m), default=0.0) if m.answered else 1.0 for m in candidates]
        description = f"a precision of {target:g}"
    reached = next((m for m, short in zip(candidates, shortfall, strict=True) if short <= 0 and m.answered), None)
    if reached is not None:
        return reached
    nearest = min(zip(shortfall, candidates, strict=True), key=lambda pair: pair[0])[1]
    if not nearest.answered:
        raise UserError("no threshold answers any example", hint="the verifier labels everything neutral")
    raise UserError(
        f"no threshold reaches {description}; the nearest is {nearest.threshold:g}: {nearest.risk:.3f} of the "
        f"{nearest.answered} answers are wrong",
        hint="relax the target, or calibrate on more examples",
    )


def _precisions(metrics: GateMetrics) -> list[float]:
    return [p for p in (metrics.precision_supports, metrics.precision_refutes) if p is not None]
