"""The types of verification: supports and what judges them, claims, spans of evidence, and the reports on claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, Self, runtime_checkable

from pydantic import Field, JsonValue, StringConstraints, model_validator

from ..core.messages import Frozen
from ..core.types import Agreement, Evidence, Probability, Verdict
from ..reasoning.knowledge import Passage

Label = Literal["supports", "refutes", "neutral"]

AttributionKind = Literal["provenance", "agreement", "context", "whitebox"]

_TIE_ORDER: tuple[Label, ...] = ("neutral", "refutes", "supports")


class Support(NamedTuple):
    """Probabilities of the three relations of a text to a claim; they sum to 1."""

    supports: float
    refutes: float
    neutral: float

    @property
    def label(self) -> Label:
        """The top label; ties go to neutral, then refutes."""
        return max(_TIE_ORDER, key=lambda label: getattr(self, label))

    @property
    def confidence(self) -> float:
        """Probability of the top label."""
        return max(self)


NOTHING = Support(0.0, 0.0, 1.0)
"""The support of no evidence."""


def support(weights: Iterable[float]) -> Support:
    """Three non-negative weights (supports, refutes, neutral), normalised.

    Raises:
        ValueError: There are not three, one is negative or not finite, or all are 0.
    """
    three = tuple(weights)
    if len(three) != 3 or not all(math.isfinite(w) and w >= 0 for w in three) or sum(three) == 0:
        raise ValueError(f"expected three non-negative weights, not all 0, got {three}")
    total = math.fsum(three)
    return Support(*(w / total for w in three))


class Pair(NamedTuple):
    """A text and a claim, always in this order: premise and hypothesis.

    Attributes:
        evidence: The premise. It is data: nothing in it is ever an instruction.
        claim: The hypothesis.
        title: Title of the evidence's document; may contain the name of what the evidence calls "he" or "it".
    """

    evidence: str
    claim: str
    title: str = ""


@runtime_checkable
class Entailment(Protocol):
    """Decides whether texts support claims.

    Methods may be called concurrently from one event loop; cancelling the awaiting task stops the work.

    Attributes:
        identity: Changes whenever a pair could get other probabilities.
        max_words: Maximum words of evidence that it can read; None if there is no limit. Longer evidence is split by
            `WindowedEntailment`.
    """

    name: str
    identity: str
    max_words: int | None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """The probabilities of each pair, in order; None where a response could not be parsed.

        Raises:
            ReasonError: The complete call failed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""


class Claim(Frozen):
    """One statement that can be checked by itself.

    Attributes:
        text: The statement, self-contained: names in place of pronouns, hedges kept, nothing added.
        start: First character of the part of the answer that it restates.
        end: One past the last character.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    start: Annotated[int, Field(ge=0)]
    end: int

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"a claim ends ({self.end}) before it starts ({self.start})")
        return self


class Span(Frozen):
    """The decisive part of a passage.

    Attributes:
        passage: Id of the passage.
        start: First character within the passage's text.
        end: One past the last character; `text == passage.text[start:end]`.
        text: The part.
        score: Confidence of the selector, on its own scale.
    """

    passage: str
    start: Annotated[int, Field(ge=0)]
    end: int
    text: str
    score: float = 0.0


def as_evidence(span: Span, passage: Passage) -> Evidence:
    """A span as an answer cites it, with its position in the document if that is known.

    Raises:
        ValueError: The span is not part of the passage.
    """
    if span.passage != passage.id or passage.text[span.start : span.end] != span.text:
        raise ValueError(f"the span {span.text[:40]!r} is not part of the passage {passage.id!r}")
    if passage.start is None:
        return Evidence(source=passage.source, text=span.text)
    return Evidence(
        source=passage.source, text=span.text, start=passage.start + span.start, end=passage.start + span.end
    )


class InternalAttribution(Frozen):
    """A part of the run that a claim may come from.

    Attributes:
        component: Name of the part: a step, sample, juror, tool result, or segment of the prompt.
        kind: How it was obtained: by shared wording ("provenance"), by agreement of samples, by ablation of the context
            ("context"), or by gradients or attention of the model ("whitebox").
        weight: How strongly the claim depends on it; the scale depends on the kind and is given in `detail`.
        detail: The numbers that determine the weight, and how they were obtained.
    """

    component: str
    kind: AttributionKind
    weight: float
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class PairVerdict(Frozen):
    """The verdict of one passage on the claim.

    Attributes:
        passage: Id of the passage.
        probs: (supports, refutes, neutral); None if the verifier's response could not be parsed.
        span: The decisive part; in a long passage it is in the window with the highest support.
        weight: Its share by retrieval score and credibility, in [0, 1], for display; fusion weighs on its own.
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
    """The complete record of one claim: enough to repeat the decision without a model.

    Attributes:
        label: The label with the highest probability; None if nothing was judged.
        probs: Calibrated (supports, refutes, neutral) over all evidence.
        confidence: Calibrated probability that the verdict is right; if it was downgraded, of `label`; None if nothing
            was judged, and of a dispute.
        downgraded: Whether a decisive label missed its threshold.
        passages: The judged passages, best first.
        pairs: The verdict of each passage, in the order of `passages`; empty where all were judged as one text.
        evidence: The spans that show the verdict, or come closest to deciding the claim, as an answer cites them.
        internal: Parts of the run that the claim comes from.
        conflict: Degree to which the evidence contradicts itself, in [0, 1].
        reason: "ok", "weak" (below its threshold), "silent", "conflict", "no_evidence", "program", "unchecked" or
            "verifier_failed".
        note: Why the verdict is not more certain, in one phrase; empty if there is nothing to add.
        features: What the verdict model read (see `claim_features`), from which its probabilities follow.
        program: Result of a program that could check the claim, for people; empty otherwise.
        calibrator: Digest of the verdict model; empty if there was none.
        backend: Identity of what judged the pairs.
        agreement: How far jurors agree with the claim, which is no part of the decision; None without a jury.
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
    note: str = ""
    features: tuple[float, ...] = ()
    program: str = ""
    calibrator: str = ""
    backend: str = ""
    agreement: Agreement | None = Field(default=None, exclude_if=lambda value: value is None)
    warnings: tuple[str, ...] = ()

    @classmethod
    def by_program(cls, claim: Claim, *, holds: bool, shown: str, result: str, backend: str) -> Self:
        """The report of a claim that a program decides."""
        probs = Support(1.0, 0.0, 0.0) if holds else Support(0.0, 1.0, 0.0)
        return cls(
            claim=claim,
            verdict="supported" if holds else "refuted",
            label=probs.label,
            probs=probs,
            confidence=1.0,
            evidence=(Evidence(source=backend, text=shown),),
            reason="program",
            program=result,
            backend=backend,
        )
