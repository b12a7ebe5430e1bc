"""`calibrate_verdicts`: fits the fusion and calibration of an entailment model from labelled claims, for `davinci`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ...core.calibration_fit import ReliabilityBin, reliability
from ...core.errors import UserError
from ...verify.calibration import VerdictCalibration, save_calibration
from ...verify.davinci.decision import RETRIEVED
from ...verify.fusion_fitting import FittedFusion, save_fusion
from ...verify.metrics import top_label_hits
from ...verify.types import Label, Support
from .judging import JudgedClaim
from .methods import CalibrationKind, ClaimVerdict, Memo, Method, cross_validated_verdicts, fit_method
from .metrics import VerdictMetrics, verdict_metrics

MIN_CLAIMS: Final = 100
"""Claims below which metrics out of fold say little."""


@dataclass(frozen=True)
class CalibratedVerdicts:
    """What was fitted and how it does.

    Attributes:
        fusion: The fitted parameters; None of an aggregation that has none.
        calibration: The calibration with the gate's threshold.
        before: Verdicts as they came: default parameters, no calibration, no gate.
        after: Each claim by what was fitted to the claims of the other folds.
        bins_before: Reliability of the former.
        bins_after: Reliability of the latter.
        disputed: Number of disputed claims: they inform about conflict only.
    """

    fusion: FittedFusion | None
    calibration: VerdictCalibration
    before: VerdictMetrics
    after: VerdictMetrics
    bins_before: tuple[ReliabilityBin, ...]
    bins_after: tuple[ReliabilityBin, ...]
    disputed: int


def calibrate_verdicts(
    judged: Sequence[JudgedClaim],
    *,
    backend: str,
    aggregation: str = "witness",
    kind: CalibrationKind = "temperature",
    form: str = "full",
    seed: int = 0,
) -> CalibratedVerdicts:
    """Fit to all claims; measure out of fold.

    Raises:
        UserError: There are too few claims, or the aggregation is unknown.
    """
    concat = aggregation == "concat"
    method = Method(
        name="fitted",
        form="concat" if concat else form,  # type: ignore[arg-type]  # davinci's own names
        aggregation=aggregation,  # type: ignore[arg-type]
        calibration=kind,
        disputed=not concat,
    )
    plain = replace(method, name="as it comes", fitted=False, calibration=None, gate=0.0)
    memo: Memo = {}
    full = fit_method(judged, method, backend=backend, source=RETRIEVED, memo=memo)
    if full.calibration is None:
        raise UserError("a calibration was not fitted")
    looked = [one for one in judged if one.row.gold != "disputed"]
    before, _ = cross_validated_verdicts(judged, plain, backend=backend, source=RETRIEVED)
    after, _ = cross_validated_verdicts(judged, method, backend=backend, source=RETRIEVED, memo=memo)
    return CalibratedVerdicts(
        fusion=full.fusion,
        calibration=full.calibration,
        before=_figures(judged, before, seed),
        after=_figures(judged, after, seed),
        bins_before=_bins(judged, before),
        bins_after=_bins(judged, after),
        disputed=len(judged) - len(looked),
    )


def save_verdict_calibration(result: CalibratedVerdicts, directory: Path, name: str) -> list[Path]:
    """Write the files as `davinci` looks for them: `fusion-NAME.json` and `calibration-NAME.json`.

    Raises:
        StoreError: One cannot be written.
    """
    written = []
    if result.fusion is not None:
        written.append(directory / f"fusion-{name}.json")
        save_fusion(result.fusion, written[-1])
    written.append(directory / f"calibration-{name}.json")
    save_calibration(result.calibration, written[-1])
    return written


def _figures(judged: Sequence[JudgedClaim], values: Sequence[ClaimVerdict], seed: int) -> VerdictMetrics:
    return verdict_metrics(
        [one.row.gold for one in judged],
        [one.label for one in values],
        [one.probs for one in values],
        [one.row.group or one.row.name for one in judged],
        seed=seed,
    )


def _bins(judged: Sequence[JudgedClaim], values: Sequence[ClaimVerdict]) -> tuple[ReliabilityBin, ...]:
    kept: list[tuple[Support, Label]] = [
        (text.probs, one.row.gold) for one, text in zip(judged, values, strict=True) if one.row.gold != "disputed"
    ]
    confidences, correct = top_label_hits([p for p, _ in kept], [g for _, g in kept])
    return reliability([min(c, 1.0) for c in confidences], correct)
