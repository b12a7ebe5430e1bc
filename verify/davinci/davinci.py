"""`davinci`: every claim of an answer is attributed, judged by evidence, and confirmed only where that is reliable.

Source: Rawte, Rossi, Dernoncourt, Lipka 2026, "Trust but Verify: Introducing DAVinCI, a Framework for Dual Attribution
and Verification in Claim Inference for Language Models", arXiv:2604.21193.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ...core.errors import BackendError, BudgetExceeded
from ...core.events import ClaimChecked
from ...core.types import CheckedClaim, Evidence, Question, Solution, Verdict, Verification
from ...reasoning.retrieval.passages import document_passages
from ...reasoning.retrieval.protocol import Passage, Retriever
from ...reasoning.retrieval.retriever import HybridRetriever
from ...reasoning.strategy import Stability
from ..attribution.attribution import attribute_claims
from ..attribution.segments import samples_of, segments_of
from ..claims.model_splitter import split_claims_by_model
from ..claims.splitter import split_claims
from ..entailment.protocol import Entailment, Pair
from ..entailment.windows import WindowedEntailment, WindowVerdict
from ..programs.checker import check_claim
from ..spans import SpanRequest, span_at, span_by_words, spans_by_entailment, spans_by_quotation
from ..types import Claim, ClaimReport, InternalAttribution, Label, PairVerdict, Span, Support, as_evidence
from ..verifier import VerifierContext
from .config import DavinciConfig
from .decision import Decision, DecisionRule, decision_rule_for, evidence_weights

_CHECKED: tuple[Verdict, ...] = ("supported", "refuted", "disputed", "not_enough_evidence")
_LABELS: dict[Verdict, Label | None] = {"supported": "supports", "refuted": "refutes", "disputed": None}
_MAX_SPANS = 3
_JUDGE = "judge"


class Davinci:
    """Attribution, then verification, claim by claim.

    Model calls: 1 to split the answer with `claims=model`; with the judge model as the entailment 2 for each pair of
    claim and passage, and 1 for each quoted passage; none otherwise. Reward calls: the passes of the entailment, one
    for each window of each pair.

    Differs: evidence is the premise and the claim the hypothesis, as classifiers of inference are trained, where the
    paper states the opposite order. Several passages are combined by tempered factors, and probabilities are calibrated
    before the gate, where the paper has only the gate. Complete passages are judged and spans shown, as in its better
    ablation. Claims that a program can check need no evidence.
    """

    name: ClassVar[str] = "davinci"
    summary: ClassVar[str] = "claims, each with its origin, its evidence and a calibrated verdict"
    paper: ClassVar[str] = "Rawte et al. 2026, arXiv:2604.21193"
    stability: ClassVar[Stability] = "beta"
    Config: ClassVar[type[DavinciConfig]] = DavinciConfig

    def __init__(self, config: DavinciConfig) -> None:
        self.config = config

    @property
    def entailment(self) -> str:
        """See `Verifier`."""
        return self.config.entailment

    @property
    def roles(self) -> tuple[str, ...]:
        """See `Verifier`."""
        needs_judge = self.config.entailment == _JUDGE or self.config.claims == "model"
        needs_main = not {"context", "whitebox"}.isdisjoint(self.config.internal)
        return (*((_JUDGE,) if needs_judge else ()), *(("main",) if needs_main else ()))

    async def verify(self, question: Question, solution: Solution, context: VerifierContext) -> Verification:
        """See `Verifier.verify`."""
        return make_verification(self.name, await self.reports(question, solution, context))

    async def reports(self, question: Question, solution: Solution, context: VerifierContext) -> list[ClaimReport]:
        """The record of each claim, in the order of the answer; none without an answer.

        Raises:
            ReasonError: Nothing could be verified.
        """
        reports = await self.examine(question, solution, context)
        for number, report in enumerate(reports):
            context.run.emit(ClaimChecked(index=number, report=report.model_dump(mode="json")))
        return reports

    async def examine(self, question: Question, solution: Solution, context: VerifierContext) -> list[ClaimReport]:
        """`reports` without their events, for a verifier that extends them.

        Raises:
            ReasonError: Nothing could be verified.
        """
        reports = await self._examine_text("" if solution.best is None else solution.best.text, question, context)
        claims = [report.claim for report in reports]
        entailment = WindowedEntailment(context.entailment)
        origins = await self._origins(claims, question, solution, context, entailment) if claims else []
        return [
            report.model_copy(update={"internal": internal}) for report, internal in zip(reports, origins, strict=True)
        ]

    async def verify_thought(
        self, question: Question, thought: str, context: VerifierContext
    ) -> tuple[CheckedClaim, ...]:
        """The claims of a thought. They have no origins: the answer comes from the thought, not the reverse."""
        reports = await self._examine_text(thought, question, context, part="thought")
        return tuple(claim_summary(report).model_copy(update={"part": "thought"}) for report in reports)

    async def _examine_text(
        self, text: str, question: Question, context: VerifierContext, *, part: str = "answer"
    ) -> list[ClaimReport]:
        """The record of each claim of a text, in its order, without origins."""
        claims = await self._claims(text, question, context) if text.strip() else []
        if not claims:
            return []
        drafts = [self._check_by_program(claim) for claim in claims]
        unchecked_indices = [i for i, draft in enumerate(drafts) if draft is None]
        unchecked_claims = [claims[i] for i in unchecked_indices]
        passages = await self._passages(unchecked_claims, question, context)
        for i, report in zip(unchecked_indices, await self.check(unchecked_claims, passages, context), strict=True):
            drafts[i] = report
        reports = [draft for draft in drafts if draft is not None]
        unchecked = sum(report.reason == "unchecked" for report in reports)
        if unchecked:
            of_part = "" if part == "answer" else f" of the {part}"
            context.run.degrade(
                f"{self.name}: the budget was exhausted before {unchecked} of {len(reports)} claims{of_part} were "
                "checked"
            )
        return reports

    async def check(
        self, claims: Sequence[Claim], passages: Sequence[Sequence[Passage]], context: VerifierContext
    ) -> list[ClaimReport]:
        """Stage V: judge claims by their passages, without attribution."""
        entailment = WindowedEntailment(context.entailment)
        rule = decision_rule_for(self.config, context.entailment.identity)
        examined = [_ClaimEvidence(claim, tuple(own)) for claim, own in zip(claims, passages, strict=True)]
        examined = await self._judge(examined, entailment)
        decisions = [self._decide(evidence, rule) for evidence in examined]
        spans = await self._spans(examined, decisions, entailment, context)
        return [
            self._report(evidence, decision, own, rule, entailment)
            for evidence, decision, own in zip(examined, decisions, spans, strict=True)
        ]

    # -- stage 0: claims

    async def _claims(self, text: str, question: Question, context: VerifierContext) -> list[Claim]:
        config = self.config
        if config.claims == "rules":
            return split_claims(text, question.text, config.max_claims)
        seed = context.run.derive_seed("davinci", "claims")
        split = await split_claims_by_model(
            text, question.text, context.models.judge, max_claims=config.max_claims, seed=seed
        )
        if split.degraded:
            context.run.degrade(f"davinci: {split.degraded}")
        return list(split.claims)

    def _check_by_program(self, claim: Claim) -> ClaimReport | None:
        """The report of a program on a wrong part, or on a claim that consists only of the computed part."""
        result = check_claim(claim.text) if self.config.programs else None
        if result is None or (result.holds and not result.is_complete):
            return None
        probs = Support(1.0, 0.0, 0.0) if result.holds else Support(0.0, 1.0, 0.0)
        return ClaimReport(
            claim=claim,
            verdict="supported" if result.holds else "refuted",
            label=probs.label,
            probs=probs,
            confidence=1.0,
            evidence=(Evidence(source="program", text=result.detail),),
            reason="program",
            program=result.detail,
            backend="program",
        )

    # -- stage A: evidence and origin

    async def _passages(
        self, claims: Sequence[Claim], question: Question, context: VerifierContext
    ) -> list[list[Passage]]:
        """Passages for each claim, best first: of the question's documents and of the run's evidence."""
        texts, k = [claim.text for claim in claims], self.config.k
        retrievers: list[Retriever] = [] if context.retriever is None else [context.retriever]
        documents = document_passages(question.documents)
        if documents:
            embedding = context.models.knowledge.embedding
            retrievers.insert(0, await HybridRetriever.build(documents, embedding, name="documents"))
        results: list[list[Passage]] = [[] for _ in claims]
        for retriever in retrievers if texts else []:
            for own, retrieved in zip(results, await retriever.retrieve(texts, k), strict=True):
                own.extend(retrieved)
        return [sorted(passages, key=lambda p: -p.score)[:k] for passages in results]

    async def _origins(
        self,
        claims: Sequence[Claim],
        question: Question,
        solution: Solution,
        context: VerifierContext,
        entailment: Entailment,
    ) -> list[tuple[InternalAttribution, ...]]:
        segments = segments_of(question, solution)
        samples = samples_of(segments)
        # with a single sample, agreement would only compare it with itself
        levels = [level for level in self.config.internal if level != "agreement" or len(samples) > 1]
        return await attribute_claims(
            claims,
            segments,
            samples=samples,
            entailment=entailment,
            model=context.models.main if context.models.has("main") else None,
            levels=levels,
            seed=context.run.derive_seed("davinci", "origins"),
        )

    # -- stage V: verification

    async def _judge(self, examined: Sequence[_ClaimEvidence], entailment: WindowedEntailment) -> list[_ClaimEvidence]:
        """The verdict of each passage: all pairs in one call, or pair by pair where that fails."""
        pairs = [self._pairs(evidence) for evidence in examined]
        try:
            window_verdicts = await entailment.judge_windows([pair for own in pairs for pair in own])
        except BudgetExceeded:
            return await _judge_within_budget(examined, pairs, entailment)
        except BackendError:
            return await _judge_one_by_one(examined, pairs, entailment)
        verdicts = iter(window_verdicts)
        return [
            replace(evidence, verdicts=tuple(next(verdicts) for _ in own))
            for evidence, own in zip(examined, pairs, strict=True)
        ]

    def _pairs(self, evidence: _ClaimEvidence) -> list[Pair]:
        """The pairs of a claim: one for each passage, or one for all of them as one text, best first."""
        if self.config.aggregation == "concat" and evidence.passages:
            joined = " ".join(f"{p.title}: {p.text}" if p.title else p.text for p in evidence.passages)
            return [Pair(joined, evidence.claim.text)]
        if self.config.evidence_form == "span":
            best = [span_by_words(p, evidence.claim.text) for p in evidence.passages]
            return [
                Pair(p.text if span is None else span.text, evidence.claim.text, p.title)
                for p, span in zip(evidence.passages, best, strict=True)
            ]
        return [Pair(p.text, evidence.claim.text, p.title) for p in evidence.passages]

    def _decide(self, evidence: _ClaimEvidence, rule: DecisionRule) -> Decision | None:
        """None where the budget did not reach the claim."""
        if evidence.verdicts is None:
            return None
        supports = [verdict.support for verdict in evidence.verdicts]
        if self.config.aggregation == "concat":
            return rule.decide_concatenated(supports[0] if supports else None)
        return rule.decide(evidence.passages, supports)

    async def _spans(
        self,
        examined: Sequence[_ClaimEvidence],
        decisions: Sequence[Decision | None],
        entailment: WindowedEntailment,
        context: VerifierContext,
    ) -> list[dict[int, Span]]:
        """The decisive span of each decisive passage, by the passage's position, for each claim, in one call."""
        requests: list[SpanRequest] = []
        positions: list[tuple[int, int]] = []
        for number, (evidence, decision) in enumerate(zip(examined, decisions, strict=True)):
            if decision is None or decision.verdict not in _LABELS:
                continue
            for position in self._decisive_passages(evidence, decision):
                requests.append(
                    SpanRequest(evidence.passages[position], evidence.claim.text, _LABELS[decision.verdict])
                )
                positions.append((number, position))
        try:
            if self.config.entailment == _JUDGE:
                selected = await spans_by_quotation(requests, context.models.judge)
            else:
                selected = await spans_by_entailment(requests, entailment)
            spans = [selection.span for selection in selected]
        except (BudgetExceeded, BackendError):  # the verdict holds; its sentence is selected by words
            spans = [span_by_words(request.passage, request.claim) for request in requests]
        by_claim: list[dict[int, Span]] = [{} for _ in examined]
        for (number, position), span, request in zip(positions, spans, requests, strict=True):
            passage = request.passage
            by_claim[number][position] = span or span_at(passage, 0, len(passage.text))
        return by_claim

    def _decisive_passages(self, evidence: _ClaimEvidence, decision: Decision) -> list[int]:
        """Positions of passages that agree with the verdict, the most decisive first; for a dispute one per side."""
        if self.config.aggregation == "concat":
            return list(range(len(evidence.passages)))
        parsed = [(i, v.support) for i, v in enumerate(evidence.verdicts or ()) if v.support is not None]
        best = {
            side: max(parsed, key=lambda item: getattr(item[1], side))[0] for side in ("supports", "refutes") if parsed
        }
        if decision.verdict == "disputed":
            return list(dict.fromkeys(best.values()))
        label = _LABELS[decision.verdict] or "supports"
        agreeing = sorted((-getattr(s, label), i) for i, s in parsed if s.label == label)
        return [i for _, i in agreeing[:_MAX_SPANS]] or [best[label]]

    def _report(
        self,
        evidence: _ClaimEvidence,
        decision: Decision | None,
        spans: dict[int, Span],
        rule: DecisionRule,
        entailment: Entailment,
    ) -> ClaimReport:
        if decision is None:
            return ClaimReport(
                claim=evidence.claim,
                passages=evidence.passages,
                backend=entailment.identity,
                verdict="unchecked",
                reason="unchecked",
                threshold=rule.min_confidence,
            )
        verdicts = evidence.verdicts or ()
        scores, credibility = [p.score for p in evidence.passages], [p.credibility for p in evidence.passages]
        weights = evidence_weights(scores, credibility, self.config.tau)
        own = () if self.config.aggregation == "concat" else verdicts  # a joint verdict belongs to no single passage
        pairs = tuple(
            PairVerdict(passage=p.id, probs=v.support, span=spans.get(i), weight=w)
            for i, (p, v, w) in enumerate(zip(evidence.passages, own, weights, strict=False))
        )
        has_failed = bool(verdicts) and all(v.support is None for v in verdicts)
        verdict: Verdict = decision.verdict
        if has_failed:
            verdict = "unparsed" if not evidence.failed else "not_enough_evidence"
        warnings = [*decision.warnings, *(() if evidence.passages else ("no_evidence",))]
        if evidence.failed or has_failed:
            warnings.append("verifier_failed" if has_failed else "passage_left_out")
        return ClaimReport(
            claim=evidence.claim,
            passages=evidence.passages,
            backend=entailment.identity,
            verdict=verdict,
            label=None if has_failed else decision.label,
            probs=decision.probs,
            confidence=0.0 if has_failed else decision.confidence,
            downgraded=decision.downgraded,
            threshold=decision.threshold,
            pairs=pairs,
            evidence=tuple(as_evidence(span, evidence.passages[position]) for position, span in spans.items()),
            conflict=decision.conflict,
            reason="verifier_failed" if has_failed else decision.reason,
            calibrator="" if rule.calibration is None else rule.calibration.digest,
            warnings=tuple(warnings),
        )


