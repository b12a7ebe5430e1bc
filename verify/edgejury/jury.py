"""`deliberate`: a question before a jury, from the opinions to the labelled answer. `go` is the whole of it.

    1. opinions      every juror answers, in its own role, all at once                                 (opining)
       alone         only one opinion is there: it is the answer                                       path fallback
       early exit    all agree on one short answer: it is the answer                                   path early_exit
    2. reviews       every juror reviews the others' answers, anonymously, all at once                 (cross_review)
       ranking       of the reviews; by what opinions have in common where there are fewer than two    path no_review
    3. the chair     makes one answer of them, held against the jurors' vote on closed questions       (presiding)
    4. agreement     each claim of the answer: who says so too, and who says otherwise                 (labelling)

Source: Kumar, "EdgeJury: Cross-Reviewed Small-Model Ensembles for Truthful Question Answering on Serverless Edge
Inference" (2025, arXiv:2601.00850) and its author's public implementation; what differs is told where it is done.

`Affordable`: what of a jury a limit of model calls allows.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for the calls of each stage; the rule is our own: below n + 2 calls
a majority vote, below 2n + 1 no review, and stage 4 only as far as calls are left for it.

`edgejury`: several jurors answer in different roles, review one another blindly, and a chair makes one answer of it.

Source: Kumar, "EdgeJury: Cross-Reviewed Small-Model Ensembles for Truthful Question Answering on Serverless Edge
Inference" (2025, arXiv:2601.00850; extended in IEEE Access 2026, doi:10.1109/ACCESS.2026.3683784).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from pydantic import JsonValue

from ...core.events import CandidateAdded, OpinionsMerged, VoteUpdated
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...reasoning.answers.extraction import extract_answer, option_letter
from ...reasoning.strategy import Models, Stability
from ...serving.model import Feature
from .anonymity import Scrubber
from .answering import closed_kind, opinions_of
from .chair import Chair, fallback, left_out, shown_issues
from .config import JuryConfig
from .decision import Final, agreed_on, by_chair, by_opinions, stated
from .jurors import Seat, juror_weights, roster_of, seats_of
from .labels import confidence_of, labels_of, wanted_entailment
from .panel import Panel
from .ranking import pair_agreement, rank_by_agreement, ranked
from .review import Reviewer, pool, reviews_of, shown_opinions, worth_keeping
from .types import (
    ClaimLabel,
    JuryPath,
    JuryResult,
    Opinion,
    PooledIssue,
    Ranking,
    Review,
    Stage,
    StageCost,
    Synthesis,
)


@dataclass(frozen=True)
class Affordable:
    """What there are calls for.

    Attributes:
        jurors: How many jurors can be asked, at least 1.
        review: Whether they can review one another.
        chair: Whether there can be a chair.
        label_calls: Calls left for stage 4, where it needs any.
    """

    jurors: int
    review: bool
    chair: bool
    label_calls: float


def affordable(calls: float, jurors: int) -> Affordable:
    """What a number of calls allows.

    Args:
        calls: Calls that are left; infinite without a limit.
        jurors: Jurors that are wanted.
    """
    n = jurors if calls == math.inf else max(1, min(jurors, int(calls)))
    return Affordable(
        jurors=n,
        review=calls >= 2 * jurors + 1,
        chair=calls >= jurors + 2,
        label_calls=max(0.0, calls - (2 * jurors + 1)),
    )


Offer = Callable[[Sequence[Opinion], int], None]
"""Told the opinions so far, and whose is the best of them."""


@dataclass(frozen=True)
class Deliberated:
    """What came of it.

    Attributes:
        result: Everything that the jury did.
        final: The answer that stands, with the vote on it.
        seats: Who sat on the jury.
        spent: Whether a budget ended something midway. What a limit of calls leaves out from the start is only told.
    """

    result: JuryResult
    final: Final
    seats: tuple[Seat, ...]
    spent: bool


async def deliberate(question: Question, models: Models, run: Run, config: JuryConfig, offer: Offer) -> Deliberated:
    """Put a question before a jury.

    Args:
        question: The question.
        models: The run's models: jury, chair, judge, and what compares texts.
        run: The run.
        config: Parameters.
        offer: Told the best answer so far.

    Raises:
        BackendError: No juror gave an opinion, and no budget is the reason.
        UnknownName: There is no role of a name.
        DataError: A role or the reliability cannot be read.
    """
    return await _Deliberation(question, models, run, config, offer).go()


class _Deliberation:
    """One question before one jury."""

    def __init__(self, question: Question, models: Models, run: Run, config: JuryConfig, offer: Offer) -> None:
        self.question, self.models, self.run, self.config, self._offer = question, models, run, config, offer
        self.stages: list[StageCost] = []
        self.spent = False
        self.reviews: tuple[Review, ...] = ()
        self.issues: tuple[PooledIssue, ...] = ()
        self.ranking: Ranking | None = None
        self._chair: Chair | None = None

    async def go(self) -> Deliberated:
        """From the opinions to the labelled answer."""
        config, run = self.config, self.run
        began_s = run.ledger.elapsed_s
        seats = seats_of(config, self.question, self.models, run)
        can = affordable(run.ledger.left("calls"), len(seats))
        weights = juror_weights(seats, config)
        if can.jurors < len(seats):
            run.degrade(f"the limit of calls leaves {can.jurors} of {len(seats)} jurors")
        seats = seats[: can.jurors]

        with self._stage("answer") as panel:
            opinions = await opinions_of(seats, self.question, panel, config, run, distribution=config.distribution)
        given = [opinion for opinion in opinions if opinion.ok]
        path: JuryPath
        if len(given) < 2:
            final, path = self._alone(given), "fallback"
        elif (agreed := await agreed_on(opinions, self.question, self.models, config, run)) is not None:
            final, path = agreed, "early_exit"
        else:
            self._offer_first(opinions)
            await self._review(seats, given, can)
            self.ranking = ranked(self.reviews, given, weights, config, run)
            self._offer(opinions, self.ranking.best)
            final = await self._decide(self.ranking, seats, given, weights, can)
            path = "no_review" if self.ranking.rule == "agreement" else "full"

        labels = await self._label(final, opinions, can)
        if config.revise and any(label.label == "contradicted" for label in labels):
            final, labels = await self._revised(final, labels, opinions, weights, can)
        result = JuryResult(
            answer=final.answer,
            choice=final.choice,
            opinions=opinions,
            reviews=self.reviews,
            ranking=self.ranking,
            issues=self.issues,
            synthesis=final.synthesis,
            claims=labels,
            confidence=self._confidence(final, labels),
            stages=tuple(self.stages),
            latency_ms=1000 * max(0.0, run.ledger.elapsed_s - began_s),
            path=path,
        )
        return Deliberated(result, final, seats, self.spent)

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[Panel]:
        panel = Panel(self.run, stage, deadline_s=self.config.deadline_s, quorum=self.config.quorum)
        with panel.sitting():
            yield panel
        self.stages.append(panel.cost)
        self.spent = self.spent or panel.limited

    # -- stage 1: ends without the others

    def _alone(self, given: Sequence[Opinion]) -> Final:
        if not given:
            return Final("", None)
        only = given[0]
        self._offer(given, only.juror)
        return Final(stated(only.text, only.choice, self.question), only.choice, only.juror)

    def _offer_first(self, opinions: Sequence[Opinion]) -> None:
        """The opinion that most agree with, while the others are at work."""
        given = [opinion for opinion in opinions if opinion.ok]
        self._offer(opinions, rank_by_agreement(given, pair_agreement(given)).best)
        votes: dict[str, int] = {}
        for opinion in given:
            if opinion.choice is not None:
                votes[opinion.choice] = votes.get(opinion.choice, 0) + 1
        if votes:
            most_first = dict(sorted(votes.items(), key=lambda counted: -counted[1]))
            self.run.emit(VoteUpdated(votes=most_first, total=len(given)))

    # -- stage 2

    async def _review(self, seats: Sequence[Seat], given: Sequence[Opinion], can: Affordable) -> None:
        config = self.config
        if not config.review or self.spent:
            return
        if not can.review:
            self.run.degrade("the limit of calls leaves none for reviews")
            return
        answered = {opinion.juror for opinion in given}
        reviewers = [Reviewer(seat.juror, seat.model, seat.order) for seat in seats if seat.juror in answered]
        with self._stage("review") as panel:
            self.reviews = await reviews_of(
                reviewers,
                shown_opinions(seats, given, self.question, self.models.chair, blind=config.anonymise),
                self.question,
                panel,
                config,
                self.run,
                exclude_self=config.exclude_self,
            )
        self.issues = pool(self.reviews, exclude_self=config.exclude_self)

    # -- stage 3

    async def _decide(
        self,
        ranking: Ranking,
        seats: Sequence[Seat],
        given: Sequence[Opinion],
        weights: Mapping[int, float],
        can: Affordable,
    ) -> Final:
        config = self.config
        if not config.chair or not can.chair or self.spent:
            if config.chair and not self.spent:
                self.run.degrade("the limit of calls leaves none for a chair")
            vote = config.without_chair == "vote" or config.chair
            # without reviews nobody is known to be better: a plain majority
            borda = dict.fromkeys(ranking.order, 1.0) if ranking.rule == "agreement" else ranking.borda
            heavy = {juror: b * weights.get(juror, 1.0) for juror, b in borda.items()}
            return by_opinions(given, ranking, heavy, self.question, vote=vote)
        made = await self._chaired(ranking, seats, given)
        if made is not None and (missing := len(left_out(made, self.issues))):
            self.run.degrade(f"the chair said nothing of {missing} of the issues that several reviewers named")
        stands = fallback(ranking, given) if made is None else made
        final = await by_chair(stands, given, ranking, weights, self.question)
        if made is None:
            what = "the jurors' vote" if final.overruled else "the best ranked opinion"
            self.run.degrade(f"the chair gave no answer that could be read: {what} stands")
        self._tell(final)
        return final

    async def _chaired(self, ranking: Ranking, seats: Sequence[Seat], given: Sequence[Opinion]) -> Synthesis | None:
        """What the chair makes of it, asked again where it passes over what several reviewers named."""
        config, model = self.config, self.models.chair
        answers = shown_opinions(seats, given, self.question, model, blind=config.blind_chair)
        scrub = Scrubber(roster_of(seats, [model]), self.question).scrub if config.blind_chair else str
        self._chair = chair = Chair(model, self.question, answers, scrub, config, self.run)
        quotes = worth_keeping(self.reviews, answers.texts, exclude_self=config.exclude_self)
        with self._stage("chair") as panel:
            made = await chair.answer(panel, ranking, self.issues, quotes)
            if made is None or not config.insist or panel.over:
                return made
            passed_over = left_out(made, self.issues)
            if not passed_over:
                return made
            shown = shown_issues(self.issues)
            told = chair.on_issues([shown.index(issue) for issue in passed_over])
            return await chair.answer_again(panel, made, told, self.issues) or made

    def _tell(self, final: Final) -> None:
        if final.synthesis is not None:
            self.run.emit(OpinionsMerged(report=final.synthesis.model_dump(mode="json")))

    # -- stage 4

    async def _label(self, final: Final, opinions: Sequence[Opinion], can: Affordable) -> tuple[ClaimLabel, ...]:
        config = self.config
        if not config.label or not final.answer.strip():
            return ()
        # what the calls do not cover is done without any
        if config.claims == "model" and can.label_calls < 1:
            config = config.model_copy(update={"claims": "rules"})
        needed = (config.claims == "model") + sum(opinion.ok for opinion in opinions)
        if config.stances == "model" and can.label_calls < needed:
            config = config.model_copy(update={"stances": "entailment"})
        with self._stage("agreement") as panel:
            return await labels_of(
                final.answer, final.choice, opinions, self.question, self.models, panel, config, self.run
            )

    async def _revised(
        self,
        final: Final,
        labels: tuple[ClaimLabel, ...],
        opinions: Sequence[Opinion],
        weights: Mapping[int, float],
        can: Affordable,
    ) -> tuple[Final, tuple[ClaimLabel, ...]]:
        """The answer of a chair that was told where the jurors contradict it; the one before where it gives none."""
        if self._chair is None or self.ranking is None or final.synthesis is None or self.spent:
            return final, labels
        with self._stage("chair") as panel:
            told = self._chair.on_claims(labels)
            made = await self._chair.answer_again(panel, final.synthesis, told, self.issues)
        if made is None:
            self.run.degrade("the chair did not revise its answer")
            return final, labels
        given = [opinion for opinion in opinions if opinion.ok]
        revised = await by_chair(made, given, self.ranking, weights, self.question)
        self._tell(revised)
        return revised, await self._label(revised, opinions, can)

    def _confidence(self, final: Final, labels: Sequence[ClaimLabel]) -> float:
        """How far the jurors agree on the answer; without labels, the share of the vote behind it."""
        if not labels and final.vote is not None and final.choice is not None:
            return min(1.0, final.vote.support.get(final.choice, 0.0))
        return confidence_of(labels)


class EdgeJury:
    """A jury with anonymous cross-review, a chair, and labels of how far the jurors agree (see `jury`).

    Model calls for n jurors: n opinions, n reviews and 1 for the chair, in three batches one after the other; n alone
    where all agree on one short answer. One call more each: an opinion that states no answer, a review and a chair's
    answer that cannot be read, issues that the chair passed over, `claims=model`, `revise`; n more each with
    `distribution` and `stances=model`. Stage 4 makes no call otherwise.

    Confidence is how far the jurors agree on the answer's claims; of a closed answer, on the answer. That they agree is
    no evidence: jurors share misconceptions.

    Differs: failed calls say nothing, where the public implementation passes their error messages on; nobody reviews
    its own answer; each reader has the answers in an order and under letters of its own; reviews become ranks before
    they are added up; the chair sees no roles; labels are counted and not written; each juror has the options in an
    order of its own. `aggregate=points` is the published rule.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "several models answer, review one another anonymously, and a chair makes one answer of it"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "jury", "chair", "judge")
    Config: ClassVar[type[JuryConfig]] = JuryConfig

    def __init__(self, config: JuryConfig) -> None:
        self.config = config

    def comparing(self, question: Question) -> str:
        """See `Strategy`: open answers alone have claims that are compared with texts."""
        config = self.config
        opens = closed_kind(question) is None
        return wanted_entailment(config, labels=opens and (config.label or config.early_exit == "always"))

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""

        def offer(opinions: Sequence[Opinion], juror: int) -> None:
            given = [opinion for opinion in opinions if opinion.ok]
            candidates = tuple(_candidate(opinion, question) for opinion in given)
            run.offer(Solution(chosen=[o.juror for o in given].index(juror), candidates=candidates))

        done = await deliberate(question, models, run, self.config, offer)
        solution = solution_of(done, question)
        for index, candidate in enumerate(solution.candidates):
            run.emit(CandidateAdded(index=index, answer=candidate.answer, score=candidate.score))
        return solution


