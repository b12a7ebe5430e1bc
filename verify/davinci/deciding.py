"""From what each passage says of a claim to what is stood by: weights, fusion, calibration, gate. Pure.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193; weights, fusion and calibration
are ours (see `fusion`, `calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...core.answer import Verdict
from ..calibration.gating import gate
from ..calibration.verdict_calibration import VerdictCalibration
from ..evidence import Passage
from ..fusion.fusing import Reason, fuse, reason_for
from ..fusion.items import item_of
from ..fusion.parameters import FusionParameters
from ..support import NOTHING, Label, Support

UNCALIBRATED_THRESHOLD = 0.6
VERDICTS: dict[Label, Verdict] = {
    "supports": "supported",
    "refutes": "refuted",
    "neutral": "not_enough_evidence",
}


@dataclass(frozen=True)
class Deciding:
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
        fused = fuse([item_of(passage, (support,), rank=rank) for rank, passage, support in read], self.fusion)
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
