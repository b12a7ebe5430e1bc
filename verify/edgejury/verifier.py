"""The verifier `edgejury`: a jury's agreement on the claims of another strategy's answer, in addition to evidence.

The jurors answer the question themselves, and review the answer among its rivals anonymously. `davinci` checks the same
claims by evidence: it alone decides verdicts and confidence. Agreement has a field of its own in the record of a claim,
and only orders the work: claims that jurors contradict are checked first, before a budget ends.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stages 1, 2 and 4, for the jury; that it judges another strategy's
answer, alongside evidence, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final

from pydantic import Field, JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.errors import BackendError, BudgetExceeded, UserError
from ...core.events import ClaimChecked
from ...core.messages import Request
from ...core.run import Run
from ...core.types import AgreementLabel, Candidate, CheckedClaim, Question, Solution, Verification
from ...reasoning.anonymity import Scrubber
from ...reasoning.strategy import Stability, validate_parameters
from ...serving.quick_calls import quick_capabilities, report_cut
from ..davinci.config import DavinciConfig
from ..davinci.davinci import Davinci, make_verification
from ..types import Claim, ClaimReport
from ..verifier import AUTO, VerifierContext
from .answering import closed_kind, collect_opinions
from .config import REVIEW_TEMPERATURE, PanelConfig
from .jurors import Juror, juror_weights, make_jurors, make_roster
from .labels import (
    ClaimStances,
    answer_claim,
    choice_stances,
    collect_stances,
    emit_labels,
    knowledge_request,
    label_claim,
    read_stances,
)
from .panel import JurorRequest, Panel
from .ranking import rank_by_reviews
from .review import DisplayedAnswers, Reviewer, collect_reviews
from .types import ClaimLabel, Opinion, Stage

MAX_RIVALS = 4
"""Maximum number of different attempts that are reviewed."""
EVIDENCE_SHARE: Final = 0.5
"""Share of the remaining budget that the jury leaves to the evidence."""
_PRIORITY: dict[AgreementLabel, int] = {"contradicted": 0, "uncertain": 1, "consistent": 2}


class JuryVerifier:
    """A jury's agreement in addition to evidence (see `davinci`).

    Model calls for n jurors: n opinions, and n reviews if the answer has rivals; n without a question, in which case
    each juror is asked what it knows of the claims. More as for the strategy `edgejury`, and those of `davinci`. Reward
    calls: those of `davinci`, and one for each claim and opinion. Where a budget is limited, the jury may spend at most
    half of what the evidence may need too.

    Verdicts and confidence are `davinci`'s. Without evidence every claim is "not enough evidence", whatever the jurors
    say.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "agreement of a jury of models on an answer and its claims, in addition to evidence"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"
    includes: ClassVar[str] = "davinci"

    class Config(PanelConfig):
        """Parameters of the verifier `edgejury`."""

        review: Annotated[bool, Field(description="jurors review the answer among the other attempts")] = True
        davinci: Annotated[
            dict[str, JsonValue], Field(description="parameters of davinci, which retrieves the evidence")
        ] = {}  # noqa: RUF012 (pydantic copies it)

    def __init__(self, config: Config) -> None:
        self.config = config
        parameters = {"max_claims": config.max_claims, "judge": config.judge, **config.davinci}
        davinci_config = validate_parameters(DavinciConfig, "davinci", parameters)
        assert isinstance(davinci_config, DavinciConfig)
        if davinci_config.judge != config.judge:
            raise UserError(
                f"the judge of edgejury is {config.judge} and that of davinci is {davinci_config.judge}, but one judge "
                "serves both",
                hint=f"set it for both: edgejury.judge={davinci_config.judge}",
            )
        self._davinci = Davinci(davinci_config)
        self._names: tuple[str, ...] = (self.name,)

    def with_included(self, parameters: Mapping[str, JsonValue]) -> JuryVerifier:
        """See `IncludesVerifier`: one split of the answer, and one pass over the evidence with davinci's parameters.

        A judge that is left to the run (`auto`) is davinci's.
        """
        own = self.config.davinci
        different = next((name for name, value in own.items() if parameters.get(name) != value), None)
        if different is not None:
            raise UserError(
                f"edgejury.davinci sets {different}={own[different]!r}, but davinci has {parameters.get(different)!r}",
                hint=f"set davinci.{different} alone, where both verifiers are named",
            )
        judge = parameters["judge"] if self.config.judge == AUTO else self.config.judge
        verifier = JuryVerifier(self.config.model_copy(update={"judge": judge, "davinci": dict(parameters)}))
        verifier._names = (self.includes, self.name)
        return verifier

    @property
    def entailment(self) -> str:
        """See `Verifier`."""
        return self.config.judge

    @property
    def roles(self) -> tuple[str, ...]:
        """See `Verifier`."""
        return tuple(dict.fromkeys(("jury", *self._davinci.roles)))

    async def verify(self, question: Question, solution: Solution, context: VerifierContext) -> Verification:
        """See `Verifier.verify`."""
        best = solution.best
        if best is None or not best.text.strip():
            return Verification(verifiers=self._names)
        claims = await self._davinci.split(best.text, question, context)
        answer_claims = [] if claims else _answer_claims(best, question)
        labels = await self._agreement(claims or answer_claims, question, solution, context, required=not claims)
        reports = await self._reports(claims, labels, question, solution, context)
        reports += map(_unjudged_report, answer_claims)
        if labels:
            reports = [
                report.model_copy(update={"agreement": label.agreement})
                for report, label in zip(reports, labels, strict=True)
            ]
        for index, report in enumerate(reports):
            context.run.emit(ClaimChecked(index=index, report=report.model_dump(mode="json")))
        return make_verification(self.name, reports).model_copy(update={"verifiers": self._names})

    async def _reports(
        self,
        claims: Sequence[Claim],
        labels: Sequence[ClaimLabel],
        question: Question,
        solution: Solution,
        context: VerifierContext,
    ) -> list[ClaimReport]:
        """`davinci`'s reports on the claims, in their order; claims that jurors contradict are judged first."""
        order = sorted(range(len(claims)), key=lambda i: _PRIORITY[labels[i].label] if labels else 0)
        reports = await self._davinci.examine([claims[i] for i in order], question, solution, context)
        by_claim = dict(zip(order, reports, strict=True))
        return [by_claim[i] for i in range(len(claims))]

    async def verify_thought(
        self, question: Question, thought: str, context: VerifierContext
    ) -> tuple[CheckedClaim, ...]:
        """The claims of a thought, by evidence alone: the jurors have not seen the thought."""
        return await self._davinci.verify_thought(question, thought, context)

    # -- the jury

    async def _agreement(
        self,
        claims: Sequence[Claim],
        question: Question,
        solution: Solution,
        context: VerifierContext,
        *,
        required: bool,
    ) -> list[ClaimLabel]:
        """The label of each claim; none where its share of the budget is spent, or where the jury failed.

        Raises:
            BackendError: The jury failed, and is required.
        """
        run = context.run
        try:
            with run.ledger.reserve(self._evidence_reserve(run)):
                labels = await self._labels(claims, question, solution, context) if claims else []
        except BudgetExceeded as e:
            run.record_limit(e)
            labels = []
        except BackendError as e:
            if required:
                raise
            run.degrade(f"edgejury: the jury failed ({e.message}); only the evidence counts")
            labels = []
        emit_labels(labels, run)
        return labels

    def _evidence_reserve(self, run: Run) -> CostBound:
        """What is kept for the evidence: its share of each limit that its calls are charged to."""

        def share(kind: LimitKind) -> float:
            remaining = run.ledger.remaining(kind)
            return 0.0 if math.isinf(remaining) else remaining * EVIDENCE_SHARE

        if "judge" not in self._davinci.roles:
            return CostBound(reward_calls=int(share("reward_calls")))
        return CostBound(
            tokens=int(share("tokens")),
            thinking_tokens=int(share("thinking_tokens")),
            calls=int(share("calls")),
            reward_calls=int(share("reward_calls")),
            usd=share("usd"),
        )

    async def _labels(
        self, claims: Sequence[Claim], question: Question, solution: Solution, context: VerifierContext
    ) -> list[ClaimLabel]:
        run, config = context.run, self.config
        jurors = make_jurors(config, question, context.models, run)
        weights = juror_weights(jurors, config)
        if not question.text.strip():
            stances = await self._knowledge_stances(jurors, claims, run)
        else:
            panel = self._open_panel("answer", run)
            with panel.stage():
                opinions = await collect_opinions(jurors, question, panel, config, run)
            if config.review and not panel.is_limited:
                await self._review(jurors, opinions, weights, question, solution, context)
            stances = await self._stances(claims, opinions, question, solution, context)
        return [
            label_claim(claim, claim_stances, config.theta)
            for claim, claim_stances in zip(claims, stances, strict=True)
        ]

    async def _stances(
        self,
        claims: Sequence[Claim],
        opinions: Sequence[Opinion],
        question: Question,
        solution: Solution,
        context: VerifierContext,
    ) -> list[ClaimStances]:
        """The stances of the jurors' own answers on each claim; on a closed answer, by their choices."""
        best = solution.best
        states_answer = [best is not None and _states(claim, best, question) for claim in claims]
        others = [claim for claim, is_answer in zip(claims, states_answer, strict=True) if not is_answer]
        panel = self._open_panel("agreement", context.run)
        with panel.stage():
            other_stances = iter(
                await collect_stances(
                    others, opinions, context.models, panel, self.config, context.run, context.entailment
                )
            )
        answer_stances = choice_stances(best.answer, opinions) if best is not None and best.answer is not None else {}
        return [answer_stances if is_answer else next(other_stances) for is_answer in states_answer]

    async def _knowledge_stances(
        self, jurors: Sequence[Juror], claims: Sequence[Claim], run: Run
    ) -> list[ClaimStances]:
        """The stances of the jurors by their knowledge, without a question."""
        texts = [claim.text for claim in claims]
        panel = self._open_panel("agreement", run)
        requests = [knowledge_request(texts, quick_capabilities(juror.model)) for juror in jurors]
        temperature = REVIEW_TEMPERATURE
        stances: list[ClaimStances] = [{} for _ in claims]
        try:
            calls = [
                JurorRequest(
                    juror.id,
                    juror.model,
                    Request(
                        prompt=structured.prompt,
                        sampling=structured.sampling(juror.model, temperature, len(texts), n=len(jurors)),
                        sample_indices=(juror.sample_index,),
                        is_attempt=False,
                    ),
                )
                for juror, structured in zip(jurors, requests, strict=True)
            ]
        except BudgetExceeded as e:
            run.record_limit(e)
            return stances
        with panel.stage():
            responses = await panel.call(calls, require_response=True)
        for juror, response in zip(jurors, responses, strict=True):
            report_cut(juror.model, () if response.completion is None else (response.completion,), "stances")
        for juror, structured, response in zip(jurors, requests, responses, strict=True):
            parsed = read_stances(structured.prefix + response.text, len(texts)) if response.ok else [None] * len(texts)
            for claim_stances, stance in zip(stances, parsed, strict=True):
                if stance is not None:
                    claim_stances[juror.id] = stance
        return stances

    async def _review(
        self,
        jurors: Sequence[Juror],
        opinions: Sequence[Opinion],
        weights: Mapping[int, float],
        question: Question,
        solution: Solution,
        context: VerifierContext,
    ) -> None:
        """Have the answer, which is candidate 0, reviewed among its rivals, and emit the ranking."""
        config, run, models = self.config, context.run, context.models
        rivals = rival_candidates(solution, MAX_RIVALS)
        if len(rivals) < 2:
            return
        answered = {opinion.juror for opinion in opinions if opinion.ok}
        reviewers = [Reviewer(juror.id, juror.model, juror.order) for juror in jurors if juror.id in answered]
        authors = [getattr(models, role) for role in ("main", "small") if models.has(role)]
        scrub = Scrubber(make_roster(jurors, authors), question).scrub if config.anonymise else str
        is_closed = closed_kind(question) is not None
        displayed = DisplayedAnswers(
            {i: scrub(rival.text) for i, rival in enumerate(rivals)},
            {i: rival.answer if is_closed else None for i, rival in enumerate(rivals)},
        )
        panel = self._open_panel("review", run)
        with panel.stage():
            reviews = await collect_reviews(reviewers, displayed, question, panel, config, run, exclude_self=False)
            if not any(review.ok for review in reviews):
                run.degrade("edgejury: no review of the answer could be parsed")
                return
            candidates = range(len(rivals))
            ranking = rank_by_reviews(reviews, candidates, weights, config, run, exclude_self=False)
            if ranking.best != 0:
                other = rivals[ranking.best]
                other_text = f"the answer {other.answer!r}" if other.answer is not None else "another attempt"
                run.degrade(f"edgejury: reviewers rank {other_text} above the one that was given")

    def _open_panel(self, stage: Stage, run: Run) -> Panel:
        return Panel(run, stage, deadline_s=self.config.deadline_s, quorum=self.config.quorum)