@dataclass(frozen=True)
class _ClaimEvidence:
    """A claim and its passages.

    Attributes:
        claim: The claim.
        passages: Its passages, best first.
        verdicts: The verdict of each pair; None where the budget did not reach the claim.
        failed: Whether a call about it failed.
    """

    claim: Claim
    passages: tuple[Passage, ...]
    verdicts: tuple[WindowVerdict, ...] | None = None
    failed: bool = False


async def _judge_within_budget(
    examined: Sequence[_ClaimEvidence], pairs: Sequence[Sequence[Pair]], entailment: WindowedEntailment
) -> list[_ClaimEvidence]:
    """Claim by claim, in order, until the budget is exhausted; the rest stays unchecked, unless it needs no pass."""
    judged = list(examined)
    is_exhausted = False
    for number, own in enumerate(pairs):
        if is_exhausted and own:
            continue
        try:
            judged[number] = replace(examined[number], verdicts=tuple(await entailment.judge_windows(own)))
        except BudgetExceeded:
            is_exhausted = True
    return judged


async def _judge_one_by_one(
    examined: Sequence[_ClaimEvidence], pairs: Sequence[Sequence[Pair]], entailment: WindowedEntailment
) -> list[_ClaimEvidence]:
    """Pair by pair: a failed pair is left out and reported."""
    judged = []
    for evidence, own in zip(examined, pairs, strict=True):
        verdicts: list[WindowVerdict] = []
        failed = False
        for pair in own:
            try:
                verdicts += await entailment.judge_windows([pair])
            except BudgetExceeded:
                break
            except BackendError:
                failed = True
                verdicts.append(WindowVerdict(None, 0, len(pair.evidence)))
        is_complete = len(verdicts) == len(own)
        judged.append(replace(evidence, verdicts=tuple(verdicts) if is_complete else None, failed=failed))
    return judged


