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
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

from pydantic import JsonValue

from ...core.errors import BackendError, BudgetExceeded
from ...core.events import CandidateAdded, OpinionsMerged, VoteUpdated
from ...core.messages import Frozen
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...reasoning.anonymity import Scrubber
from ...reasoning.answers.extraction import extract_answer, option_letter
from ...reasoning.strategy import Models, Stability
from ...reasoning.voting.answer_classes import answer_classes
from ...serving.model import Feature
from ..types import Support
from ..verifier import LEXICAL, MODEL
from .answering import canonical, closed_kind, collect_opinions
from .chair import Chair, fallback_synthesis, shown_issues, unaddressed_issues
from .config import JuryConfig
from .jurors import Juror, juror_weights, make_jurors, make_roster
from .labels import confidence_of, entailment_between, find_entailment, label_claims
from .panel import Panel
from .ranking import pair_agreement, rank_by_agreement, rank_opinions
from .review import Reviewer, collect_reviews, display_opinions, pool_issues, verified_quotes
from .types import ClaimLabel, JuryPath, JuryResult, Opinion, PooledIssue, Ranking, Review, Stage, StageCost, Synthesis

MIN_UNANIMOUS = 3
"""Number of equal answers that an early exit needs."""
MIN_BORDA = 0.5
"""B that a juror with the chair's choice must have for the choice to be accepted."""


class Vote(Frozen):
    """A weighted vote.

    Attributes:
        support: Share of the weight of each choice, largest first; they sum to 1.
        voters: Jurors by choice.
    """

    choice: str
    support: dict[str, float]
    voters: dict[str, tuple[int, ...]]


class Settlement(Frozen):
    """The result of checking a chair's choice.

    Attributes:
        synthesis: The chair's answer, or changed to the vote's choice.
        vote: The vote; None if no opinion has a choice.
        overruled: Whether the chair's choice was replaced.
    """

    synthesis: Synthesis
    vote: Vote | None
    overruled: bool = False


def unanimous_choice(opinions: Sequence[Opinion], *, min_opinions: int = MIN_UNANIMOUS) -> str | None:
    """The choice of all opinions if it suffices for an early exit; None otherwise.

    There must be at least three jurors, and `min_opinions` opinions that all have the same choice.

    Args:
        opinions: All opinions, including failed ones.
    """
    choices = [opinion.choice for opinion in opinions if opinion.ok]
    if len(opinions) < MIN_UNANIMOUS or len(choices) < min_opinions or len(set(choices)) != 1:
        return None
    return choices[0]


def are_equivalent(count: int, supports: Mapping[tuple[int, int], Support]) -> bool:
    """Whether each of `count` texts entails every other.

    Args:
        supports: Verdict of the first text of each pair on the second, by indices.

    Raises:
        KeyError: A pair was not judged.
    """
    return count > 1 and all(supports[pair].label == "supports" for pair in permutations(range(count), 2))


def weighted_vote(opinions: Sequence[Opinion], weights: Mapping[int, float], order: Sequence[int] = ()) -> Vote | None:
    """The choice with the largest weight.

    A juror whose model returns probabilities of the options divides its weight accordingly. Without weights this is
    plain majority voting. Ties go to the choice of more jurors, then to that of the first juror.

    Args:
        weights: Weight by juror, not negative; 1 by default. If nobody who voted has any, all have 1.
        order: Jurors, best first; by number if empty.

    Returns:
        The vote; None if no opinion has a choice.
    """
    voting = [opinion for opinion in opinions if opinion.ok and (opinion.choice is not None or opinion.probs)]
    if not voting:
        return None
    juror_weights = {opinion.juror: weights.get(opinion.juror, 1.0) for opinion in voting}
    if not any(juror_weights.values()):
        juror_weights = dict.fromkeys(juror_weights, 1.0)
    position = {juror: i for i, juror in enumerate(order)}
    shares: dict[str, list[float]] = {}
    voters: dict[str, list[int]] = {}
    for opinion in sorted(voting, key=lambda o: (position.get(o.juror, len(position)), o.juror)):
        for choice, share in _vote_shares(opinion).items():
            shares.setdefault(choice, []).append(juror_weights[opinion.juror] * share)
        if opinion.choice is not None:
            voters.setdefault(opinion.choice, []).append(opinion.juror)
    sums = {choice: math.fsum(weighted) for choice, weighted in shares.items()}
    first = {choice: i for i, choice in enumerate(shares)}
    ranked = sorted(sums, key=lambda c: (-sums[c], -len(voters.get(c, ())), first[c]))
    total = math.fsum(sums.values())
    return Vote(
        choice=ranked[0],
        support={choice: sums[choice] / total for choice in ranked},
        voters={choice: tuple(voters.get(choice, ())) for choice in ranked},
    )


