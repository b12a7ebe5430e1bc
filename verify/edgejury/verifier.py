"""The verifier `edgejury`: a jury's agreement on the claims of another strategy's answer, in addition to evidence.

The jurors answer the question themselves. `davinci` checks the claims by evidence: it alone decides verdicts and
confidence. Agreement has a field of its own in the record of a claim, and only orders the work: claims that jurors
contradict are checked first, before a budget ends.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stages 1 and 4, for the jury; that it judges another strategy's
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
from ...core.run import Run
from ...core.types import AgreementLabel, Candidate, Question, Solution, Verification
from ...reasoning.strategy import Stability, validate_parameters
from ..davinci.davinci import Davinci, make_verification
from ..davinci.decision import DavinciConfig
from ..types import Claim, ClaimReport
from ..verifier import AUTO, VerifierContext
from .answering import closed_kind, collect_opinions
from .jurors import PanelConfig, make_jurors
from .labels import answer_claim, choice_stances, collect_stances, emit_labels, label_claim
from .panel import Panel
from .types import ClaimLabel

EVIDENCE_SHARE: Final = 0.5
"""Share of the remaining budget that the jury leaves to the evidence."""
_PRIORITY: dict[AgreementLabel, int] = {"contradicted": 0, "uncertain": 1, "consistent": 2}


class JuryVerifier:
    """A jury's agreement in addition to evidence (see `davinci`).

    Model calls: those of `davinci`, and n for n jurors. Reward calls: those of `davinci`, and one for each claim and
    opinion. Where a budget is limited, the jury may spend at most half of what the evidence may need too. A text
    without a question gets no jury.

    Verdicts and confidence are `davinci`'s. Without evidence every claim is "not enough evidence", whatever the jurors
    say.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "agreement of a jury of models on the claims of an answer, in addition to evidence"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"
    includes: ClassVar[str] = "davinci"

    class Config(PanelConfig):
        """Parameters of the verifier `edgejury`."""

        davinci: Annotated[
            dict[str, JsonValue], Field(description="parameters of davinci, which retrieves the evidence")
        ] = {}  # noqa: RUF012 (pydantic copies it)

    def __init__(self, config: Config) -> None:
        self.config = config
        davinci_config = validate_parameters(DavinciConfig, "davinci", {"judge": config.judge, **config.davinci})
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
        """See `IncludesVerifier`; a judge that is left to the run (`auto`) is davinci's."""
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

    async def _agreement(
        self,
        claims: Sequence[Claim],
        question: Question,
        solution: Solution,
        context: VerifierContext,
        *,
        required: bool,
    ) -> list[ClaimLabel]:
        """The label of each claim; none where the budget is spent, or a jury failed that is not required."""
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
        """The labels by the jurors' own answers; on a closed answer, by their choices."""
        run, config, best = context.run, self.config, solution.best
        if not question.text.strip():
            run.degrade("edgejury: without a question the jurors have nothing to answer; only the evidence counts")
            return []
        jurors = make_jurors(config, question, context.models, run)
        panel = Panel(run, "answer")
        with panel.open():
            opinions = await collect_opinions(jurors, question, panel, config, run)
        is_answer = [best is not None and _states(claim, best, question) for claim in claims]
        others = [claim for claim, stated in zip(claims, is_answer, strict=True) if not stated]
        with Panel(run, "agreement").open():
            stances = iter(await collect_stances(others, opinions, context.entailment, run))
        by_choice = choice_stances(best.answer, opinions) if best is not None and best.answer is not None else {}
        return [
            label_claim(claim, by_choice if stated else next(stances))
            for claim, stated in zip(claims, is_answer, strict=True)
        ]


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
