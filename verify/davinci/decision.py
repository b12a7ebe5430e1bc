"""`DecisionRule`: from the verdict of each passage to the verdict on a claim: fusion, calibration, gate. Pure.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193; weights, fusion and calibration
are ours (see `fusion`, `calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ...core.errors import UserError
from ...core.types import Verdict
from ...reasoning.retrieval.protocol import Passage
from ..calibration import VerdictCalibration, gate, load_calibration
from ..fusion import FusionParameters, Reason, evidence_item, fuse_evidence, reason_for
from ..fusion_fitting import load_fusion
from ..types import NOTHING, Label, Support
from .config import DavinciConfig

UNCALIBRATED_THRESHOLD = 0.6
VERDICTS: dict[Label, Verdict] = {
    "supports": "supported",
    "refutes": "refuted",
    "neutral": "not_enough_evidence",
}
TAU = 1.0
RETRIEVED = "retrieved"
"""Source of the evidence that shipped parameters were fitted on: retrieved passages."""
UNFITTED_A = 1.0
"""`a` without fitted parameters: a passage is as informative as the entailment's probabilities state."""
UNFITTED_MIN_SIDE = 0.8
"""Informative passages that a dispute then needs on each side, so that errors of the entailment make no dispute."""
NO_CALIBRATION = "none"

_SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Decision:
    """The decision on a claim, without spans.

    Attributes:
        verdict: "supported", "refuted", "disputed" or "not_enough_evidence".
        label: The top label before the gate.
        probs: Calibrated probabilities.
        confidence: That of the top label; 0 without evidence.
        downgraded: Whether the gate changed a decisive label to neutral.
        threshold: The gate's threshold.
        conflict: How far the evidence contradicts itself.
        reason: Why it is not more certain: "ok", "weak", "irrelevant", "conflict" or "no_evidence".
        warnings: What a reader should know.
    """

    verdict: Verdict
    label: Label
    probs: Support
    confidence: float
    downgraded: bool
    threshold: float
    conflict: float
    reason: Reason
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DecisionRule:
    """How the verdicts of passages become one.

    Attributes:
        fusion: Parameters of their fusion.
        calibration: Calibration of the result; None leaves it as it is.
        threshold: Minimum confidence of a decisive verdict; None is the calibration's, or else 0.6.
    """

    fusion: FusionParameters = field(default_factory=lambda: FusionParameters(disputed=True))
    calibration: VerdictCalibration | None = None
    threshold: float | None = None

    @property
    def min_confidence(self) -> float:
        """The gate's threshold."""
        if self.threshold is not None:
            return self.threshold
        fitted = None if self.calibration is None else self.calibration.threshold
        return UNCALIBRATED_THRESHOLD if fitted is None else fitted

    def decide(self, passages: Sequence[Passage], supports: Sequence[Support | None]) -> Decision:
        """The decision by passages, best first, and the verdict of each; one without a parsed verdict is left out."""
        parsed = [(r, p, s) for r, (p, s) in enumerate(zip(passages, supports, strict=True), 1) if s is not None]
        items = [evidence_item(passage, (support,), rank=rank) for rank, passage, support in parsed]
        fused = fuse_evidence(items, self.fusion)
        probs = fused.probs if self.calibration is None or not parsed else self.calibration.apply(fused.probs)
        return self._gate(
            probs,
            is_disputed=fused.label == "disputed",
            conflict=fused.conflict,
            has_evidence=bool(parsed),
            warnings=fused.warnings,
        )

    def decide_concatenated(self, support: Support | None) -> Decision:
        """The decision by one verdict on all passages as one text."""
        if support is None:
            return self._gate(NOTHING, has_evidence=False)
        return self._gate(support if self.calibration is None else self.calibration.apply(support))

    def _gate(
        self,
        probs: Support,
        *,
        is_disputed: bool = False,
        conflict: float = 0.0,
        has_evidence: bool = True,
        warnings: tuple[str, ...] = (),
    ) -> Decision:
        threshold = self.min_confidence
        gated = gate(probs, threshold)
        reason: Reason = "no_evidence"
        if has_evidence:
            reason = reason_for(probs, conflict, self.fusion.theta_c, threshold)
        return Decision(
            verdict="disputed" if is_disputed else VERDICTS[gated.label],
            label=gated.raw_label,
            probs=probs,
            confidence=gated.confidence if has_evidence else 0.0,
            downgraded=gated.downgraded and not is_disputed,
            threshold=threshold,
            conflict=conflict,
            reason=reason,
            warnings=warnings,
        )