def settle(
    synthesis: Synthesis, opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float] | None = None
) -> Settlement:
    """Check a chair's choice against the jurors'.

    It is accepted if a juror with B of at least 1/2 made the same choice. Otherwise the vote, weighted by B, replaces
    it, with the text of the best opinion of that choice; the rationale records the change.

    Args:
        synthesis: The chair's answer, its choice in canonical form (see `canonical`).
        weights: Additional factors of the votes, such as reliability.
    """
    reliability = weights or {}
    vote_weights = {juror: b * reliability.get(juror, 1.0) for juror, b in ranking.borda.items()}
    vote = weighted_vote(opinions, vote_weights, ranking.order)
    if vote is None:
        return Settlement(synthesis=synthesis, vote=None)
    choosers = [o.juror for o in opinions if o.ok and o.choice is not None and o.choice == synthesis.choice]
    if any(ranking.borda.get(juror, 0.0) >= MIN_BORDA for juror in choosers):
        return Settlement(synthesis=synthesis, vote=vote)
    reason = (
        f"the {'chair' if synthesis.source == 'chair' else 'best-ranked answer'} made no choice"
        if synthesis.choice is None
        else f"no juror chose {synthesis.choice!r}, as the chair did"
        if not choosers
        else f"no well-ranked juror chose {synthesis.choice!r}, as the chair did"
    )
    authors = {opinion.juror: opinion for opinion in opinions if opinion.choice == vote.choice}
    author = next((authors[juror] for juror in ranking.order if juror in authors), None)
    update: dict[str, object] = {} if author is None else {"answer": author.text, "thought": author.thought}
    if author is not None:
        update["thinking_tokens"] = min(synthesis.tokens, author.thinking_tokens)
    update |= {
        "choice": vote.choice,
        "rationale": (*synthesis.rationale, f"{reason}: the jurors' vote, weighted by rank, is used instead"),
    }
    return Settlement(synthesis=synthesis.model_copy(update=update), vote=vote, overruled=True)


def _vote_shares(opinion: Opinion) -> Mapping[str, float]:
    """The shares of one juror's vote."""
    total = math.fsum(opinion.probs.values())
    if total > 0:
        return {choice: p / total for choice, p in opinion.probs.items()}
    return {} if opinion.choice is None else {opinion.choice: 1.0}


@dataclass(frozen=True)
class Decision:
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
    vote: Vote | None = None
    overruled: bool = False


async def decide_by_chair(
    synthesis: Synthesis,
    opinions: Sequence[Opinion],
    ranking: Ranking,
    weights: Mapping[int, float],
    question: Question,
    run: Run,
) -> Decision:
    """The decision after the chair.

    Args:
        synthesis: The chair's answer, or the best opinion in its place.
        weights: Additional factors of the votes.
    """
    is_fallback, is_closed = synthesis.source == "fallback", closed_kind(question) is not None
    # if the best opinion states no answer, the others vote
    if not is_closed or (is_fallback and (synthesis.choice is not None or all(o.choice is None for o in opinions))):
        juror = ranking.best if is_fallback else None
        return Decision(
            with_stated_choice(synthesis.answer, synthesis.choice, question), synthesis.choice, juror, synthesis
        )
    canonical_synthesis = synthesis.model_copy(
        update={"choice": await _canonical_choice(synthesis.choice, opinions, question, run)}
    )
    settlement = settle(canonical_synthesis, opinions, ranking, weights)
    final = settlement.synthesis
    text = with_stated_choice(final.answer, final.choice, question)
    stated_synthesis = final.model_copy(update={"answer": text})
    return Decision(text, final.choice, None, stated_synthesis, settlement.vote, settlement.overruled)


