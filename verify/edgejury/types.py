"""Records passed between the stages: `JudgeVerdict`, `Review`, `Ranking`, `Synthesis`, `ClaimLabel`, `JuryResult`.

Jurors are numbered from 0. Option letters are those of the question, whatever order a juror saw; the letters of
candidates have been mapped back to jurors.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850); the fields are ours, after what its stages exchange.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from ...core.messages import Frozen
from ...core.types import Agreement, AgreementLabel, Probability
from ..types import Claim

IssueKind = Literal["factual_risk", "missing_edge_case", "unclear", "incomplete"]
JuryPath = Literal["full", "early_exit", "no_review", "fallback"]
Aggregate = Literal["borda", "copeland", "schulze", "points"]
Stage = Literal["answer", "review", "chair", "agreement"]

MIN_MARK, MAX_MARK = 1, 10

JurorId = Annotated[int, Field(ge=0)]
Mark = Annotated[int, Field(ge=MIN_MARK, le=MAX_MARK)]
NonEmptyText = Annotated[str, StringConstraints(min_length=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Opinion(Frozen):
    """A juror's answer.

    Attributes:
        role: Name of its role; empty without one.
        text: Its text; empty if and only if the call failed, so that no error message is shown to other models.
        choice: The answer in normal form: an option's letter, a plain number, "yes" or "no", a formula or a short text.
            Equal answers have equal forms (see `answering.canonical`). None without an answer or for an open question.
        probs: Probability of each option, by letter, if the model returns it.
        ok: Whether there is an answer.
        tokens: Generated tokens, those of the thought included.
        thought: What the juror thought before its text; no other model sees it.
        thinking_tokens: Tokens of the thought.
        latency_ms: Duration of the call in milliseconds.
        failure: Reason of a failure.
    """

    juror: JurorId
    model: str
    role: str = ""
    text: str = ""
    thought: str = Field(default="", exclude_if=lambda value: not value)
    thinking_tokens: Count = Field(default=0, exclude_if=lambda value: not value)
    choice: str | None = None
    probs: dict[str, Probability] = Field(default_factory=dict)
    ok: bool
    tokens: Count = 0
    latency_ms: Amount = 0.0
    failure: str = ""

    @model_validator(mode="after")
    def _check_failure(self) -> Self:
        if self.ok != bool(self.text.strip()):
            raise ValueError("an opinion must have a text if and only if it is ok")
        if not self.ok and (self.choice is not None or self.probs):
            raise ValueError("a failed opinion must not have a choice")
        return self


class Marks(Frozen):
    """One reviewer's marks of a candidate, from 1 (worst) to 10."""

    candidate: JurorId
    accuracy: Mark
    insight: Mark
    clarity: Mark


class Issue(Frozen):
    """A fault that a reviewer finds in a candidate.

    Attributes:
        detail: The fault; a model's text, so data and never an instruction.
    """

    candidate: JurorId
    kind: IssueKind
    detail: NonEmptyText


class Quote(Frozen):
    """A passage of a candidate that a reviewer wants kept; not yet verified."""

    candidate: JurorId
    quote: NonEmptyText


class Review(Frozen):
    """A reviewer's parsed completion.

    Attributes:
        scores: Up to one entry per candidate.
        wins: With `comparisons`, the mean probability that each candidate is better than each other one, which then
            decides its rank; a review whose marks cannot be parsed may have these alone.
        position_bias: The reviewer's preference for the answer shown first (see `Comparison`), as a mean.
        order: The candidates in the order shown, whether marked or not.
        ok: Whether it could be parsed; otherwise it is empty.
        tokens: Generated tokens, including a repair.
        latency_ms: Duration of the calls in milliseconds.
        failure: Reason of a failure.
    """

    reviewer: JurorId
    scores: tuple[Marks, ...] = ()
    wins: dict[JurorId, Probability] = Field(default_factory=dict, exclude_if=lambda value: not value)
    position_bias: FiniteFloat | None = Field(default=None, exclude_if=lambda value: value is None)
    issues: tuple[Issue, ...] = ()
    keep: tuple[Quote, ...] = ()
    order: tuple[JurorId, ...] = ()
    ok: bool
    tokens: Count = 0
    latency_ms: Amount = 0.0
    failure: str = ""

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if not self.ok and (self.scores or self.wins or self.issues or self.keep):
            raise ValueError("a failed review must be empty")
        if len({marks.candidate for marks in self.scores}) < len(self.scores):
            raise ValueError("a review must not mark a candidate twice")
        return self


class PooledIssue(Frozen):
    """The same issue of one or more reviewers.

    Attributes:
        detail: The fault in the words of one of them.
        reviewers: Those who name it, in order.
    """

    candidate: JurorId
    kind: IssueKind
    detail: NonEmptyText
    reviewers: Annotated[tuple[JurorId, ...], Field(min_length=1)]

    @property
    def count(self) -> int:
        """Number of reviewers who name it."""
        return len(self.reviewers)


class KeptQuote(Frozen):
    """A passage of a candidate's answer that reviewers want kept, verified against the text."""

    candidate: JurorId
    quote: NonEmptyText
    reviewers: Annotated[tuple[JurorId, ...], Field(min_length=1)]


