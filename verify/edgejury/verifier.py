"""The verifier `edgejury`: what a jury thinks of an answer that another strategy gave, beside what evidence says of it.

The jurors answer the question themselves, and review the answer among its competitors, anonymously. Each claim of the
answer then has, in the record in which `davinci` puts its evidence, who of them says so too and who says otherwise. The
verdict is the evidence's alone: that jurors agree never makes a claim "supported".

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stages 1, 2 and 4, for the jury; that another strategy's answer is
put before it, and that its labels stand beside evidence, are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ...core.errors import BackendError, UserError
from ...core.events import ClaimChecked
from ...core.messages import Request
from ...core.run import Run
from ...core.types import Candidate, CheckedClaim, Question, Solution, Verification
from ...reasoning.strategy import Stability, validate_parameters
from ..davinci.davinci import Davinci, DavinciConfig, verification_of
from ..types import Claim, ClaimReport, InternalAttribution
from ..verifier import Means
from .anonymity import Scrubber
from .answering import closed_kind, opinions_of
from .config import PanelConfig
from .jurors import Seat, juror_weights, roster_of, seats_of
from .labels import (
    Stances,
    answer_claim,
    chosen_stances,
    confidence_of,
    knowledge_request,
    label_claim,
    read_stances,
    stances_of,
    tell_labels,
)
from .panel import Ask, Panel
from .ranking import ranked_by_reviews
from .review import Reviewer, Shown, reviews_of
from .types import Agreement, ClaimLabel, Opinion, Stage

NO_EVIDENCE = "agreement is no evidence"
_SAID: dict[Agreement, str] = {
    "consistent": "the jurors agree",
    "uncertain": "the jurors are not sure",
    "contradicted": "the jurors contradict it",
}


class JuryVerifier:
    """A jury about an answer, beside the evidence (see `davinci`).

    Model calls for n jurors: n opinions, and n reviews where the answer has competitors; n alone where there is no
    question, in which case each juror is asked what it knows of the claims. More as for the strategy `edgejury`. Reward
    calls: those of `davinci`, and one for each claim and opinion.

    Confidence is `davinci`'s; where it found no evidence for any claim, how far the jurors agree.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "what a jury of models thinks of an answer and its claims, beside their evidence"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"

    class Config(PanelConfig):
        """Parameters of the verifier `edgejury`."""

        review: Annotated[bool, Field(description="jurors review the answer among its competitors")] = True
        max_candidates: Annotated[
            int, Field(ge=1, le=26, description="most different attempts of the strategy that are reviewed")
        ] = 4
        davinci: Annotated[
            dict[str, JsonValue], Field(description="parameters of davinci, which looks for the evidence")
        ] = {}  # noqa: RUF012 (pydantic copies it)

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.davinci.get("entailment", config.entailment) != config.entailment:
            raise UserError(
                f"the entailment of edgejury is {config.entailment}, that of its davinci cannot be another one",
                hint="set entailment of edgejury itself: it is used for both",
            )
        given = {"max_claims": config.max_claims, **config.davinci, "entailment": config.entailment}
        checked = validate_parameters(DavinciConfig, "davinci", given)
        assert isinstance(checked, DavinciConfig)
        self._davinci = Davinci(checked)

    @property
    def entailment(self) -> str:
        """See `Verifier`."""
        return self.config.entailment

    @property
    def roles(self) -> tuple[str, ...]:
        """See `Verifier`."""
        judged = ("judge",) if self.config.stances == "model" else ()
        return tuple(dict.fromkeys(("jury", *judged, *self._davinci.roles)))

    async def verify(self, question: Question, solution: Solution, means: Means) -> Verification:
        """See `Verifier.verify`."""
        if solution.best is None or not solution.best.text.strip():
            return Verification(verifiers=(self.name,))
        found = await self._davinci.examined(question, solution, means)
        reports = found or _of_the_answer(solution.best, question)
        try:
            labels = await self._labels(reports, question, solution, means)
        except BackendError as e:
            if not found:
                raise
            means.run.degrade(f"edgejury: the jury said nothing ({e.message}); what evidence says stands alone")
            labels = []
        tell_labels(labels, means.run)
        if labels:
            reports = [_with_label(report, label) for report, label in zip(reports, labels, strict=True)]
        for index, report in enumerate(reports):
            means.run.emit(ClaimChecked(index=index, report=report.model_dump(mode="json")))
        return self._verification(reports, labels)

    # -- the jury

    async def _labels(
        self, reports: Sequence[ClaimReport], question: Question, solution: Solution, means: Means
    ) -> list[ClaimLabel]:
        """How far the jurors agree on each claim."""
        run, config = means.run, self.config
        claims = [report.claim for report in reports]
        if not claims:
            return []
        seats = seats_of(config, question, means.models, run)
        weights = juror_weights(seats, config)
        if not question.text.strip():
            stances = await self._known(seats, claims, run)
        else:
            panel = self._panel("answer", run)
            with panel.sitting():
                opinions = await opinions_of(seats, question, panel, config, run)
            if config.review and not panel.limited:
                await self._review(seats, opinions, weights, question, solution, means)
            stances = await self._said(claims, opinions, question, solution, means)
        return [label_claim(claim, told, config.theta) for claim, told in zip(claims, stances, strict=True)]

    async def _said(
        self,
        claims: Sequence[Claim],
        opinions: Sequence[Opinion],
        question: Question,
        solution: Solution,
        means: Means,
    ) -> list[Stances]:
        """What the jurors' own answers say of each claim; of a claim that states a closed answer, what they chose."""
        best = solution.best
        stating = [best is not None and _states(claim, best, question) for claim in claims]
        others = [claim for claim, states in zip(claims, stating, strict=True) if not states]
        panel = self._panel("agreement", means.run)
        with panel.sitting():
            said = iter(
                await stances_of(others, opinions, means.models, panel, self.config, means.run, means.entailment)
            )
        chosen = chosen_stances(best.answer, opinions) if best is not None and best.answer is not None else {}
        return [chosen if states else next(said) for states in stating]

    async def _known(self, seats: Sequence[Seat], claims: Sequence[Claim], run: Run) -> list[Stances]:
        """What the jurors know of each claim, where there is no question that they could answer."""
        texts = [claim.text for claim in claims]
        panel = self._panel("agreement", run)
        requests = [knowledge_request(texts, seat.model.capabilities) for seat in seats]
        temperature = self.config.review_temperature
        asks = [
            Ask(
                seat.juror,
                seat.model,
                Request(
                    prompt=asked.prompt,
                    sampling=asked.sampling(temperature, len(texts), n=len(seats)),
                    samples=(seat.juror,),
                ),
            )
            for seat, asked in zip(seats, requests, strict=True)
        ]
        found: list[Stances] = [{} for _ in claims]
        with panel.sitting():
            replies = await panel.ask(asks, needs="somebody")
        for seat, asked, reply in zip(seats, requests, replies, strict=True):
            told = read_stances(asked.opening + reply.text, len(texts)) if reply.ok else [None] * len(texts)
            for stances, stance in zip(found, told, strict=True):
                if stance is not None:
                    stances[seat.juror] = stance
        return found

    async def _review(
        self,
        seats: Sequence[Seat],
        opinions: Sequence[Opinion],
        weights: Mapping[int, float],
        question: Question,
        solution: Solution,
        means: Means,
    ) -> None:
        """Have the answer, which is candidate 0, reviewed among its competitors, and put the ranking into the trace."""
        config, run, models = self.config, means.run, means.models
        rivals = competitors(solution, config.max_candidates)
        if len(rivals) < 2:
            return
        answered = {opinion.juror for opinion in opinions if opinion.ok}
        reviewers = [Reviewer(seat.juror, seat.model, seat.order) for seat in seats if seat.juror in answered]
        writers = [getattr(models, role) for role in ("main", "small") if models.has(role)]
        scrub = Scrubber(roster_of(seats, writers), question).scrub if config.anonymise else str
        closed = closed_kind(question) is not None
        shown = Shown(
            {place: scrub(rival.text) for place, rival in enumerate(rivals)},
            {place: rival.answer if closed else None for place, rival in enumerate(rivals)},
        )
        panel = self._panel("review", run)
        with panel.sitting():
            reviews = await reviews_of(reviewers, shown, question, panel, config, run, exclude_self=False)
            if not any(review.ok for review in reviews):
                run.degrade("edgejury: no review of the answer could be read")
                return
            places = range(len(rivals))
            ranking = ranked_by_reviews(reviews, places, weights, config, run, exclude_self=False)
            if ranking.best != 0:
                other = rivals[ranking.best]
                what = f"the answer {other.answer!r}" if other.answer is not None else "another attempt"
                run.degrade(f"edgejury: reviewers rank {what} above the one that was given")

    def _panel(self, stage: Stage, run: Run) -> Panel:
        return Panel(run, stage, deadline_s=self.config.deadline_s, quorum=self.config.quorum)

    # -- the record

    def _verification(self, reports: Sequence[ClaimReport], labels: Sequence[ClaimLabel]) -> Verification:
        verification = verification_of(self.name, reports)
        claims = verification.claims
        if labels:
            claims = tuple(_noted(claim, label) for claim, label in zip(claims, labels, strict=True))
        confidence = verification.confidence
        if labels and not any(report.evidence or report.passages for report in reports):
            confidence = confidence_of(labels)
        return verification.model_copy(update={"claims": claims, "confidence": confidence})


