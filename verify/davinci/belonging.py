"""`deciding_for`: the fusion and calibration that belong to a judge: those that were named, or shipped with ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...core.errors import UserError
from ..calibration.verdict_calibration import VerdictCalibration, load_calibration
from ..fusion.fitted import load_fusion
from ..fusion.parameters import FusionParameters
from .config import DavinciConfig
from .deciding import Deciding

RETRIEVED = "retrieved"
"""The evidence source that shipped parameters were fitted on: passages that a retriever found."""
UNFITTED_A = 1.0
"""How far a passage is informative by a judge that nothing was fitted to: as far as the judge says."""
UNFITTED_SIDE = 0.8
"""Informative passages that a dispute needs on each side then: errors of a judge nobody measured are no dispute."""
NO_CALIBRATION = "none"

_SHIPPED = Path(__file__).parent / "shipped"


def deciding_for(config: DavinciConfig, backend: str) -> Deciding:
    """How verdicts of a judge are combined and what they are worth.

    Shipped parameters are taken where they were fitted to this very judge; a file that was named must have been.

    Args:
        config: Names the files.
        backend: Identity of what judges the pairs.

    Raises:
        DataError: A named file cannot be read, or was fitted to another judge or aggregation.
    """
    concat = config.aggregation == "concat"
    if config.fusion and concat:
        raise UserError("passages that are read as one text are not fused", hint="leave fusion out, or take witness")
    # the default `a` of the method belongs to fitted temperatures: with it no single passage could ever decide
    fusion = FusionParameters(
        mode="mean" if config.aggregation == "concat" else config.aggregation,
        a=UNFITTED_A,
        disputed=not concat,
        least_side=UNFITTED_SIDE,
    )
    if config.fusion:
        fusion = load_fusion(Path(config.fusion)).parameters_for(verifier=backend, source=RETRIEVED)
    elif config.aggregation == "witness":
        for file in _shipped("fusion-*.json"):
            fitted = load_fusion(file)
            if fitted.verifier == backend:
                fusion = fitted.parameters_for(verifier=backend, source=RETRIEVED)
    return Deciding(
        fusion=fusion,
        calibration=_calibration(config, backend, aggregation_id(config, fusion)),
        threshold=config.threshold,
    )


def aggregation_id(config: DavinciConfig, fusion: FusionParameters) -> str:
    """What a calibration has to have been fitted for."""
    return f"{config.aggregation}:{config.evidence_form}:{fusion.fitted or 'defaults'}"


def _calibration(config: DavinciConfig, backend: str, aggregation: str) -> VerdictCalibration | None:
    if config.calibration == NO_CALIBRATION:
        return None
    if config.calibration:
        found = load_calibration(Path(config.calibration))
        found.refuse_other(backend=backend, aggregation=aggregation)
        return found
    for file in _shipped("calibration-*.json"):
        shipped = load_calibration(file)
        if (shipped.backend, shipped.aggregation) == (backend, aggregation):
            return shipped
    return None


@cache
def _shipped(pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(_SHIPPED.glob(pattern)))