async def check_claims(
    claims: Sequence[str], retriever: Retriever | None, context: VerifierContext, config: DavinciConfig
) -> list[ClaimReport]:
    """Verify bare claims, without an answer that they come from, for evaluations.

    Args:
        claims: The claims.
        retriever: Retrieves their evidence; None leaves them without.
        context: What the verifier works with; its own retriever is not used.
        config: Parameters.
    """
    bare = [Claim(text=text, start=0, end=len(text)) for text in claims]
    passages = [[] for _ in claims] if retriever is None else await retriever.retrieve(claims, config.k)
    return await Davinci(config).check(bare, passages, context)


# -- the summary of an answer


def overall_verdict(reports: Sequence[ClaimReport]) -> Verdict:
    """The verdict on an answer: refuted if a claim is; supported if all are; otherwise the reason why not.

    An unchecked or unparsed claim never counts as supported.
    """
    verdicts = {report.verdict for report in reports}
    if not verdicts:
        return "unchecked"
    if "refuted" in verdicts:
        return "refuted"
    return next(
        (v for v in ("disputed", "unparsed", "unchecked", "not_enough_evidence") if v in verdicts),
        "supported",
    )


def answer_confidence(reports: Sequence[ClaimReport]) -> float | None:
    """The probability that the answer is right: that of its weakest claim; None if no claim was checked.

    All claims must hold, so it is at most the minimum; their product would assume independence, which claims of one
    answer do not have.
    """
    checked = [report.probs[0] for report in reports if report.verdict in _CHECKED]
    return min(checked) if checked else None


