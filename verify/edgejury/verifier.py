"""The verifier `edgejury`: a jury's agreement on another strategy's answer, in addition to evidence.

The jurors answer the question themselves, and review the answer among its rivals anonymously. The report of each claim,
which also holds `davinci`'s evidence, records which jurors support and contradict it. The verdict follows from the
evidence only: agreement never makes a claim "supported".

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stages 1, 2 and 4, for the jury; that it judges another strategy's
answer, alongside evidence, is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ...core.errors import BackendError, BudgetExceeded, UserError
from ...core.events import ClaimChecked
from ...core.messages import Request
from ...core.run import Run
from ...core.types import Candidate, CheckedClaim, Question, Solution, Verification
from ...reasoning.strategy import Stability, validate_parameters
from ...serving.quick_calls import quick_capabilities, report_cut
from ..davinci.config import DavinciConfig
from ..davinci.davinci import Davinci, make_verification
from ..types import Claim, ClaimReport, InternalAttribution
from ..verifier import VerifierContext
from .anonymity import Scrubber
from .answering import closed_kind, collect_opinions
from .config import REVIEW_TEMPERATURE, PanelConfig
from .jurors import Juror, juror_weights, make_jurors, make_roster
from .labels import (
    ClaimStances,
    answer_claim,
    choice_stances,
    collect_stances,
    confidence_of,
    emit_labels,
    knowledge_request,
    label_claim,
    read_stances,
)
from .panel import JurorRequest, Panel
from .ranking import rank_by_reviews
from .review import DisplayedAnswers, Reviewer, collect_reviews
from .types import Agreement, ClaimLabel, Opinion, Stage

NO_EVIDENCE = "agreement is no evidence"
MAX_RIVALS = 4
"""Maximum number of different attempts that are reviewed."""
_LABEL_TEXTS: dict[Agreement, str] = {
    "consistent": "the jurors agree",
    "uncertain": "the jurors are not sure",
    "contradicted": "the jurors contradict it",
}


class JuryVerifier:
    """A jury's agreement in addition to evidence (see `davinci`).

    Model calls for n jurors: n opinions, and n reviews if the answer has rivals; n without a question, in which case
    each juror is asked what it knows of the claims. More as for the strategy `edgejury`. Reward calls: those of
    `davinci`, and one for each claim and opinion.

    Confidence is `davinci`'s; without evidence for any claim, the jurors' agreement.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "agreement of a jury of models on an answer and its claims, in addition to evidence"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"

    class Config(PanelConfig):
        """Parameters of the verifier `edgejury`."""

        review: Annotated[bool, Field(description="jurors review the answer among the other attempts")] = True
        davinci: Annotated[
            dict[str, JsonValue], Field(description="parameters of davinci, which retrieves the evidence")
        ] = {}  # noqa: RUF012 (pydantic copies it)

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.davinci.get("entailment", config.entailment) != config.entailment:
            raise UserError(
                f"the entailment of davinci must be that of edgejury, {config.entailment}",
                hint="set the entailment of edgejury: it is used for both",
            )
        parameters = {"max_claims": config.max_claims, **config.davinci, "entailment": config.entailment}
        davinci_config = validate_parameters(DavinciConfig, "davinci", parameters)
        assert isinstance(davinci_config, DavinciConfig)
        self._davinci = Davinci(davinci_config)

    @property
    def entailment(self) -> str:
        return self.config.entailment

    @property
    def roles(self) -> tuple[str, ...]:
        judge = ("judge",) if self.config.stances == "model" else ()
        return tuple(dict.fromkeys(("jury", *judge, *self._davinci.roles)))

    async def verify(self, question: Question, solution: Solution, context: VerifierContext) -> Verification:
        if solution.best is None or not solution.best.text.strip():
            return Verification(verifiers=(self.name,))
        examined = await self._davinci.examine(question, solution, context)
        reports = examined or _answer_report(solution.best, question)
        try:
            labels = await self._labels(reports, question, solution, context)
        except BackendError as e:
            if not examined:
                raise
            context.run.degrade(f"edgejury: the jury failed ({e.message}); only the evidence counts")
            labels = []
        emit_labels(labels, context.run)
        if labels:
            reports = [_with_label(report, label) for report, label in zip(reports, labels, strict=True)]
        for index, report in enumerate(reports):
            context.run.emit(ClaimChecked(index=index, report=report.model_dump(mode="json")))
        return self._verification(reports, labels)

    async def verify_thought(
        self, question: Question, thought: str, context: VerifierContext
    ) -> tuple[CheckedClaim, ...]:
        """The claims of a thought, by evidence alone: the jurors have not seen the thought."""
        return await self._davinci.verify_thought(question, thought, context)

    # -- the jury

    async def _labels(
        self, reports: Sequence[ClaimReport], question: Question, solution: Solution, context: VerifierContext
    ) -> list[ClaimLabel]:
        """The label of each claim."""
        run, config = context.run, self.config
        claims = [report.claim for report in reports]
        if not claims:
            return []
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
                        sample_indices=(juror.id,),
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

    # -- the record

    def _verification(self, reports: Sequence[ClaimReport], labels: Sequence[ClaimLabel]) -> Verification:
        verification = make_verification(self.name, reports)
        claims = verification.claims
        if labels:
            claims = tuple(_with_note(claim, label) for claim, label in zip(claims, labels, strict=True))
        confidence = verification.confidence
        if labels and not any(report.evidence or report.passages for report in reports):
            confidence = confidence_of(labels)
        return verification.model_copy(update={"claims": claims, "confidence": confidence})


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


def _answer_report(best: Candidate, question: Question) -> list[ClaimReport]:
    """A closed answer whose text makes no claim: the claim that it is the answer."""
    if best.answer is None or closed_kind(question) is None:
        return []
    claim = answer_claim(best.text, best.answer, question)
    return [ClaimReport(claim=claim, verdict="not_enough_evidence", reason="no_evidence", warnings=("no_evidence",))]


def _with_label(report: ClaimReport, label: ClaimLabel) -> ClaimReport:
    """A claim's report with each juror's stance."""
    detail: dict[str, JsonValue] = {
        "method": "1 if the juror says so too, -1 if it says otherwise, else 0; no evidence",
        "label": label.label,
        "agreement": label.score,
    }
    signs = {**dict.fromkeys(label.support, 1.0), **dict.fromkeys(label.contradict, -1.0)}
    jurors = sorted((*label.support, *label.contradict, *label.silent))
    attributions = tuple(
        InternalAttribution(component=f"juror #{juror}", kind="agreement", weight=signs.get(juror, 0.0), detail=detail)
        for juror in jurors
    )
    return report.model_copy(update={"internal": (*report.internal, *attributions)})


def _with_note(claim: CheckedClaim, label: ClaimLabel) -> CheckedClaim:
    """A claim with a note on the jurors' stances, marked as no evidence."""
    counts = f"{len(label.support)} for, {len(label.contradict)} against, {len(label.silent)} silent"
    note = f"{_LABEL_TEXTS[label.label]} ({counts}; {NO_EVIDENCE})"
    return claim.model_copy(update={"note": f"{claim.note}; {note}" if claim.note else note})
