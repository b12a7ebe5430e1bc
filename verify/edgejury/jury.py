"""`edgejury`: jurors answer in different roles, review one another anonymously, and a chair writes one answer.

    1. opinions      every juror answers, in its own role, concurrently                          (answering)
       fallback      with a single opinion it is the answer                                     path fallback
       early exit    if all agree on one short answer it is the answer                           path early_exit
    2. reviews       every juror reviews the others' answers anonymously, concurrently           (review)
       ranking       by the reviews, or by agreement with fewer than two reviews                 path no_review
    3. the chair     writes the answer, checked against the jurors' vote on closed questions     (chair)
    4. agreement     who supports and who contradicts each claim of the answer                   (labels)

Source: Kumar, "EdgeJury: Cross-Reviewed Small-Model Ensembles for Truthful Question Answering on Serverless Edge
Inference" (2025, arXiv:2601.00850; extended in IEEE Access 2026, doi:10.1109/ACCESS.2026.3683784) and its author's
public implementation. Ours: the rule of the early exit, the vote that a chair's choice is checked against, and the
limits of calls: below n + 2 calls there is only a majority vote, below 2n + 1 no review.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue

from ...core.errors import InvalidResponse
from ...core.events import CandidateAdded, OpinionsMerged, VoteUpdated
from ...core.messages import Frozen
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...reasoning.anonymity import Scrubber
from ...reasoning.answers.equivalence import answer_classes
from ...reasoning.answers.extraction import extract_answer, option_letter, read_candidate
from ...reasoning.sampling import SampleSet
from ...reasoning.strategy import Models, Stability
from ...reasoning.voting.self_consistency import majority_solution
from ...serving.model import Feature
from ..verifier import LEXICAL, MODEL
from .answering import answer_requests, canonical, closed_kind, collect_opinions
from .chair import ask_chair, fallback_synthesis, unaddressed_issues
from .jurors import Juror, PanelConfig, make_jurors, make_roster
from .labels import confidence_of, label_claims
from .panel import Panel
from .ranking import pair_agreement, rank_by_agreement, rank_opinions
from .review import DisplayedAnswers, collect_reviews, pool_issues, verified_quotes
from .types import ClaimLabel, JuryPath, Opinion, PooledIssue, Ranking, Review, Stage, StageCost, Synthesis

MIN_UNANIMOUS: Final = 3
"""Number of equal answers that an early exit needs."""
MIN_BORDA: Final = 0.5
"""B that a juror with the chair's choice must have for the choice to be accepted."""
_LABELS = ("consistent", "uncertain", "contradicted")


class JuryConfig(PanelConfig):
    """Parameters of `edgejury`."""

    review: Annotated[bool, Field(description="let jurors review one another")] = True
    decision: Annotated[
        Literal["chair", "vote", "top"],
        Field(
            description="final answer: the chair's, the weighted vote on closed questions, or the best-ranked opinion"
        ),
    ] = "chair"
    early_exit: Annotated[bool, Field(description="stop after stage 1 if all jurors give the same short answer")] = True
    anonymise: Annotated[bool, Field(description="hide the authors of answers from reviewers and the chair")] = True
    weights: Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
        Field(description="weight of a juror's vote by model; 1 by default"),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    parity: Annotated[
        Literal["", "reference"],
        Field(description="reference ranks as the public implementation does: sums of marks, own answers reviewed too"),
    ] = ""


class JuryVote(Frozen):
    """A weighted vote.

    Attributes:
        support: Share of the weight of each choice, largest first; they sum to 1.
        voters: Jurors by choice.
    """

    choice: str
    support: dict[str, float]
    voters: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class JuryDecision:
    """The jury's answer.

    Attributes:
        answer: The text, which states the choice if there is one.
        choice: The answer in normal form; None for an open question.
        juror: Its author; None if the chair wrote it.
        synthesis: The chair's answer or its fallback; None without a chair.
        vote: The jurors' vote; None for open questions.
        overruled: Whether the vote replaced the chair's choice.
    """

    answer: str
    choice: str | None
    juror: int | None = None
    synthesis: Synthesis | None = None
    vote: JuryVote | None = None
    overruled: bool = False


def unanimous_choice(opinions: Sequence[Opinion]) -> str | None:
    """The choice of all opinions, failed ones aside, if at least three jurors made it; None otherwise."""
    choices = [opinion.choice for opinion in opinions if opinion.ok]
    return choices[0] if len(choices) >= MIN_UNANIMOUS and len(set(choices)) == 1 else None