def rival_candidates(solution: Solution, maximum: int) -> list[Candidate]:
    """The answer, followed by the other attempts that differ from it."""
    best = solution.best
    if best is None:
        return []
    rivals = [best]
    for candidate in solution.candidates:
        is_duplicate = any(
            candidate.text.strip() == rival.text.strip()
            or (candidate.answer is not None and candidate.answer == rival.answer)
            for rival in rivals
        )
        if candidate.text.strip() and not is_duplicate and len(rivals) < maximum:
            rivals.append(candidate)
    return rivals


def _states(claim: Claim, best: Candidate, question: Question) -> bool:
    """Whether a claim is the statement of a closed question's answer."""
    if best.answer is None or closed_kind(question) is None:
        return False
    answer = answer_claim(best.text, best.answer, question)
    return claim.start <= answer.start and answer.end <= claim.end


def _answer_claims(best: Candidate, question: Question) -> list[Claim]:
    """A closed answer whose text makes no claim: the claim that it is the answer."""
    if best.answer is None or closed_kind(question) is None:
        return []
    return [answer_claim(best.text, best.answer, question)]


def _unjudged_report(claim: Claim) -> ClaimReport:
    """The report on a claim such as "The answer is B", which no evidence can decide."""
    return ClaimReport(claim=claim, verdict="not_enough_evidence", reason="no_evidence", warnings=("no_evidence",))
