"""From what each passage says of a claim to what is stood by: weights, fusion, calibration, gate. Pure.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193; weights, fusion and calibration
are ours (see `fusion`, `calibration`).

`decision_rule_for`: the fusion and calibration that belong to a judge: those that were named, or shipped with ours.

`evidence_weights`: how much each retrieved passage counts, from its score and how far its source is believed.

Source: DAVinCI (Rawte, Rossi, Dernoncourt, Lipka 2026, arXiv:2604.21193); the softmax with a temperature and the
credibility are this project's own.
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


@dataclass(frozen=True)
class DecisionRule:
    """How verdicts on passages become one that is stood by.

    Attributes:
        fusion: How they are combined.
        calibration: What the combination is worth; None takes it as it is.
        threshold: Least confidence of a decisive verdict; None is the calibration's, or else 0.6.
    """

    fusion: FusionParameters = field(default_factory=lambda: FusionParameters(disputed=True))
    calibration: VerdictCalibration | None = None
    threshold: float | None = None

    @property
    def least_confidence(self) -> float:
        """The gate's threshold."""
        if self.threshold is not None:
            return self.threshold
        known = None if self.calibration is None else self.calibration.threshold
        return UNCALIBRATED_THRESHOLD if known is None else known

    def decide(self, passages: Sequence[Passage], supports: Sequence[Support | None]) -> Decision:
        """What is stood by.

        Args:
            passages: What was looked at, the best found first.
            supports: What each says of the claim; None where that could not be read, which leaves the passage out.
        """
        read = [(r, p, s) for r, (p, s) in enumerate(zip(passages, supports, strict=True), 1) if s is not None]
        fused = fuse_evidence(
            [evidence_item(passage, (support,), rank=rank) for rank, passage, support in read], self.fusion
        )
        probs = fused.probs if self.calibration is None or not read else self.calibration.apply(fused.probs)
        return self._stand_by(probs, fused.label == "disputed", fused.conflict, bool(read), fused.warnings)

    def decide_whole(self, support: Support | None) -> Decision:
        """The same of one verdict on all passages read together."""
        if support is None:
            return self._stand_by(NOTHING, False, 0.0, False, ())
        probs = support if self.calibration is None else self.calibration.apply(support)
        return self._stand_by(probs, False, 0.0, True, ())

    def _stand_by(
        self, probs: Support, disputed: bool, conflict: float, read: bool, warnings: tuple[str, ...]
    ) -> Decision:
        threshold = self.least_confidence
        gated = gate(probs, threshold)
        reason: Reason = "no_evidence" if not read else reason_for(probs, conflict, self.fusion.theta_c, threshold)
        return Decision(
            verdict="disputed" if disputed else VERDICTS[gated.label],
            label=gated.raw_label,
            probs=probs,
            confidence=gated.confidence if read else 0.0,
            downgraded=gated.downgraded and not disputed,
            threshold=threshold,
            conflict=conflict,
            reason=reason,
            warnings=warnings,
        )


@dataclass(frozen=True)
class Decision:
    """What is stood by of a claim, before anybody asks for the span that shows it.

    Attributes:
        verdict: "supported", "refuted", "disputed" or "not_enough_evidence".
        label: The likeliest label before the gate.
        probs: Calibrated probabilities.
        confidence: That of the likeliest label; 0 without evidence.
        downgraded: Whether the gate took a decisive label back.
        threshold: The gate's threshold.
        conflict: How far the evidence contradicts itself.
        reason: Why it is no surer: "ok", "weak", "irrelevant", "conflict" or "no_evidence".
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


RETRIEVED = "retrieved"
"""The evidence source that shipped parameters were fitted on: passages that a retriever found."""
UNFITTED_A = 1.0
"""How far a passage is informative by a judge that nothing was fitted to: as far as the judge says."""
UNFITTED_SIDE = 0.8
"""Informative passages that a dispute needs on each side then: errors of a judge nobody measured are no dispute."""
NO_CALIBRATION = "none"

_SHIPPED = Path(__file__).parent / "shipped"


def decision_rule_for(config: DavinciConfig, backend: str) -> DecisionRule:
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
    return DecisionRule(
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


TAU = 1.0


def evidence_weights(scores: Sequence[float], credibility: Sequence[float], tau: float = TAU) -> list[float]:
    """Weights of passages: softmax(score / tau), times credibility, normalised.

    Reciprocal-rank scores lie within 0.05 of each other: with them, a `tau` of 1 weighs passages almost alike.

    Args:
        scores: One for each passage, on any scale.
        credibility: Likewise, each in [0, 1]; 0 leaves a passage out.
        tau: Temperature, above 0; the lower, the more the best passages count.

    Returns:
        Weights that sum to 1; all 0 where nothing is credible.

    Raises:
        UserError: The lengths differ, `tau` is not positive, or a number is out of its range.
    """
    if len(scores) != len(credibility):
        raise UserError(f"{len(scores)} scores and {len(credibility)} credibilities do not go together")
    if not (math.isfinite(tau) and tau > 0):
        raise UserError(f"tau = {tau}: a temperature is above 0")
    if not all(math.isfinite(score) for score in scores):
        raise UserError("a score is not a finite number")
    if not all(0 <= belief <= 1 for belief in credibility):
        raise UserError("a credibility is not in [0, 1]")
    believed = [score for score, belief in zip(scores, credibility, strict=True) if belief > 0]
    if not believed:
        return [0.0] * len(scores)
    # the best one that is believed has the exponent 0, so that not all weights underflow
    best = max(believed)
    raised = [b * math.exp((s - best) / tau) if b > 0 else 0.0 for s, b in zip(scores, credibility, strict=True)]
    total = math.fsum(raised)
    return [value / total for value in raised]