class Standing(Frozen):
    """The position of an opinion in a ranking.

    Attributes:
        score: Score by the ranking's rule; larger is better.
        borda: B, the mean share of the other candidates it is ranked above, in [0, 1]; 1/2 if nobody ranked it.
        mark: Mean weighted mark, 1 to 10; None without marks.
        factual_risks: Number of reviewers who name a factual risk.
    """

    juror: JurorId
    score: FiniteFloat
    borda: Probability
    mark: FiniteFloat | None = None
    factual_risks: Count = 0


class Ranking(Frozen):
    """The opinions in order.

    Attributes:
        rule: The rule; "agreement" ranks by mutual agreement if there are too few reviews.
        standings: The opinions that are ok, best first.
        reviews: Number of reviews counted.
    """

    rule: Aggregate | Literal["agreement"]
    standings: Annotated[tuple[Standing, ...], Field(min_length=1)]
    reviews: Count = 0

    @property
    def order(self) -> tuple[int, ...]:
        """The jurors, best first."""
        return tuple(standing.juror for standing in self.standings)

    @property
    def best(self) -> int:
        """The juror of the best opinion."""
        return self.standings[0].juror

    @property
    def borda(self) -> dict[int, float]:
        """B by juror, in order of the ranking."""
        return {standing.juror: standing.borda for standing in self.standings}


class Position(Frozen):
    """A candidate's position on a topic of disagreement."""

    candidate: JurorId
    stance: str


class Disagreement(Frozen):
    """A topic on which candidates differ, and how the chair resolves it."""

    topic: NonEmptyText
    positions: tuple[Position, ...] = ()
    resolution: str = ""


class Addressed(Frozen):
    """What the chair did about an issue, or why nothing.

    Attributes:
        issue: Index in the list of issues it was shown.
    """

    issue: Count
    how: NonEmptyText


class Synthesis(Frozen):
    """The final answer.

    Attributes:
        choice: The answer in normal form for closed questions (see `JudgeVerdict.choice`).
        rationale: Reasons, including changes made by the program.
        source: "chair", or "fallback" for the best-ranked opinion.
        tokens: Generated tokens, including a repair.
        thought: What the chair thought before it.
        thinking_tokens: Tokens of its thoughts.
        latency_ms: Duration of the calls in milliseconds.
    """

    answer: NonEmptyText
    choice: str | None = None
    rationale: tuple[str, ...] = ()
    open_questions: tuple[str, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    addressed: tuple[Addressed, ...] = ()
    source: Literal["chair", "fallback"]
    thought: str = Field(default="", exclude_if=lambda value: not value)
    thinking_tokens: Count = Field(default=0, exclude_if=lambda value: not value)
    tokens: Count = 0
    latency_ms: Amount = 0.0


class ClaimLabel(Frozen):
    """A claim of the final answer and the jurors' agreement on it. Agreement is not verification.

    Attributes:
        label: Follows from the counts (see `labels.label_of`).
        support: Jurors whose opinions state it.
        contradict: Jurors whose opinions state the opposite.
        silent: Jurors whose opinions state neither.
        score: g = (support + 1) / (support + contradict + 2), in (0, 1).
        note: Why the label is not "consistent".
    """

    claim: Claim
    label: AgreementLabel
    support: tuple[JurorId, ...] = ()
    contradict: tuple[JurorId, ...] = ()
    silent: tuple[JurorId, ...] = ()
    score: Probability
    note: str = ""

    @model_validator(mode="after")
    def _check_stances(self) -> Self:
        jurors = [*self.support, *self.contradict, *self.silent]
        if len(set(jurors)) < len(jurors):
            raise ValueError("a juror must have one stance on a claim")
        return self

    @property
    def agreement(self) -> Agreement:
        """The label and the counts, without the jurors."""
        return Agreement(
            label=self.label, support=len(self.support), contradict=len(self.contradict), silent=len(self.silent)
        )


class StageCost(Frozen):
    """The cost of one stage.

    Attributes:
        calls: Model requests.
        latency_ms: Duration of the stage in milliseconds.
        cost_usd: US dollars; None if a price is unknown.
    """

    stage: Stage
    calls: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    latency_ms: Amount = 0.0
    cost_usd: Amount | None = 0.0


class JuryResult(Frozen):
    """Everything a jury produced for one question.

    Attributes:
        opinions: Stage 1, by juror, including failed ones.
        reviews: Stage 2, including failed ones; empty without it.
        ranking: The ranking of the opinions; None if nothing was ranked.
        issues: The reviews' issues, merged.
        synthesis: Stage 3; None without it.
        claims: Stage 4; empty without it.
        confidence: Agreement of the jurors on the answer (see `labels.confidence_of`).
        latency_ms: Total duration in milliseconds.
        path: The path through the stages.
    """

    answer: str
    choice: str | None = None
    opinions: tuple[Opinion, ...]
    reviews: tuple[Review, ...] = ()
    ranking: Ranking | None = None
    issues: tuple[PooledIssue, ...] = ()
    synthesis: Synthesis | None = None
    claims: tuple[ClaimLabel, ...] = ()
    confidence: Probability = 0.5
    stages: tuple[StageCost, ...] = ()
    latency_ms: Amount = 0.0
    path: JuryPath

    @property
    def calls(self) -> int:
        """Model requests of all stages."""
        return sum(stage.calls for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Generated tokens of all stages."""
        return sum(stage.completion_tokens for stage in self.stages)
