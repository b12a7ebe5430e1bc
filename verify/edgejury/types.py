"""Records passed between the stages: `Opinion`, `Review`, `Ranking`, `Synthesis`, `ClaimLabel`, `StageCost`.

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
Aggregate = Literal["borda", "points"]
Stage = Literal["answer", "review", "chair", "agreement"]

MIN_MARK, MAX_MARK = 1, 10

JurorId = Annotated[int, Field(ge=0)]
Mark = Annotated[int, Field(ge=MIN_MARK, le=MAX_MARK)]
NonEmptyText = Annotated[str, StringConstraints(min_length=1)]
Reviewers = Annotated[tuple[JurorId, ...], Field(min_length=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Opinion(Frozen):
    """A juror's answer.

    Attributes:
        role: Name of its role; empty without one.
        text: Its text; empty if and only if the call failed, so that no error message is shown to other models.
        choice: The answer in normal form: an option's letter, a plain number, "yes" or "no", a formula or a short text.
            Equal answers have equal forms. None without an answer or for an open question.
        tokens: Generated tokens, those of the thought included.
        thought: The juror's reasoning tokens; no other model sees them.
    """

    juror: JurorId
    model: str
    role: str = ""
    text: str = ""
    thought: str = Field(default="", exclude_if=lambda value: not value)
    thinking_tokens: Count = Field(default=0, exclude_if=lambda value: not value)
    choice: str | None = None
    ok: bool
    tokens: Count = 0
    failure: str = ""

    @model_validator(mode="after")
    def _check_failure(self) -> Self:
        if self.ok != bool(self.text.strip()):
            raise ValueError("an opinion must have a text if and only if it is ok")
        if not self.ok and self.choice is not None:
            raise ValueError("a failed opinion must not have a choice")
        return self


class Marks(Frozen):
    """One reviewer's marks of a candidate, from 1 (worst) to 10."""

    candidate: JurorId
    accuracy: Mark
    insight: Mark
    clarity: Mark


class Issue(Frozen):
    """A fault that a reviewer finds in a candidate; `detail` is a model's text, so data and never an instruction."""

    candidate: JurorId
    kind: IssueKind
    detail: NonEmptyText


class Quote(Frozen):
    """A passage of a candidate that a reviewer wants kept; not yet verified."""

    candidate: JurorId
    quote: NonEmptyText


class Review(Frozen):
    """A reviewer's parsed completion; empty if it could not be parsed.

    Attributes:
        order: The candidates in the order shown, whether marked or not.
        tokens: Generated tokens, including a repair.
    """

    reviewer: JurorId
    scores: tuple[Marks, ...] = ()
    issues: tuple[Issue, ...] = ()
    keep: tuple[Quote, ...] = ()
    order: tuple[JurorId, ...] = ()
    ok: bool
    tokens: Count = 0
    failure: str = ""

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if not self.ok and (self.scores or self.issues or self.keep):
            raise ValueError("a failed review must be empty")
        if len({marks.candidate for marks in self.scores}) < len(self.scores):
            raise ValueError("a review must not mark a candidate twice")
        return self


class PooledIssue(Frozen):
    """The same issue of one or more reviewers, with the detail in the words of one of them."""

    candidate: JurorId
    kind: IssueKind
    detail: NonEmptyText
    reviewers: Reviewers

    @property
    def count(self) -> int:
        """Number of reviewers who name it."""
        return len(self.reviewers)


class KeptQuote(Frozen):
    """A passage of a candidate's answer that reviewers want kept, verified against the text."""

    candidate: JurorId
    quote: NonEmptyText
    reviewers: Reviewers


class Standing(Frozen):
    """The position of an opinion in a ranking.

    Attributes:
        score: Score by the ranking's rule; larger is better.
        borda: B, the mean share of the other candidates it is ranked above, in [0, 1]; 1/2 without any review.
        mark: Mean weighted mark, 1 to 10; None without marks.
        factual_risks: Number of reviewers who name a factual risk.
    """

    juror: JurorId
    score: FiniteFloat
    borda: Probability
    mark: FiniteFloat | None = None
    factual_risks: Count = 0


class Ranking(Frozen):
    """The opinions that are ok, best first, and the number of reviews counted.

    The rule "agreement" ranks by mutual agreement where there are too few reviews.
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


class DisputedTopic(Frozen):
    """A topic on which candidates differ, and how the chair resolves it."""

    topic: NonEmptyText
    positions: tuple[Position, ...] = ()
    resolution: str = ""


class Addressed(Frozen):
    """How the chair settled an issue; `issue` is the index in the list it was shown."""

    issue: Count
    how: NonEmptyText


class Synthesis(Frozen):
    """The chair's answer, or with the source "fallback" the best-ranked opinion in its place.

    Attributes:
        choice: The answer in normal form for closed questions (see `Opinion.choice`).
        rationale: Reasons, including changes made by the program.
        tokens: Generated tokens, including a repair.
    """

    answer: NonEmptyText
    choice: str | None = None
    rationale: tuple[str, ...] = ()
    open_questions: tuple[str, ...] = ()
    disagreements: tuple[DisputedTopic, ...] = ()
    addressed: tuple[Addressed, ...] = ()
    source: Literal["chair", "fallback"]
    thought: str = Field(default="", exclude_if=lambda value: not value)
    thinking_tokens: Count = Field(default=0, exclude_if=lambda value: not value)
    tokens: Count = 0


class ClaimLabel(Frozen):
    """A claim of the final answer and the jurors' agreement on it. Agreement is not verification.

    Attributes:
        label: Follows from the counts (see `labels.label_of`).
        support: Jurors whose opinions state the claim.
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
    """The cost of one stage; `cost_usd` is None if a price is unknown."""

    stage: Stage
    calls: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    latency_ms: Amount = 0.0
    cost_usd: Amount | None = 0.0