def decision_rule_for(config: DavinciConfig, backend: str) -> DecisionRule:
    """The decision rule of an entailment.

    Shipped parameters are used where they were fitted to exactly this entailment. A configured file must match it.

    Args:
        config: Names the files.
        backend: Identity of the entailment.

    Raises:
        UserError: Fusion parameters are set for concatenated passages.
        DataError: A named file cannot be read, or was fitted to another entailment or aggregation.
    """
    is_concatenated = config.aggregation == "concat"
    if config.fusion and is_concatenated:
        raise UserError(
            "fusion does not apply to aggregation 'concat', which reads all passages as one text",
            hint="leave fusion out, or set aggregation to 'witness'",
        )
    # the default `a` of the method belongs to fitted temperatures: with it no single passage could ever decide
    fusion = FusionParameters(
        mode="mean" if config.aggregation == "concat" else config.aggregation,
        a=UNFITTED_A,
        disputed=not is_concatenated,
        least_side=UNFITTED_MIN_SIDE,
    )
    if config.fusion:
        fusion = load_fusion(Path(config.fusion)).parameters_for(verifier=backend, source=RETRIEVED)
    elif config.aggregation == "witness":
        for file in _shipped("fusion-*.json"):
            fitted = load_fusion(file)
            if fitted.verifier == backend:
                fusion = fitted.parameters_for(verifier=backend, source=RETRIEVED)
    calibration = _calibration(config, backend, aggregation_id(config, fusion))
    return DecisionRule(fusion=fusion, calibration=calibration, threshold=config.threshold)


def aggregation_id(config: DavinciConfig, fusion: FusionParameters) -> str:
    """The aggregation that a calibration must have been fitted for."""
    return f"{config.aggregation}:{config.evidence_form}:{fusion.fitted or 'defaults'}"


def _calibration(config: DavinciConfig, backend: str, aggregation: str) -> VerdictCalibration | None:
    if config.calibration == NO_CALIBRATION:
        return None
    if config.calibration:
        calibration = load_calibration(Path(config.calibration))
        calibration.check_fitted_for(backend=backend, aggregation=aggregation)
        return calibration
    for file in _shipped("calibration-*.json"):
        shipped = load_calibration(file)
        if (shipped.backend, shipped.aggregation) == (backend, aggregation):
            return shipped
    return None


@cache
def _shipped(pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(_SHIPPED.glob(pattern)))


def evidence_weights(scores: Sequence[float], credibility: Sequence[float], tau: float = TAU) -> list[float]:
    """Weights of passages: softmax(score / tau), times credibility, normalised; all 0 where nothing is credible.

    Reciprocal-rank scores lie within 0.05 of each other: with them, a `tau` of 1 weighs passages almost equally.

    Args:
        scores: One for each passage, on any scale.
        credibility: Likewise, each in [0, 1]; 0 excludes a passage.
        tau: Temperature; the lower, the more the best passages count.

    Raises:
        UserError: The lengths differ, `tau` is not positive, or a number is out of its range.
    """
    if len(scores) != len(credibility):
        raise UserError(f"expected as many credibilities as scores ({len(scores)}), got {len(credibility)}")
    if not (math.isfinite(tau) and tau > 0):
        raise UserError(f"tau must be positive, got {tau}")
    if not all(math.isfinite(score) for score in scores):
        raise UserError("a score is not a finite number")
    if not all(0 <= one <= 1 for one in credibility):
        raise UserError("a credibility is outside [0, 1]")
    credible = [score for score, one in zip(scores, credibility, strict=True) if one > 0]
    if not credible:
        return [0.0] * len(scores)
    # the best credible passage has the exponent 0, so that not all weights underflow
    best = max(credible)
    exponentials = [c * math.exp((s - best) / tau) if c > 0 else 0.0 for s, c in zip(scores, credibility, strict=True)]
    total = math.fsum(exponentials)
    return [value / total for value in exponentials]
