"""`edgejury`: jurors answer in different roles, review one another anonymously, and a chair writes one answer.

    1. opinions      every juror answers, in its own role, concurrently                          (answering)
       fallback      with a single opinion it is the answer                                     path fallback
       early exit    if all agree on one short answer it is the answer                           path early_exit
    2. reviews       every juror reviews the others' answers anonymously, concurrently           (review)
       ranking       by the reviews, or by agreement with fewer than two reviews                 path no_review
    3. the chair     writes the answer, checked against the jurors' vote on closed questions     (chair, decision)
    4. agreement     who supports and who contradicts each claim of the answer                   (labels)

Source: Kumar, "EdgeJury: Cross-Reviewed Small-Model Ensembles for Truthful Question Answering on Serverless Edge
Inference" (2025, arXiv:2601.00850; extended in IEEE Access 2026, doi:10.1109/ACCESS.2026.3683784) and its author's
public implementation. Below n + 2 calls there is only a majority vote, below 2n + 1 no review; these limits are ours.
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
from .answering import closed_kind, collect_opinions
from .chair import Chair, fallback_synthesis, shown_issues, unaddressed_issues
from .config import JuryConfig
from .decision import Decision, decide_by_chair, decide_by_jurors, unanimous_decision, with_stated_choice
from .jurors import Juror, juror_weights, make_jurors, make_roster
from .labels import confidence_of, configured_entailment, label_claims
from .panel import Panel
from .ranking import pair_agreement, rank_by_agreement, rank_opinions
from .review import Reviewer, collect_reviews, display_opinions, pool_issues, verified_quotes
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
class CallAllowance:
    """The stages that a limit of model calls covers.

    Attributes:
        jurors: Number of jurors, at least 1.
        review: Whether it covers reviews.
        chair: Whether it covers a chair.
        label_calls: Remaining calls for stage 4.
    """

    jurors: int
    review: bool
    chair: bool
    label_calls: float


def call_allowance(calls: float, jurors: int) -> CallAllowance:
    """The stages covered by `calls` (infinite without a limit) for a number of jurors."""
    n = jurors if calls == math.inf else max(1, min(jurors, int(calls)))
    return CallAllowance(
        jurors=n,
        review=calls >= 2 * jurors + 1,
        chair=calls >= jurors + 2,
        label_calls=max(0.0, calls - (2 * jurors + 1)),
    )


OnProgress = Callable[[Sequence[Opinion], int], None]
"""Called with the opinions so far and the juror of the best one."""


@dataclass(frozen=True)
class Deliberation:
    """The result of a jury.

    Attributes:
        decision: The answer, with the vote.
        spent: Whether a budget ended a stage early; stages omitted from the start only degrade the run.
    """

    result: JuryResult
    decision: Decision
    jurors: tuple[Juror, ...]
    spent: bool


async def deliberate(
    question: Question, models: Models, run: Run, config: JuryConfig, offer: OnProgress
) -> Deliberation:
    """Run a jury on a question.

    Raises:
        BackendError: No juror gave an opinion, and no budget is the reason.
        UnknownName: There is no role of that name.
        DataError: A role or the reliability file cannot be read.
    """
    return await _Jury(question, models, run, config, offer).run_stages()


class _Jury:
    """One question before one jury."""

    def __init__(self, question: Question, models: Models, run: Run, config: JuryConfig, offer: OnProgress) -> None:
        self.question, self.models, self.run, self.config, self._offer = question, models, run, config, offer
        self.stages: list[StageCost] = []
        self.spent = False
        self.reviews: tuple[Review, ...] = ()
        self.issues: tuple[PooledIssue, ...] = ()
        self.ranking: Ranking | None = None
        self._chair: Chair | None = None

    async def run_stages(self) -> Deliberation:
        config, run = self.config, self.run
        began_s = run.ledger.elapsed_s
        jurors = make_jurors(config, self.question, self.models, run)
        allowance = call_allowance(run.ledger.remaining("calls"), len(jurors))
        weights = juror_weights(jurors, config)
        if allowance.jurors < len(jurors):
            run.degrade(f"the call limit covers only {allowance.jurors} of {len(jurors)} jurors")
        jurors = jurors[: allowance.jurors]

        with self._stage("answer") as panel:
            opinions = await collect_opinions(
                jurors, self.question, panel, config, run, distribution=config.distribution
            )
        complete = [opinion for opinion in opinions if opinion.ok]
        path: JuryPath
        if len(complete) < 2:
            decision, path = self._only_opinion(complete), "fallback"
        elif (agreed := await unanimous_decision(opinions, self.question, self.models, config, run)) is not None:
            decision, path = agreed, "early_exit"
        else:
            self._report_first(opinions)
            await self._review(jurors, complete, allowance)
            self.ranking = rank_opinions(self.reviews, complete, weights, config, run)
            self._offer(opinions, self.ranking.best)
            decision = await self._decide(self.ranking, jurors, complete, weights, allowance)
            path = "no_review" if self.ranking.rule == "agreement" else "full"

        labels = await self._label(decision, opinions, allowance)
        if config.revise and any(label.label == "contradicted" for label in labels):
            decision, labels = await self._revise(decision, labels, opinions, weights, allowance)
        result = JuryResult(
            answer=decision.answer,
            choice=decision.choice,
            opinions=opinions,
            reviews=self.reviews,
            ranking=self.ranking,
            issues=self.issues,
            synthesis=decision.synthesis,
            claims=labels,
            confidence=self._confidence(decision, labels),
            stages=tuple(self.stages),
            latency_ms=1000 * max(0.0, run.ledger.elapsed_s - began_s),
            path=path,
        )
        return Deliberation(result, decision, jurors, self.spent)

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[Panel]:
        panel = Panel(self.run, stage, deadline_s=self.config.deadline_s, quorum=self.config.quorum)
        with panel.stage():
            yield panel
        self.stages.append(panel.cost)
        self.spent = self.spent or panel.is_limited

    # -- stage 1

    def _only_opinion(self, complete: Sequence[Opinion]) -> Decision:
        if not complete:
            return Decision("", None)
        only = complete[0]
        self._offer(complete, only.juror)
        return Decision(with_stated_choice(only.text, only.choice, self.question), only.choice, only.juror)

    def _report_first(self, opinions: Sequence[Opinion]) -> None:
        """Report the opinion of the largest agreement before the reviews."""
        complete = [opinion for opinion in opinions if opinion.ok]
        self._offer(opinions, rank_by_agreement(complete, pair_agreement(complete)).best)
        votes: dict[str, int] = {}
        for opinion in complete:
            if opinion.choice is not None:
                votes[opinion.choice] = votes.get(opinion.choice, 0) + 1
        if votes:
            ordered = dict(sorted(votes.items(), key=lambda counted: -counted[1]))
            self.run.emit(VoteUpdated(votes=ordered, total=len(complete)))

    # -- stage 2

    async def _review(self, jurors: Sequence[Juror], complete: Sequence[Opinion], allowance: CallAllowance) -> None:
        config = self.config
        if not config.review or self.spent:
            return
        if not allowance.review:
            self.run.degrade("the call limit does not cover reviews")
            return
        answered = {opinion.juror for opinion in complete}
        reviewers = [Reviewer(juror.id, juror.model, juror.order) for juror in jurors if juror.id in answered]
        with self._stage("review") as panel:
            self.reviews = await collect_reviews(
                reviewers,
                display_opinions(jurors, complete, self.question, self.models.chair, blind=config.anonymise),
                self.question,
                panel,
                config,
                self.run,
                exclude_self=config.exclude_self,
            )
        self.issues = pool_issues(self.reviews, exclude_self=config.exclude_self)

    # -- stage 3

    async def _decide(
        self,
        ranking: Ranking,
        jurors: Sequence[Juror],
        complete: Sequence[Opinion],
        weights: Mapping[int, float],
        allowance: CallAllowance,
    ) -> Decision:
        config = self.config
        if config.decision != "chair" or not allowance.chair or self.spent:
            if config.decision == "chair" and not self.spent:
                self.run.degrade("the call limit does not cover a chair")
            vote = config.decision != "top"
            # without reviews all have the same weight: a plain majority
            borda = dict.fromkeys(ranking.order, 1.0) if ranking.rule == "agreement" else ranking.borda
            vote_weights = {juror: b * weights.get(juror, 1.0) for juror, b in borda.items()}
            return decide_by_jurors(complete, ranking, vote_weights, self.question, vote=vote)
        synthesis = await self._call_chair(ranking, jurors, complete)
        if synthesis is not None and (missing := len(unaddressed_issues(synthesis, self.issues))):
            self.run.degrade(f"the chair did not address {missing} of the issues that several reviewers named")
        used = fallback_synthesis(ranking, complete) if synthesis is None else synthesis
        decision = await decide_by_chair(used, complete, ranking, weights, self.question)
        if synthesis is None:
            replacement = "the jurors' vote" if decision.overruled else "the best-ranked opinion"
            self.run.degrade(f"the chair gave no readable answer: {replacement} is used")
        self._emit_synthesis(decision)
        return decision

    async def _call_chair(
        self, ranking: Ranking, jurors: Sequence[Juror], complete: Sequence[Opinion]
    ) -> Synthesis | None:
        """The chair's answer, requested again if it does not address issues that several reviewers named."""
        config, model = self.config, self.models.chair
        answers = display_opinions(jurors, complete, self.question, model, blind=config.blind_chair)
        scrub = Scrubber(make_roster(jurors, [model]), self.question).scrub if config.blind_chair else str
        self._chair = chair = Chair(model, self.question, answers, scrub, config, self.run)
        quotes = verified_quotes(self.reviews, answers.texts, exclude_self=config.exclude_self)
        with self._stage("chair") as panel:
            synthesis = await chair.answer(panel, ranking, self.issues, quotes)
            if synthesis is None or panel.is_over:
                return synthesis
            skipped = unaddressed_issues(synthesis, self.issues)
            if not skipped:
                return synthesis
            shown = shown_issues(self.issues)
            note = chair.unaddressed_note([shown.index(issue) for issue in skipped])
            return await chair.revise(panel, synthesis, note, self.issues) or synthesis

    def _emit_synthesis(self, decision: Decision) -> None:
        if decision.synthesis is not None:
            self.run.emit(OpinionsMerged(report=decision.synthesis.model_dump(mode="json")))

    # -- stage 4

    async def _label(
        self, decision: Decision, opinions: Sequence[Opinion], allowance: CallAllowance
    ) -> tuple[ClaimLabel, ...]:
        config = self.config
        if config.claims == "none" or not decision.answer.strip():
            return ()
        # what the call limit does not cover is done without calls
        if config.claims == "model" and allowance.label_calls < 1:
            config = config.model_copy(update={"claims": "rules"})
        needed = (config.claims == "model") + sum(opinion.ok for opinion in opinions)
        if config.stances == "model" and allowance.label_calls < needed:
            config = config.model_copy(update={"stances": "entailment"})
        with self._stage("agreement") as panel:
            return await label_claims(
                decision.answer, decision.choice, opinions, self.question, self.models, panel, config, self.run
            )

    async def _revise(
        self,
        decision: Decision,
        labels: tuple[ClaimLabel, ...],
        opinions: Sequence[Opinion],
        weights: Mapping[int, float],
        allowance: CallAllowance,
    ) -> tuple[Decision, tuple[ClaimLabel, ...]]:
        """The answer of a chair that saw the contradicted claims; the previous one if it gives none."""
        if self._chair is None or self.ranking is None or decision.synthesis is None or self.spent:
            return decision, labels
        with self._stage("chair") as panel:
            note = self._chair.contradicted_note(labels)
            synthesis = await self._chair.revise(panel, decision.synthesis, note, self.issues)
        if synthesis is None:
            self.run.degrade("the chair did not revise its answer")
            return decision, labels
        complete = [opinion for opinion in opinions if opinion.ok]
        revised = await decide_by_chair(synthesis, complete, self.ranking, weights, self.question)
        self._emit_synthesis(revised)
        return revised, await self._label(revised, opinions, allowance)

    def _confidence(self, decision: Decision, labels: Sequence[ClaimLabel]) -> float:
        """The jurors' agreement on the answer; without labels, the answer's share of the vote."""
        if not labels and decision.vote is not None and decision.choice is not None:
            return min(1.0, decision.vote.support.get(decision.choice, 0.0))
        return confidence_of(labels)