def make_verification(name: str, reports: Sequence[ClaimReport]) -> Verification:
    """The verification of an answer, with the verifier's name."""
    return Verification(
        verdict=overall_verdict(reports),
        confidence=answer_confidence(reports),
        claims=tuple(claim_summary(report) for report in reports),
        verifiers=(name,),
    )


def claim_summary(report: ClaimReport) -> CheckedClaim:
    """Summary of a report."""
    return CheckedClaim(
        text=report.claim.text,
        verdict=report.verdict,
        confidence=report.confidence,
        evidence=report.evidence,
        note=verdict_note(report),
        start=report.claim.start,
        end=report.claim.end,
        probs=report.probs if report.label is not None else None,
        origins=tuple(origin.component for origin in report.internal if origin.weight > 0),
    )


def verdict_note(report: ClaimReport) -> str:
    """The reason for a verdict in a few words; empty where it needs none."""
    if report.program:
        return report.program
    note = {
        "no_evidence": "no evidence was found",
        "irrelevant": "the evidence is silent about it",
        "conflict": "the evidence contradicts itself",
        "unchecked": "the budget did not reach it",
        "verifier_failed": "it could not be judged",
    }.get(report.reason, "")
    if report.downgraded and report.label is not None:
        label = "supported" if report.label == "supports" else "refuted"
        return f"the evidence suggests that it is {label}, with too little confidence"
    return note