def weighted_vote(
    opinions: Sequence[Opinion], weights: Mapping[int, float], order: Sequence[int] = ()
) -> JuryVote | None:
    """The choice with the largest weight; without weights, plain majority voting.

    Ties go to the choice of more jurors, then to that of the first juror.

    Args:
        weights: Weight by juror, not negative; 1 by default. If nobody who voted has any, all have 1.
        order: Jurors, best first; by number if empty.

    Returns:
        The vote; None if no opinion has a choice.
    """
    position = {juror: i for i, juror in enumerate(order)}
    voting = sorted((o.juror, o.choice) for o in opinions if o.ok and o.choice is not None)
    voting.sort(key=lambda vote: position.get(vote[0], len(position)))
    if not voting:
        return None
    own = {juror: weights.get(juror, 1.0) for juror, _ in voting}
    if not any(own.values()):
        own = dict.fromkeys(own, 1.0)
    voters: dict[str, list[int]] = {}
    for juror, choice in voting:
        voters.setdefault(choice, []).append(juror)
    sums = {choice: math.fsum(own[juror] for juror in jurors) for choice, jurors in voters.items()}
    first = {choice: i for i, choice in enumerate(voters)}
    ranked = sorted(sums, key=lambda c: (-sums[c], -len(voters[c]), first[c]))
    total = math.fsum(sums.values())
    return JuryVote(
        choice=ranked[0],
        support={choice: sums[choice] / total for choice in ranked},
        voters={choice: tuple(voters[choice]) for choice in ranked},
    )


def settle(
    synthesis: Synthesis, opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float]
) -> tuple[Synthesis, JuryVote | None, bool]:
    """Check a chair's choice against the jurors'.

    It is accepted if a juror with B of at least 1/2 made the same choice. Otherwise the vote, weighted by B, replaces
    it, with the text of the best opinion of that choice; the rationale records the change.

    Args:
        synthesis: The chair's answer, its choice in the opinions' form (see `canonical`).
        weights: Weights of the jurors' votes besides B.

    Returns:
        The final answer, the vote (None if no opinion has a choice), and whether it replaced the chair's choice.
    """
    vote = weighted_vote(opinions, _vote_weights(ranking.borda, weights), ranking.order)
    if vote is None:
        return synthesis, None, False
    choosers = [o.juror for o in opinions if o.ok and o.choice is not None and o.choice == synthesis.choice]
    if any(ranking.borda.get(juror, 0.0) >= MIN_BORDA for juror in choosers):
        return synthesis, vote, False
    if synthesis.choice is None:
        reason = f"the {'chair' if synthesis.source == 'chair' else 'best-ranked answer'} made no choice"
    else:
        reason = f"no {'well-ranked ' if choosers else ''}juror chose {synthesis.choice!r}, as the chair did"
    update: dict[str, object] = {
        "choice": vote.choice,
        "rationale": (*synthesis.rationale, f"{reason}: the jurors' vote, weighted by rank, is used instead"),
    }
    authors = {opinion.juror: opinion for opinion in opinions if opinion.choice == vote.choice}
    author = next((authors[juror] for juror in ranking.order if juror in authors), None)
    if author is not None:
        thinking_tokens = min(synthesis.tokens, author.thinking_tokens)
        update |= {"answer": author.text, "thought": author.thought, "thinking_tokens": thinking_tokens}
    return synthesis.model_copy(update=update), vote, True


def _vote_weights(borda: Mapping[int, float], weights: Mapping[int, float]) -> dict[int, float]:
    return {juror: b * weights.get(juror, 1.0) for juror, b in borda.items()}


def with_stated_choice(answer: str, choice: str | None, question: Question) -> str:
    """The text with a last line that states the choice, unless it states it already."""
    if choice is None:
        return answer
    match = extract_answer(answer, question)
    if match is not None and match.value == choice:
        return answer
    return f"{answer.rstrip()}\n\nAnswer: {choice}".lstrip()


def decide_by_jurors(
    opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float], question: Question, *, vote: bool
) -> JuryDecision:
    """The decision without a chair: the vote on closed questions with `vote`, otherwise the best opinion."""
    by_juror = {opinion.juror: opinion for opinion in opinions if opinion.ok}
    best = by_juror[ranking.best]
    result = weighted_vote(opinions, weights, ranking.order) if closed_kind(question) is not None else None
    if vote and result is not None:
        best = next(by_juror[juror] for juror in ranking.order if by_juror[juror].choice == result.choice)
    return JuryDecision(with_stated_choice(best.text, best.choice, question), best.choice, best.juror, None, result)


