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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...core.events import VoteUpdated
from ...core.jury_events import OpinionsMerged
from ...core.question import Question
from ...core.run import Run
from ...reasoning.strategy import Models
from .affordable import Affordable, affordable
from .agreement import confidence_of
from .anonymity import Scrubber
from .chairing import fallback, left_out, shown_issues
from .config import JuryConfig
from .cross_review import Reviewer, reviews_of
from .deciding import Final, by_chair, by_opinions, stated
from .early_exit import agreed_on
from .issues import pool, worth_keeping
from .labelling import labels_of
from .opining import opinions_of
from .opinions import (
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
from .panel import Panel
from .presiding import Chair
from .ranking import pair_agreement, rank_by_agreement
from .seats import Seat, roster_of, seats_of
from .standing import ranked, shown_opinions
from .weighing import juror_weights

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
