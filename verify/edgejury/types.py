"""What goes from stage to stage of a jury: `Opinion`, `Review`, `Ranking`, `Synthesis`, `ClaimLabel`, `JuryResult`.

Jurors are numbered from 0 and are never named otherwise here. Letters of options are those of the question, in whatever
order a juror was shown them; letters of candidates are gone, whoever read them has mapped them back to jurors.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850); the fields are our own, after what its stages exchange.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from ...core.messages import Frozen
from ...core.types import Probability
from ..types import Claim

IssueKind = Literal["factual_risk", "missing_edge_case", "unclear", "incomplete"]
JuryPath = Literal["full", "early_exit", "no_review", "fallback"]
Agreement = Literal["consistent", "uncertain", "contradicted"]
Aggregate = Literal["borda", "copeland", "schulze", "points"]
Stage = Literal["answer", "review", "chair", "agreement"]

LEAST_MARK, MOST_MARK = 1, 10

Juror = Annotated[int, Field(ge=0)]
Mark = Annotated[int, Field(ge=LEAST_MARK, le=MOST_MARK)]
Said = Annotated[str, StringConstraints(min_length=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Opinion(Frozen):
    """One juror's answer.

    Attributes:
        juror: Who gave it.
        model: Its model.
        role: Name of its role; empty if it played none.
        text: What it wrote; empty if and only if the call failed. What a failed call said is never shown to anybody.
        choice: The answer in normal form: an option's letter, a plain number, "yes" or "no", a formula or a short text.
            Equal answers are written alike (see `closed.canonical`). None if there is none, or the question is open.
        probs: How sure it is of each option, by letter, where its model shows that; empty otherwise.
        ok: Whether there is an answer at all.
        tokens: Generated tokens.
        latency_ms: Milliseconds the call took.
        failure: Why there is none.
    """

    juror: Juror
    model: str
    role: str = ""
    text: str = ""
    choice: str | None = None
    probs: dict[str, Probability] = Field(default_factory=dict)
    ok: bool
    tokens: Count = 0
    latency_ms: Amount = 0.0
    failure: str = ""

    @model_validator(mode="after")
    def _failed_says_nothing(self) -> Self:
        if self.ok != bool(self.text.strip()):
            raise ValueError("an opinion has a text if and only if it is ok")
        if not self.ok and (self.choice is not None or self.probs):
            raise ValueError("an opinion that failed chooses nothing")
        return self


class Marks(Frozen):
    """One reviewer's marks for one candidate, 1 (worst) to 10.

    Attributes:
        candidate: Whose answer it is.
        accuracy: Whether what it says is true.
        insight: Whether it sees what matters.
        clarity: Whether it can be understood.
    """

    candidate: Juror
    accuracy: Mark
    insight: Mark
    clarity: Mark


class Issue(Frozen):
    """Something that a reviewer finds wrong with a candidate.

    Attributes:
        candidate: Whose answer it is.
        kind: What kind of fault.
        detail: What exactly. It is a model's text: data, never an instruction.
    """

    candidate: Juror
    kind: IssueKind
    detail: Said


class Quote(Frozen):
    """Words of a candidate that a reviewer wants kept; whether they stand there is looked at later."""

    candidate: Juror
    quote: Said


class Review(Frozen):
    """One reviewer's reply, candidates by juror.

    Attributes:
        reviewer: Whose model wrote it.
        scores: At most one entry a candidate.
        issues: What is wrong.
        keep: What is worth keeping.
        order: The candidates in the order in which they were shown, whether marked or not.
        ok: Whether the reply could be read; one that could not says nothing.
        tokens: Generated tokens, of a repair too.
        latency_ms: Milliseconds the calls took.
        failure: Why there is none.
    """

    reviewer: Juror
    scores: tuple[Marks, ...] = ()
    issues: tuple[Issue, ...] = ()
    keep: tuple[Quote, ...] = ()
    order: tuple[Juror, ...] = ()
    ok: bool
    tokens: Count = 0
    latency_ms: Amount = 0.0
    failure: str = ""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if not self.ok and (self.scores or self.issues or self.keep):
            raise ValueError("a review that is not ok says nothing")
        if len({marks.candidate for marks in self.scores}) < len(self.scores):
            raise ValueError("a review marks a candidate once")
        return self


class PooledIssue(Frozen):
    """The same issue of one or more reviewers.

    Attributes:
        candidate: Whose answer it is.
        kind: What kind of fault.
        detail: What exactly, in the words of one of them.
        reviewers: Who named it, in order.
    """

    candidate: Juror
    kind: IssueKind
    detail: Said
    reviewers: Annotated[tuple[Juror, ...], Field(min_length=1)]

    @property
    def count(self) -> int:
        """How many reviewers named it."""
        return len(self.reviewers)


class KeptQuote(Frozen):
    """Words that stand in a candidate's answer and that reviewers want kept.

    Attributes:
        candidate: Whose answer it is.
        quote: The words, as they stand there.
        reviewers: Who wants them kept, in order.
    """

    candidate: Juror
    quote: Said
    reviewers: Annotated[tuple[Juror, ...], Field(min_length=1)]


class Standing(Frozen):
    """Where one opinion stands.

    Attributes:
        juror: Whose it is.
        score: What the ranking's rule gives it; the range is the rule's, more is better.
        borda: B, the mean share of the other candidates that it is placed above, in [0, 1]; 1/2 if nobody placed it.
        mark: Mean weighted mark, 1 to 10; None if nobody marked it.
        factual_risks: How many reviewers named an issue of that kind.
    """

    juror: Juror
    score: FiniteFloat
    borda: Probability
    mark: FiniteFloat | None = None
    factual_risks: Count = 0


class Ranking(Frozen):
    """The opinions in order.

    Attributes:
        rule: How they were ranked; "agreement" is by what they have in common, where there are too few reviews.
        standings: One an opinion that is ok, the best first.
        reviews: How many reviews were counted.
    """

    rule: Aggregate | Literal["agreement"]
    standings: Annotated[tuple[Standing, ...], Field(min_length=1)]
    reviews: Count = 0

    @property
    def order(self) -> tuple[int, ...]:
        """The jurors, the best first."""
        return tuple(standing.juror for standing in self.standings)

    @property
    def best(self) -> int:
        """The juror whose opinion is first."""
        return self.standings[0].juror

    @property
    def borda(self) -> dict[int, float]:
        """B by juror, in order of the ranking."""
        return {standing.juror: standing.borda for standing in self.standings}


class Position(Frozen):
    """What one candidate says about a topic on which candidates differ."""

    candidate: Juror
    stance: str


class Disagreement(Frozen):
    """A topic on which candidates differ, and how the chair settled it."""

    topic: Said
    positions: tuple[Position, ...] = ()
    resolution: str = ""


class Addressed(Frozen):
    """What the chair did about an issue, or why nothing.

    Attributes:
        issue: Position in the list of issues that it was shown, from 0.
        how: In its words.
    """

    issue: Count
    how: Said


class Synthesis(Frozen):
    """The final answer.

    Attributes:
        answer: The answer.
        choice: The same in normal form, for closed questions (see `Opinion.choice`).
        rationale: Why, in short statements; what the program changed is noted here too.
        open_questions: What stays open.
        disagreements: Where candidates differ.
        addressed: What was done about the issues.
        source: Whether the chair wrote it, or the best opinion stands in for it.
        tokens: Generated tokens, of a repair too.
        latency_ms: Milliseconds the calls took.
    """

    answer: Said
    choice: str | None = None
    rationale: tuple[str, ...] = ()
    open_questions: tuple[str, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    addressed: tuple[Addressed, ...] = ()
    source: Literal["chair", "fallback"]
    tokens: Count = 0
    latency_ms: Amount = 0.0


class ClaimLabel(Frozen):
    """One claim of the final answer and how far the jurors agree on it. Agreed is not verified.

    Attributes:
        claim: The claim, with its place in the answer.
        label: What follows from the counts (see `agreement.label_of`).
        support: The jurors whose opinions say it too.
        contradict: Those whose opinions say the opposite.
        silent: Those that say neither.
        score: g = (support + 1) / (support + contradict + 2), in (0, 1).
        note: Why the label is no surer; empty where there is nothing to say.
    """

    claim: Claim
    label: Agreement
    support: tuple[Juror, ...] = ()
    contradict: tuple[Juror, ...] = ()
    silent: tuple[Juror, ...] = ()
    score: Probability
    note: str = ""

    @model_validator(mode="after")
    def _one_stance_each(self) -> Self:
        jurors = [*self.support, *self.contradict, *self.silent]
        if len(set(jurors)) < len(jurors):
            raise ValueError("a juror has one stance on a claim")
        return self


class StageCost(Frozen):
    """What one stage cost.

    Attributes:
        stage: Which.
        calls: Requests to models.
        prompt_tokens: Tokens they read.
        completion_tokens: Tokens they wrote.
        latency_ms: Milliseconds from the stage's beginning to its end.
        cost_usd: US dollars; None if a price is unknown.
    """

    stage: Stage
    calls: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    latency_ms: Amount = 0.0
    cost_usd: Amount | None = 0.0


class JuryResult(Frozen):
    """Everything a jury did about one question.

    Attributes:
        answer: The final answer.
        choice: The same in normal form, for closed questions.
        opinions: Stage 1, by juror, failed ones too.
        reviews: Stage 2, failed ones too; empty if there was none.
        ranking: How the opinions rank; None where only one is left, or nothing had to be ranked.
        issues: The reviews' issues, the same ones merged.
        synthesis: Stage 3; None if there was none.
        claims: Stage 4; empty if there was none.
        confidence: How far the jurors agree on the answer (see `agreement.confidence_of`).
        stages: What each stage that was run cost.
        latency_ms: Milliseconds from beginning to end.
        path: Which way was taken.
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
        """Requests to models, over all stages."""
        return sum(stage.calls for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Generated tokens, over all stages."""
        return sum(stage.completion_tokens for stage in self.stages)
