"""`calibrate_verdicts`: fusion and calibration of a judge from labelled claims, as `davinci` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ...core.errors import UserError
from ...verify.calibration.scores import Bin, hits, reliability
from ...verify.calibration.verdict_calibration import VerdictCalibration, save_calibration
from ...verify.davinci.belonging import RETRIEVED
from ...verify.fusion.fitted import FittedFusion, save_fusion
from ...verify.types import Label, Support
from .judging import Judged
from .methods import CalibrationKind, Memo, Method, Told, fit, out_of_fold
from .metrics import Figures, figures_of

FEWEST: Final = 100
"""Claims below which figures out of fold say little."""


@dataclass(frozen=True)
class Calibrated:
    """What was fitted and how it does.

    Attributes:
        fusion: The fitted parameters; None of an aggregation that has none.
        calibration: The calibration with the gate's threshold.
        before: Verdicts as they came: default parameters, no calibration, no gate.
        after: Each claim by what was fitted to the claims of the other folds.
        bins_before: Reliability of the former.
        bins_after: Reliability of the latter.
        disputed: Claims that are disputed: they tell of conflict alone.
    """

    fusion: FittedFusion | None
    calibration: VerdictCalibration
    before: Figures
    after: Figures
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]
    disputed: int


def calibrate_verdicts(
    judged: Sequence[Judged],
    *,
    backend: str,
    aggregation: str = "witness",
    kind: CalibrationKind = "temperature",
    form: str = "full",
    seed: int = 0,
) -> Calibrated:
    """Fit to all claims; measure out of fold.

    Args:
        judged: Claims with verdicts on what a retriever found.
        backend: Identity of what judged the pairs.
        aggregation: As the parameter of `davinci`.
        kind: How probabilities are calibrated.
        form: As the parameter `evidence_form` of `davinci`.
        seed: Of the bootstrap.

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
    whole = fit(judged, method, backend=backend, source=RETRIEVED, memo=memo)
    if whole.calibration is None:
        raise UserError("a calibration was not fitted")
    looked = [one for one in judged if one.row.gold != "disputed"]
    before, _ = out_of_fold(judged, plain, backend=backend, source=RETRIEVED)
    after, _ = out_of_fold(judged, method, backend=backend, source=RETRIEVED, memo=memo)
    return Calibrated(
        fusion=whole.fusion,
        calibration=whole.calibration,
        before=_figures(judged, before, seed),
        after=_figures(judged, after, seed),
        bins_before=_bins(judged, before),
        bins_after=_bins(judged, after),
        disputed=len(judged) - len(looked),
    )


def save(found: Calibrated, folder: Path, name: str) -> list[Path]:
    """Write the files as `davinci` looks for them: `fusion-NAME.json` and `calibration-NAME.json`.

    Raises:
        StoreError: One cannot be written.
    """
    written = []
    if found.fusion is not None:
        written.append(folder / f"fusion-{name}.json")
        save_fusion(found.fusion, written[-1])
    written.append(folder / f"calibration-{name}.json")
    save_calibration(found.calibration, written[-1])
    return written


def _figures(judged: Sequence[Judged], told: Sequence[Told], seed: int) -> Figures:
    return figures_of(
        [one.row.gold for one in judged],
        [one.label for one in told],
        [one.probs for one in told],
        [one.row.group or one.row.name for one in judged],
        seed=seed,
    )


def _bins(judged: Sequence[Judged], told: Sequence[Told]) -> tuple[Bin, ...]:
    kept: list[tuple[Support, Label]] = [
        (said.probs, one.row.gold) for one, said in zip(judged, told, strict=True) if one.row.gold != "disputed"
    ]
    confidences, correct = hits([p for p, _ in kept], [g for _, g in kept])
    return reliability([min(c, 1.0) for c in confidences], correct)