class EdgeJury:
    """A jury with anonymous cross-review, a chair, and labels of the jurors' agreement.

    Model calls for n jurors: n opinions, n reviews and 1 for the chair, in three consecutive batches; n if all agree on
    one short answer. One more call each: an opinion without an answer, an unreadable review or chair's answer, issues
    that the chair did not address, `claims=model`, `revise`; n more each with `distribution` and `stances=model`. Stage
    4 makes no call otherwise.

    Confidence is the jurors' agreement on the answer's claims, or on a closed answer. Agreement is no evidence: jurors
    share misconceptions.

    Differs: failed calls leave no text, where the public implementation passes on their error messages; jurors do not
        review
    their own answers; each reader has its own order and letters of the answers; reviews become ranks before they are
    added up; the chair sees no roles; labels are computed; each juror has its own order of the options.
    `aggregate=points` is the published rule.
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

    def entailment_model(self, question: Question) -> str:
        """The entailment that compares the claims of open answers with texts."""
        config = self.config
        opens = closed_kind(question) is None
        return configured_entailment(
            config, labels=opens and (config.claims != "none" or config.early_exit == "always")
        )

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        def on_progress(opinions: Sequence[Opinion], juror: int) -> None:
            complete = [opinion for opinion in opinions if opinion.ok]
            candidates = tuple(_candidate(opinion, question) for opinion in complete)
            run.set_best(Solution(chosen=[o.juror for o in complete].index(juror), candidates=candidates))

        deliberation = await deliberate(question, models, run, self.config, on_progress)
        solution = make_solution(deliberation, question)
        for index, candidate in enumerate(solution.candidates):
            run.emit(CandidateAdded(index=index, answer=candidate.answer, score=candidate.score))
        return solution


def make_solution(deliberation: Deliberation, question: Question) -> Solution:
    """A jury's result as a solution: each opinion is a candidate, followed by the chair's answer."""
    result, decision = deliberation.result, deliberation.decision
    scores = {} if result.ranking is None else {s.juror: s.score for s in result.ranking.standings}
    complete = [opinion for opinion in result.opinions if opinion.ok]
    candidates = [_candidate(opinion, question, scores.get(opinion.juror)) for opinion in complete]
    chosen = next((i for i, o in enumerate(complete) if o.juror == decision.juror), None)
    if chosen is None and decision.answer:
        tokens = 0 if decision.synthesis is None else decision.synthesis.tokens
        candidates.append(
            Candidate(text=decision.answer, answer=_answer(decision.answer, decision.choice, question), tokens=tokens)
        )
        chosen = len(candidates) - 1
    elif chosen is not None and candidates[chosen].text != decision.answer:  # now followed by the stated choice
        candidates[chosen] = candidates[chosen].model_copy(update={"text": decision.answer})
    told = result.claims or decision.vote is not None
    return Solution(
        chosen=chosen,
        candidates=tuple(candidates),
        confidence=result.confidence if told and chosen is not None else None,
        stopped="budget" if deliberation.spent else "done",
        notes=_notes(deliberation, question),
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
    match = extract_answer(text, question)
    return None if match is None else match.value


def _notes(deliberation: Deliberation, question: Question) -> dict[str, JsonValue]:
    """Facts for readers of the trace, independent of time."""
    result, decision = deliberation.result, deliberation.decision
    notes: dict[str, JsonValue] = {
        "path": result.path,
        "calls": result.calls,
        "tokens": result.tokens,
        "jurors": [_juror(opinion, deliberation, question) for opinion in result.opinions],
        "reviews": [review.ok for review in result.reviews],
        "ranking": None if result.ranking is None else [*result.ranking.order],
        "issues": len(result.issues),
        "source": None if decision.synthesis is None else decision.synthesis.source,
        "overruled": decision.overruled,
        "labels": {label: sum(c.label == label for c in result.claims) for label in _LABELS},
        "stages": [
            {"stage": cost.stage, "calls": cost.calls, "tokens": cost.completion_tokens, "usd": cost.cost_usd}
            for cost in result.stages
        ],
    }
    if decision.vote is not None:
        notes["support"] = {**decision.vote.support}
    return notes


_LABELS = ("consistent", "uncertain", "contradicted")


def _juror(opinion: Opinion, deliberation: Deliberation, question: Question) -> JsonValue:
    """A juror's summary; `position` is that of its choice among the options it saw, from 0."""
    position: int | None = None
    if question.choices and opinion.choice is not None:
        letter = deliberation.jurors[opinion.juror].order.to_shown(opinion.choice)
        position = next((i for i in range(len(question.choices)) if option_letter(i) == letter), None)
    return {
        "model": opinion.model,
        "role": opinion.role,
        "ok": opinion.ok,
        "choice": opinion.choice,
        "position": position,
        "tokens": opinion.tokens,
    }