def decide_by_jurors(
    opinions: Sequence[Opinion], ranking: Ranking, weights: Mapping[int, float], question: Question, *, vote: bool
) -> Decision:
    """The decision without a chair.

    Args:
        weights: Weights of the votes.
        vote: Whether closed questions are decided by vote; otherwise the best opinion is used.
    """
    by_juror = {opinion.juror: opinion for opinion in opinions if opinion.ok}
    best = by_juror[ranking.best]
    result = weighted_vote(opinions, weights, ranking.order) if closed_kind(question) is not None else None
    if vote and result is not None:
        choosers = [by_juror[juror] for juror in ranking.order if by_juror[juror].choice == result.choice]
        if not choosers:  # no juror chose the letter with the largest total probability
            return Decision(with_stated_choice("", result.choice, question), result.choice, None, None, result)
        best = choosers[0]
    return Decision(with_stated_choice(best.text, best.choice, question), best.choice, best.juror, None, result)


def with_stated_choice(answer: str, choice: str | None, question: Question) -> str:
    """The text with a last line that states the choice, unless it states it already."""
    if choice is None:
        return answer
    match = extract_answer(answer, question)
    if match is not None and match.value == choice:
        return answer
    return f"{answer.rstrip()}\n\nAnswer: {choice}".lstrip()


async def _canonical_choice(
    choice: str | None, opinions: Sequence[Opinion], question: Question, run: Run
) -> str | None:
    """The chair's choice in the opinions' form."""
    answers = [*(opinion.choice for opinion in opinions), choice]
    return canonical(answers, await answer_classes(answers, question, run))[-1]


async def unanimous_decision(
    opinions: Sequence[Opinion], question: Question, models: Models, config: JuryConfig, run: Run
) -> Decision | None:
    """The decision of a jury that agrees after stage 1; None if it does not, or early exit is off.

    Closed questions need equal answers in normal form; open ones need mutual entailment of every pair.

    Args:
        opinions: All opinions, including failed ones.
    """
    complete = [opinion for opinion in opinions if opinion.ok]
    if config.early_exit == "never":
        return None
    if closed_kind(question) is not None:
        choice = unanimous_choice(opinions)
        if choice is None:
            return None
        first = next(opinion for opinion in complete if opinion.choice == choice)
        return Decision(with_stated_choice(first.text, choice, question), choice, first.juror)
    if config.early_exit != "always" or len(complete) < MIN_UNANIMOUS:
        return None
    judge = find_entailment(config, models)
    if judge is None:
        run.degrade(f"no early exit: the judge {config.judge} is not available")
        return None
    try:
        same = are_equivalent(len(complete), await entailment_between([opinion.text for opinion in complete], judge))
    except BudgetExceeded as e:
        run.record_limit(e)
        return None
    except (BackendError, KeyError):  # a pair that could not be judged does not agree
        return None
    return Decision(complete[0].text, None, complete[0].juror) if same else None


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
        decision = await decide_by_chair(used, complete, ranking, weights, self.question, self.run)
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
        if config.judge == MODEL and allowance.label_calls < needed:
            config = config.model_copy(update={"judge": LEXICAL})
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
        revised = await decide_by_chair(synthesis, complete, self.ranking, weights, self.question, self.run)
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
    one short answer. One more call each: an opinion that was cut in its thought or has no answer, an unreadable review
    or chair's answer, issues that the chair did not address, `claims=model`, `revise`; n more each with `distribution`
    and `judge=model`; with `comparisons` up to 4 for each reviewer and answer that it reads. Stage 4 makes no call
    otherwise.

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
    confidence: ClassVar[str] = "How far the jurors agree on the answer, which is no probability that it is right."
    family: ClassVar[str] = "several models"
    when_to_use: ClassVar[str] = "Several models of similar strength; closed questions (--juror)."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "jury", "chair", "judge")
    Config: ClassVar[type[JuryConfig]] = JuryConfig

    def __init__(self, config: JuryConfig) -> None:
        self.config = config

    @staticmethod
    def entailment_model(config: JuryConfig, question: Question) -> str:
        """The judge that compares the claims of open answers with texts; empty if nothing is compared."""
        is_compared = closed_kind(question) is None and (config.claims != "none" or config.early_exit == "always")
        return config.judge if is_compared else ""

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
        synthesis = decision.synthesis
        candidates.append(
            Candidate(
                text=decision.answer,
                answer=_answer(decision.answer, decision.choice, question),
                tokens=0 if synthesis is None else synthesis.tokens,
                thought="" if synthesis is None else synthesis.thought,
                thinking_tokens=0 if synthesis is None else synthesis.thinking_tokens,
            )
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
        thought=opinion.thought,
        thinking_tokens=opinion.thinking_tokens,
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
    biases = [review.position_bias for review in result.reviews if review.position_bias is not None]
    if biases:
        notes["position_bias"] = math.fsum(biases) / len(biases)
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