def solution_of(done: Deliberated, question: Question) -> Solution:
    """A jury's work as a solution: each opinion is a candidate, and the chair's answer is one more behind them."""
    result, final = done.result, done.final
    scores = {} if result.ranking is None else {s.juror: s.score for s in result.ranking.standings}
    given = [opinion for opinion in result.opinions if opinion.ok]
    candidates = [_candidate(opinion, question, scores.get(opinion.juror)) for opinion in given]
    chosen = next((i for i, o in enumerate(given) if o.juror == final.juror), None)
    if chosen is None and final.answer:
        tokens = 0 if final.synthesis is None else final.synthesis.tokens
        candidates.append(
            Candidate(text=final.answer, answer=_answer(final.answer, final.choice, question), tokens=tokens)
        )
        chosen = len(candidates) - 1
    elif chosen is not None and candidates[chosen].text != final.answer:  # its answer is stated in it now
        candidates[chosen] = candidates[chosen].model_copy(update={"text": final.answer})
    told = result.claims or final.vote is not None
    return Solution(
        chosen=chosen,
        candidates=tuple(candidates),
        confidence=result.confidence if told and chosen is not None else None,
        stopped="budget" if done.spent else "done",
        notes=_notes(done, question),
    )


def _candidate(opinion: Opinion, question: Question, score: float | None = None) -> Candidate:
    return Candidate(
        text=opinion.text,
        answer=_answer(opinion.text, opinion.choice, question),
        score=score,
        tokens=opinion.tokens,
    )