@dataclass(frozen=True)
class CallAllowance:
    """The stages that a limit of model calls covers: the number of jurors, at least 1, reviews, and a chair."""

    jurors: int
    review: bool
    chair: bool
    labels: bool


def call_allowance(calls: float, jurors: int) -> CallAllowance:
    """The stages covered by `calls` (infinite without a limit) for a number of jurors."""
    return CallAllowance(
        jurors=int(max(1, min(jurors, calls))),
        review=calls >= 2 * jurors + 1,
        chair=calls >= jurors + 2,
        labels=calls >= 2 * jurors + 2,
    )


@dataclass
class _Jury:
    """One question before one jury.

    Attributes:
        spent: Whether a budget ended a stage early; stages omitted from the start only degrade the run.
    """

    question: Question
    models: Models
    run: Run
    config: JuryConfig
    jurors: tuple[Juror, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    reviews: tuple[Review, ...] = ()
    issues: tuple[PooledIssue, ...] = ()
    ranking: Ranking | None = None
    claims: tuple[ClaimLabel, ...] = ()
    stages: list[StageCost] = field(default_factory=list)
    path: JuryPath = "fallback"
    spent: bool = False

    @property
    def answered(self) -> list[Opinion]:
        """The opinions that are ok."""
        return [opinion for opinion in self.opinions if opinion.ok]

    async def solve(self) -> Solution:
        config, run, question = self.config, self.run, self.question
        jurors = make_jurors(config, question, self.models, run)
        allowance = call_allowance(run.ledger.remaining("calls"), len(jurors))
        if allowance.jurors < len(jurors):
            run.degrade(f"the call limit covers only {allowance.jurors} of {len(jurors)} jurors")
        self.jurors = jurors[: allowance.jurors]
        if question.needs_tools:
            return await self._turn()
        with self._stage("answer") as panel:
            self.opinions = await collect_opinions(self.jurors, question, panel, config, run)
        choice = unanimous_choice(self.opinions) if config.early_exit and closed_kind(question) is not None else None
        if len(self.answered) < 2 or choice is not None:
            self.path = "fallback" if choice is None else "early_exit"
            decision = JuryDecision("", None)
            if self.answered:
                first = self.answered[0]
                self._offer(first.juror)
                text = with_stated_choice(first.text, first.choice, question)
                decision = JuryDecision(text, first.choice, first.juror)
        else:
            decision = await self._deliberate(allowance)
        with self._stage("agreement"):
            judge = config.judge if allowance.labels or config.judge != MODEL else LEXICAL
            self.claims = await label_claims(
                decision.answer, decision.choice, self.opinions, question, self.models, judge, run
            )
        return self._solution(decision)

    async def _turn(self) -> Solution:
        """A turn with tools: each juror makes it, and their weighted vote decides."""
        config, run, question = self.config, self.run, self.question
        with self._stage("answer") as panel:
            completions = await panel.call(answer_requests(self.jurors, question, config))
        ok = [i for i, completion in enumerate(completions) if completion.ok]
        if not ok and not panel.is_limited:
            raise panel.error or InvalidResponse("no juror made the turn")
        candidates = [read_candidate(completions[i], question) for i in ok]
        weights = [config.weights.get(self.jurors[i].model.name, 1.0) for i in ok]
        samples = SampleSet(candidates, stopped="budget" if self.spent else "done", weights=weights)
        if not candidates:
            return Solution(chosen=None, stopped=samples.stopped)
        classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
        return majority_solution(samples, classes, question, run, {"jurors": [self.jurors[i].model.name for i in ok]})

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[Panel]:
        panel = Panel(self.run, stage)
        with panel.open():
            yield panel
        self.stages.append(panel.cost)
        self.spent = self.spent or panel.is_limited

    def _offer(self, juror: int) -> None:
        """Report the opinions so far, and the juror of the best one."""
        candidates = tuple(_candidate(opinion, self.question) for opinion in self.answered)
        self.run.set_best(Solution(chosen=[o.juror for o in self.answered].index(juror), candidates=candidates))

    async def _deliberate(self, allowance: CallAllowance) -> JuryDecision:
        """Stages 2 and 3: reviews, a ranking, and the final answer."""
        config, run, opinions = self.config, self.run, self.answered
        is_reference = config.parity == "reference"
        self._offer(rank_by_agreement(opinions, pair_agreement(opinions)).best)
        if (vote := weighted_vote(opinions, {})) is not None:
            votes = {choice: len(jurors) for choice, jurors in vote.voters.items()}
            run.emit(VoteUpdated(votes=votes, total=len(opinions)))

        chair = self.models.main
        scrub: Callable[[str], str] = str
        names: dict[int, str] | None = None
        if config.anonymise:
            scrub = Scrubber(make_roster(self.jurors, chair), self.question).scrub
        else:
            names = {o.juror: f"{o.model} ({o.role})" if o.role else o.model for o in opinions}
        shown = DisplayedAnswers(
            {o.juror: scrub(o.text) for o in opinions}, {o.juror: o.choice for o in opinions}, names
        )
        if config.review and not self.spent and not allowance.review:
            run.degrade("the call limit does not cover reviews")
        elif config.review and not self.spent:
            reviewers = [juror for juror in self.jurors if juror.id in shown.texts]
            with self._stage("review") as panel:
                self.reviews = await collect_reviews(
                    reviewers,
                    shown,
                    self.question,
                    panel,
                    run,
                    max_tokens=config.max_tokens,
                    exclude_self=not is_reference,
                    shuffle=config.shuffle,
                )
            self.issues = pool_issues(self.reviews)
        ranking = self.ranking = rank_opinions(self.reviews, opinions, "points" if is_reference else "borda", run)
        self.path = "no_review" if ranking.rule == "agreement" else "full"
        self._offer(ranking.best)

        weights = {juror.id: config.weights.get(juror.model.name, 1.0) for juror in self.jurors}
        if config.decision != "chair" or not allowance.chair or self.spent:
            if config.decision == "chair" and not self.spent:
                run.degrade("the call limit does not cover a chair")
            # without reviews all have the same rank: a plain majority
            borda = dict.fromkeys(ranking.order, 1.0) if ranking.rule == "agreement" else ranking.borda
            by_vote = config.decision != "top"
            return decide_by_jurors(opinions, ranking, _vote_weights(borda, weights), self.question, vote=by_vote)
        with self._stage("chair") as panel:
            synthesis = await ask_chair(
                chair,
                self.question,
                shown,
                ranking,
                self.issues,
                verified_quotes(self.reviews, shown.texts),
                panel,
                run,
                scrub=scrub,
                max_tokens=config.max_tokens,
                shuffle=config.shuffle,
            )
        return await self._decide_by_chair(synthesis, ranking, weights)

    async def _decide_by_chair(
        self, synthesis: Synthesis | None, ranking: Ranking, weights: Mapping[int, float]
    ) -> JuryDecision:
        """The chair's answer, with its choice checked against the vote; the best opinion without one."""
        run, question, opinions = self.run, self.question, self.answered
        final = fallback_synthesis(ranking, opinions) if synthesis is None else synthesis
        vote, overruled = None, False
        answers = [opinion.choice for opinion in opinions]
        # if the best opinion states no answer in the chair's place, the others vote
        if closed_kind(question) is not None and (synthesis is not None or (final.choice is None and any(answers))):
            answers.append(final.choice)
            choice = canonical(answers, await answer_classes(answers, question, run))[-1]
            final, vote, overruled = settle(final.model_copy(update={"choice": choice}), opinions, ranking, weights)
        final = final.model_copy(update={"answer": with_stated_choice(final.answer, final.choice, question)})
        if synthesis is None:
            replacement = "the jurors' vote" if overruled else "the best-ranked opinion"
            run.degrade(f"the chair gave no readable answer: {replacement} is used")
        elif num_missing := len(unaddressed_issues(synthesis, self.issues)):
            run.degrade(f"the chair did not address {num_missing} of the issues that several reviewers named")
        run.emit(OpinionsMerged(report=final.model_dump(mode="json")))
        juror = ranking.best if synthesis is None and not overruled else None
        return JuryDecision(final.answer, final.choice, juror, final, vote, overruled)

    def _solution(self, decision: JuryDecision) -> Solution:
        """Each opinion as a candidate, followed by the chair's answer."""
        question = self.question
        scores = {} if self.ranking is None else {s.juror: s.score for s in self.ranking.standings}
        candidates = [_candidate(opinion, question, scores.get(opinion.juror)) for opinion in self.answered]
        chosen = next((i for i, o in enumerate(self.answered) if o.juror == decision.juror), None)
        if chosen is None and decision.answer:
            synthesis = decision.synthesis
            chosen = len(candidates)
            candidates.append(
                Candidate(
                    text=decision.answer,
                    answer=_answer(decision.answer, decision.choice, question),
                    tokens=0 if synthesis is None else synthesis.tokens,
                    thought="" if synthesis is None else synthesis.thought,
                    thinking_tokens=0 if synthesis is None else synthesis.thinking_tokens,
                )
            )
        elif chosen is not None and candidates[chosen].text != decision.answer:  # now followed by the stated choice
            candidates[chosen] = candidates[chosen].model_copy(update={"text": decision.answer})
        confidence = confidence_of(self.claims) if self.claims and chosen is not None else None
        return Solution(
            chosen=chosen,
            candidates=tuple(candidates),
            confidence=confidence,
            stopped="budget" if self.spent else "done",
            notes=self._notes(decision),
        )

    def _notes(self, decision: JuryDecision) -> dict[str, JsonValue]:
        """Facts for readers of the trace, independent of time."""
        notes: dict[str, JsonValue] = {
            "path": self.path,
            "calls": sum(cost.calls for cost in self.stages),
            "tokens": sum(cost.completion_tokens for cost in self.stages),
            "jurors": [self._juror_note(opinion) for opinion in self.opinions],
            "reviews": [review.ok for review in self.reviews],
            "ranking": None if self.ranking is None else [*self.ranking.order],
            "issues": len(self.issues),
            "source": None if decision.synthesis is None else decision.synthesis.source,
            "overruled": decision.overruled,
            "labels": {label: sum(c.label == label for c in self.claims) for label in _LABELS},
            "stages": [
                {"stage": cost.stage, "calls": cost.calls, "tokens": cost.completion_tokens, "usd": cost.cost_usd}
                for cost in self.stages
            ],
        }
        if decision.vote is not None:
            notes["support"] = {**decision.vote.support}
        return notes

    def _juror_note(self, opinion: Opinion) -> JsonValue:
        """A juror's summary; `position` is that of its choice among the options it saw, from 0."""
        position: int | None = None
        if self.question.choices and opinion.choice is not None:
            letter = self.jurors[opinion.juror].order.to_shown(opinion.choice)
            position = next((i for i in range(len(self.question.choices)) if option_letter(i) == letter), None)
        return {
            "model": opinion.model,
            "role": opinion.role,
            "ok": opinion.ok,
            "choice": opinion.choice,
            "position": position,
            "tokens": opinion.tokens,
        }


class EdgeJury:
    """A jury with anonymous cross-review, a chair, and labels of the jurors' agreement.

    Model calls for n jurors: n opinions, n reviews and 1 for the chair, in three consecutive rounds; n if all agree on
    one short answer. One more call each: an opinion that was cut while thinking or states no answer, an unreadable
    review or chair's answer. Stage 4 makes calls only where a language model is the judge.

    Confidence is the jurors' agreement on the answer's claims, or on a closed answer. Agreement is no evidence: jurors
    share misconceptions.

    With tools, each juror makes the turn with one call, and a vote decides (`settle_calls`), without reviews and chair;
    confidence is the share of the jurors' weights.

    Differs: failed calls leave no text, where the public implementation passes on their error messages; jurors do not
    review their own answers; each reader has its own order and letters of the answers; reviews become ranks before
    they are added up; the chair sees no roles; labels are computed; each juror has its own order of the options.
    `parity=reference` ranks by the published sum of marks, own answers included.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = (
        "let several models answer and review one another anonymously; a chair writes the final answer"
    )
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    confidence: ClassVar[str] = "How far the jurors agree on the answer, which is no probability that it is right."
    family: ClassVar[str] = "several models"
    when_to_use: ClassVar[str] = "Several models of similar strength; closed questions (--juror)."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "jury", "judge")
    supports_tools: ClassVar[bool] = True
    Config: ClassVar[type[JuryConfig]] = JuryConfig

    def __init__(self, config: JuryConfig) -> None:
        self.config = config

    @staticmethod
    def entailment_model(config: JuryConfig, question: Question) -> str:
        """The judge that compares the claims of open answers with opinions; empty if nothing is compared."""
        return config.judge if closed_kind(question) is None else ""

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        solution = await _Jury(question, models, run, self.config).solve()
        for index, candidate in enumerate(solution.candidates):
            run.emit(CandidateAdded(index=index, answer=candidate.answer, score=candidate.score))
        return solution


def _candidate(opinion: Opinion, question: Question, score: float | None = None) -> Candidate:
    return Candidate(
        text=opinion.text,
        answer=_answer(opinion.text, opinion.choice, question),
        score=score,
        tokens=opinion.tokens,
        thought=opinion.thought,
        thinking_tokens=opinion.thinking_tokens,
    )


def _answer(text: str, choice: str | None, question: Question) -> str | None:
    if closed_kind(question) is not None:
        return choice
    match = extract_answer(text, question)
    return None if match is None else match.value
