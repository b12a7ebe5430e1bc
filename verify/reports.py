"""`ClaimReport`: one claim, its evidence and sources, and how its verdict was reached: enough to decide it again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from ..core.answer import Evidence, Probability, Verdict
from ..core.messages import Frozen
from .claims import Claim
from .evidence import Passage, Span
from .support import Label, Support

AttributionKind = Literal["provenance", "agreement", "context", "whitebox"]


class InternalAttribution(Frozen):
    """A part of the run that a claim may have come from.

    Attributes:
        component: The part: a step, sample, juror, tool result, or segment of the prompt, by name.
        kind: How it was found: by the same words ("provenance"), by agreement of samples, by leaving context out
            ("context"), or by gradients or attention of the model ("whitebox").
        weight: How much the claim rests on it; the scale belongs to the kind and is told in `detail`.
        detail: The numbers behind the weight, and how they were obtained.
    """

    component: str
    kind: AttributionKind
    weight: float
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class PairVerdict(Frozen):
    """What one passage says of the claim.

    Attributes:
        passage: The passage's id.
        probs: (supports, refutes, neutral); None if the verifier's reply could not be read.
        span: The part that decides; of a long passage it lies in the window with the most support.
        weight: Its share by retrieval score and credibility, in [0, 1], as it is shown; what it counts for in the
            verdict is fusion's.
    """

    passage: str
    probs: tuple[float, float, float] | None
    span: Span | None = None
    weight: float = 1.0

    @property
    def support(self) -> Support | None:
        """The probabilities with their names."""
        return None if self.probs is None else Support(*self.probs)


class ClaimReport(Frozen):
    """One claim's whole record: enough to decide again without asking a model.

    Attributes:
        claim: The claim.
        verdict: What is stood by, after calibration and gate.
        label: The likeliest label before the gate; None if nothing was judged.
        probs: Calibrated (supports, refutes, neutral) over all evidence.
        confidence: Calibrated probability of `label`.
        downgraded: Whether the gate took a decisive label back.
        threshold: The gate's threshold.
        passages: What was looked at, best first.
        pairs: What each passage says, in the order of `passages`; empty where all were judged as one text.
        evidence: The spans that decide, as an answer cites them.
        internal: What of the run the claim came from.
        conflict: How far the evidence contradicts itself, in [0, 1].
        reason: "ok", "weak", "irrelevant", "conflict", "no_evidence", "program", "unchecked" or "verifier_failed".
        program: What a program found, where one could check the claim: a line to be read; empty otherwise.
        calibrator: Id of the calibration used; empty if none.
        backend: Identity of what judged the pairs.
        warnings: What a reader should know.
    """

    claim: Claim
    verdict: Verdict
    label: Label | None = None
    probs: tuple[float, float, float] = (0.0, 0.0, 1.0)
    confidence: Probability | None = None
    downgraded: bool = False
    threshold: float = 0.0
    passages: tuple[Passage, ...] = ()
    pairs: tuple[PairVerdict, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    internal: tuple[InternalAttribution, ...] = ()
    conflict: Probability = 0.0
    reason: str = "ok"
    program: str = ""
    calibrator: str = ""
    backend: str = ""
    warnings: tuple[str, ...] = ()
