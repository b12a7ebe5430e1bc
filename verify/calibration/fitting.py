"""`fit_calibration`: a `VerdictCalibration` from verdicts and right labels, and an honest figure of what it is worth.

The map that is kept is fitted to all examples. What is told of it is out of sample: the examples are cut into parts,
and each part is calibrated by a map that was fitted to the others alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.calibration import CalibrationCurve, CalibrationMethod, CalibrationScores
from ...core.errors import UserError
from ...core.version import __version__
from ..support import Label, Support
from .curves import isotonic_curve, mapped, platt_curve
from .scores import ece, hits, nll, places_of
from .temperature import fit_temperature
from .verdict_calibration import VerdictCalibration

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
    places_of(supports, golds)
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
    confidences, correct = hits(supports, golds)
    squares = sum((c - r) ** 2 for c, r in zip(confidences, correct, strict=True))
    return CalibrationScores(ece=ece(confidences, correct), brier=squares / len(golds), nll=loss)


class _Fitted(NamedTuple):
    temperature: float = 1.0
    curve: CalibrationCurve | None = None

    def apply(self, support: Support) -> Support:
        return mapped(support, self.temperature, self.curve)


def _fit(method: CalibrationMethod, supports: Sequence[Support], golds: Sequence[Label]) -> _Fitted:
    if method == "temperature":
        return _Fitted(temperature=fit_temperature(supports, golds))
    confidences, correct = hits(supports, golds)
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