def _answer(text: str, choice: str | None, question: Question) -> str | None:
    if closed_kind(question) is not None:
        return choice
    found = extract_answer(text, question)
    return None if found is None else found.value


def _notes(done: Deliberated, question: Question) -> dict[str, JsonValue]:
    """What a reader of the trace may want to know: nothing that depends on time."""
    result, final = done.result, done.final
    notes: dict[str, JsonValue] = {
        "path": result.path,
        "calls": result.calls,
        "tokens": result.tokens,
        "jurors": [_juror(opinion, done, question) for opinion in result.opinions],
        "reviews": [review.ok for review in result.reviews],
        "ranking": None if result.ranking is None else [*result.ranking.order],
        "issues": len(result.issues),
        "source": None if final.synthesis is None else final.synthesis.source,
        "overruled": final.overruled,
        "labels": {label: sum(c.label == label for c in result.claims) for label in _LABELS},
        "stages": [
            {"stage": cost.stage, "calls": cost.calls, "tokens": cost.completion_tokens, "usd": cost.cost_usd}
            for cost in result.stages
        ],
    }
    if final.vote is not None:
        notes["support"] = {**final.vote.support}
    return notes


_LABELS = ("consistent", "uncertain", "contradicted")


def _juror(opinion: Opinion, done: Deliberated, question: Question) -> JsonValue:
    """One juror in short; `place` is where its choice stood among the options that it saw, from 0."""
    place: int | None = None
    if question.choices and opinion.choice is not None:
        shown = done.seats[opinion.juror].order.to_shown(opinion.choice)
        place = next((i for i in range(len(question.choices)) if option_letter(i) == shown), None)
    return {
        "model": opinion.model,
        "role": opinion.role,
        "ok": opinion.ok,
        "choice": opinion.choice,
        "place": place,
        "tokens": opinion.tokens,
    }
