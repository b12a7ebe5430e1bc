"""`Claim`: one checkable statement of an answer, and where in the answer it stands.

`Passage`: a piece of text that may speak for or against a claim; `Span`: the part of it that does.

`Support`: what a text says of a claim, as probabilities over supports, refutes and says nothing.

`ClaimReport`: one claim, its evidence and sources, and how its verdict was reached: enough to decide it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from ..core.messages import Frozen
from ..core.types import Evidence, Probability, Verdict
from ..reasoning.retrieval.protocol import Passage


class Claim(Frozen):
    """One statement that can be checked by itself.

    Attributes:
        text: The statement, self-contained: names in place of pronouns, hedges kept, nothing added.
        start: First character of the part of the answer that it says again.
        end: One past the last character.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    start: Annotated[int, Field(ge=0)]
    end: int

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"a claim's place ends ({self.end}) before it begins ({self.start})")
        return self


class Span(Frozen):
    """The part of a passage that decides.

    Attributes:
        passage: The passage's id.
        start: First character within the passage's text.
        end: One past the last character; `text == passage.text[start:end]`.
        text: The part.
        score: How sure the selector is; the scale is the selector's.
    """

    passage: str
    start: Annotated[int, Field(ge=0)]
    end: int
    text: str
    score: float = 0.0


def as_evidence(span: Span, passage: Passage) -> Evidence:
    """A span as an answer cites it: its place counted within the document where that is known.

    Raises:
        ValueError: The span is no part of the passage.
    """
    if span.passage != passage.id or passage.text[span.start : span.end] != span.text:
        raise ValueError(f"the span {span.text[:40]!r} is no part of the passage {passage.id!r}")
    if passage.start is None:
        return Evidence(source=passage.source, text=span.text)
    return Evidence(
        source=passage.source, text=span.text, start=passage.start + span.start, end=passage.start + span.end
    )


Label = Literal["supports", "refutes", "neutral"]

_TIES: tuple[Label, ...] = ("neutral", "refutes", "supports")
"""Who wins among equals: the more careful one."""


class Support(NamedTuple):
    """Probabilities of the three relations of a text to a claim; they sum to 1."""

    supports: float
    refutes: float
    neutral: float

    @property
    def label(self) -> Label:
        """The likeliest; among equals neutral, then refutes."""
        return max(_TIES, key=lambda label: getattr(self, label))

    @property
    def confidence(self) -> float:
        """Probability of the likeliest."""
        return max(self)


NOTHING = Support(0.0, 0.0, 1.0)
"""What no evidence says."""


def support(weights: Iterable[float]) -> Support:
    """Three non-negative weights (supports, refutes, neutral), normalised.

    Raises:
        ValueError: There are not three, one is negative or no number, or all are 0.
    """
    three = tuple(weights)
    if len(three) != 3 or not all(math.isfinite(w) and w >= 0 for w in three) or sum(three) == 0:
        raise ValueError(f"{three} are no weights of three labels")
    total = math.fsum(three)
    return Support(*(w / total for w in three))


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