def competitors(solution: Solution, most: int) -> list[Candidate]:
    """The answer and the other attempts that say something else, the answer first."""
    best = solution.best
    if best is None:
        return []
    found = [best]
    for candidate in solution.candidates:
        same = any(
            candidate.text.strip() == one.text.strip()
            or (candidate.answer is not None and candidate.answer == one.answer)
            for one in found
        )
        if candidate.text.strip() and not same and len(found) < most:
            found.append(candidate)
    return found


def _states(claim: Claim, best: Candidate, question: Question) -> bool:
    """Whether a claim is where the text states the answer of a closed question."""
    if best.answer is None or closed_kind(question) is None:
        return False
    place = answer_claim(best.text, best.answer, question)
    return claim.start <= place.start and place.end <= claim.end


def _of_the_answer(best: Candidate, question: Question) -> list[ClaimReport]:
    """A closed answer whose text makes no claim: that it is the answer is one."""
    if best.answer is None or closed_kind(question) is None:
        return []
    claim = answer_claim(best.text, best.answer, question)
    return [ClaimReport(claim=claim, verdict="not_enough_evidence", reason="no_evidence", warnings=("no_evidence",))]


def _with_label(report: ClaimReport, label: ClaimLabel) -> ClaimReport:
    """A claim's record with what each juror says of it."""
    told: dict[str, JsonValue] = {
        "method": "1 if the juror says so too, -1 if it says otherwise, else 0; no evidence",
        "label": label.label,
        "agreement": label.score,
    }
    signs = {**dict.fromkeys(label.support, 1.0), **dict.fromkeys(label.contradict, -1.0)}
    jurors = sorted((*label.support, *label.contradict, *label.silent))
    said = tuple(
        InternalAttribution(component=f"juror #{juror}", kind="agreement", weight=signs.get(juror, 0.0), detail=told)
        for juror in jurors
    )
    return report.model_copy(update={"internal": (*report.internal, *said)})


def _noted(claim: CheckedClaim, label: ClaimLabel) -> CheckedClaim:
    """A claim with what the jurors say of it, which is called no evidence."""
    counts = f"{len(label.support)} for, {len(label.contradict)} against, {len(label.silent)} silent"
    said = f"{_SAID[label.label]} ({counts}; {NO_EVIDENCE})"
    return claim.model_copy(update={"note": f"{claim.note}; {said}" if claim.note else said})
