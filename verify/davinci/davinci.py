"""`davinci`: every claim of an answer is attributed, judged by evidence, and confirmed only where that is reliable.

Source: Rawte, Rossi, Dernoncourt, Lipka 2026, "Trust but Verify: Introducing DAVinCI, a Framework for Dual Attribution
and Verification in Claim Inference for Language Models", arXiv:2604.21193.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from ...core.concurrency import LONG_CHARS, off_loop
from ...core.errors import BackendError, BudgetExceeded
from ...core.events import ClaimChecked
from ...core.types import CheckedClaim, Document, Question, Solution, Verdict, Verification, least_support
from ...reasoning.answers.normalization import normalize_characters
from ...reasoning.arithmetic import CheckedLine, check_arithmetic
from ...reasoning.knowledge import Passage, Retriever, knowledge_of
from ...reasoning.retrieval.passages import document_passages
from ...reasoning.retrieval.retriever import HybridRetriever
from ...reasoning.strategy import Stability
from ..attribution import attribute_claims, samples_of, segments_of
from ..claims import question_text, split_claims, split_claims_by_model
from ..entailment.windows import WindowedEntailment
from ..fields import as_cited, field_report, readable, stated_by
from ..receipts import Receipt, action_report, find_receipts, use_passage, with_receipt
from ..spans import SpanRequest, span_at, span_by_words, spans_by_entailment, spans_by_quotation
from ..types import (
    Claim,
    ClaimReport,
    Entailment,
    InternalAttribution,
    Label,
    Pair,
    PairVerdict,
    Span,
    Support,
    as_evidence,
)
from ..verifier import AUTO, MODEL, ToolUse, VerifierContext
from .decision import ClaimDecision, DavinciConfig, DecisionRule, decision_rule_for, evidence_weights
from .features import compare, judged_pair, judged_passage

_LABELS: dict[Verdict, Label] = {"supported": "supports", "refuted": "refutes"}
_MAX_SPANS = 2
"""Passages that show a verdict: a second one corroborates the first, more of them are only long."""
_JUDGE = "judge"


class Davinci:
    """Attribution, then verification, claim by claim.

    Model calls: 1 to split the answer with `claims=model`; with the judge model as the judge 2 for each pair of claim
    and passage, and 1 for each quoted passage; none otherwise. Reward calls: the passes of the judge, one for each
    window of each pair.

    Differs: evidence is the premise and the claim the hypothesis, as classifiers of inference are trained, where the
    paper states the opposite order. A verdict is decided by a fitted model of the judge's probabilities and of what
    the passages contain of the claim, where the paper has a vote and a gate. Complete passages are judged and spans
    shown, as in its better ablation. Arithmetic is computed and needs no evidence.
    Of a run with tools, results are evidence: a field that states a claim decides it (`fields`), and a claim of an
    action needs the receipt of its call (`receipts`).
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
        return self.config.judge

    @property
    def roles(self) -> tuple[str, ...]:
        """See `Verifier`."""
        needs_judge = self.config.judge in (AUTO, MODEL) or self.config.claims == "model"
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
        text = "" if solution.best is None else solution.best.text
        claims = await self.split(text, question, context)
        reports = await self.examine(claims, question, solution, context)
        for number, report in enumerate(reports):
            context.run.emit(ClaimChecked(index=number, report=report.model_dump(mode="json")))
        return reports

    async def split(self, text: str, question: Question, context: VerifierContext) -> list[Claim]:
        """The claims of an answer to the question, in its order; none of a blank text.

        Raises:
            ReasonError: The model that splits failed.
        """
        config = self.config
        if not text.strip():
            return []
        if config.claims == "rules":
            return await off_loop(
                lambda: split_claims(text, question_text(question), config.max_claims), is_long=len(text) > LONG_CHARS
            )
        seed = context.run.derive_seed("davinci", "claims")
        split = await split_claims_by_model(
            text, question_text(question), context.models.judge, max_claims=config.max_claims, seed=seed
        )
        if split.degraded:
            context.run.degrade(f"davinci: {split.degraded}")
        return list(split.claims)

    async def examine(
        self, claims: Sequence[Claim], question: Question, solution: Solution, context: VerifierContext
    ) -> list[ClaimReport]:
        """The record of each claim, in their order, in which a limited budget is spent; without events.

        Raises:
            ReasonError: Nothing could be verified.
        """
        if not claims:
            return []
        drafts = [check_claim_arithmetic(claim) for claim in claims]
        uses = context.tool_uses or ()
        if context.tool_uses is not None:
            await self._check_actions(claims, drafts, uses, context)
        is_long = sum(len(use.result) for use in uses) > LONG_CHARS
        open_claims = [i for i, draft in enumerate(drafts) if draft is None] if uses else []
        stated = await off_loop(lambda: stated_by([claims[i].text for i in open_claims], uses), is_long=is_long)
        for i, one in zip(open_claims, stated, strict=True):
            drafts[i] = None if one is None else field_report(claims[i], one)
        unchecked_indices = [i for i, draft in enumerate(drafts) if draft is None]
        unchecked_claims = [claims[i] for i in unchecked_indices]
        passages = await self._passages(unchecked_claims, question, context)
        for i, report in zip(unchecked_indices, await self.check(unchecked_claims, passages, context), strict=True):
            drafts[i] = report
        by_source = {use.source: use for use in uses if use.ok}
        reports = [_cited(draft, by_source) for draft in drafts if draft is not None]
        unchecked = sum(report.reason == "unchecked" for report in reports)
        if unchecked:
            context.run.degrade(
                f"{self.name}: the budget was exhausted before {unchecked} of {len(reports)} claims were checked"
            )
        entailment = WindowedEntailment(context.entailment)
        origins = await self._origins(claims, question, solution, context, entailment)
        return [
            report.model_copy(update={"internal": internal}) for report, internal in zip(reports, origins, strict=True)
        ]

    async def check(
        self, claims: Sequence[Claim], passages: Sequence[Sequence[Passage]], context: VerifierContext
    ) -> list[ClaimReport]:
        """Stage V: judge claims by their passages, without attribution."""
        entailment = WindowedEntailment(context.entailment)
        rule = decision_rule_for(self.config, context.entailment.identity)
        examined = await self._judged(claims, passages, entailment)
        decisions = await off_loop(
            lambda: [self._decide(evidence, rule) for evidence in examined], is_long=_is_long(passages)
        )
        spans = await self._spans(examined, decisions, entailment, context)
        calibrator = "" if rule.model is None else rule.model.digest
        return [
            self._report(evidence, decision, own, calibrator, entailment)
            for evidence, decision, own in zip(examined, decisions, spans, strict=True)
        ]

    async def _check_actions(
        self,
        claims: Sequence[Claim],
        drafts: list[ClaimReport | None],
        uses: Sequence[ToolUse],
        context: VerifierContext,
    ) -> None:
        """Add the reports on claims of actions, of which the judge decides those that name their calls unclearly."""
        unclear: dict[int, Receipt] = {}
        texts = [claim.text for claim in claims]
        is_long = sum(len(use.result) for use in uses) > LONG_CHARS
        receipts = await off_loop(lambda: find_receipts(texts, uses), is_long=is_long)
        for i, (claim, receipt) in enumerate(zip(claims, receipts, strict=True)):
            if receipt is None or drafts[i] is not None:
                continue
            if receipt.state != "unclear":
                drafts[i] = action_report(claim, receipt)
            else:
                unclear[i] = receipt
        passages = [[use_passage(use) for use in receipt.uses[-self.config.k :]] for receipt in unclear.values()]
        reports = await self.check([claims[i] for i in unclear], passages, context) if unclear else []
        for (i, receipt), report in zip(unclear.items(), reports, strict=True):
            drafts[i] = with_receipt(report, receipt) if self.config.judge == MODEL else report

    # -- stage A: evidence and origin

    async def _passages(
        self, claims: Sequence[Claim], question: Question, context: VerifierContext
    ) -> list[list[Passage]]:
        """Passages for each claim, best first: of tool results, the question's documents and the run's evidence."""
        texts, k = [claim.text for claim in claims], self.config.k
        results: list[list[Passage]] = [[] for _ in claims]
        uses = [use for use in context.tool_uses or () if use.ok and use.result.strip()]
        is_long = sum(len(use.result) for use in uses) > LONG_CHARS
        shown = await off_loop(lambda: {use.source: readable(use) for use in uses}, is_long=is_long)
        given = (*(Document(name=source, text=text) for source, text in shown.items()), *question.documents)
        is_long = sum(len(document.text) for document in given) > LONG_CHARS
        documents = await off_loop(lambda: document_passages(given), is_long=is_long)
        retrievers: list[Retriever] = [] if context.retriever is None else [context.retriever]
        if documents:
            embedding = knowledge_of(context.models).embedding
            retrievers.insert(0, await HybridRetriever.build(documents, embedding, name="documents"))
        for retriever in retrievers if texts else []:
            for own, retrieved in zip(results, await retriever.retrieve(texts, k), strict=True):
                own.extend(retrieved)
        return [fill_up(sorted(own, key=lambda p: -p.score), documents, k) for own in results]

    async def _origins(
        self,
        claims: Sequence[Claim],
        question: Question,
        solution: Solution,
        context: VerifierContext,
        entailment: Entailment,
    ) -> list[tuple[InternalAttribution, ...]]:
        segments = await off_loop(lambda: segments_of(question, solution), is_long=_num_chars(question) > LONG_CHARS)
        # with a single sample, agreement would only compare it with itself
        is_single = len(samples_of(segments)) < 2
        levels = [level for level in self.config.internal if level != "agreement" or not is_single]
        return await attribute_claims(
            claims,
            segments,
            entailment=entailment,
            model=context.models.main if context.models.has("main") else None,
            levels=levels,
            seed=context.run.derive_seed("davinci", "origins"),
        )

    # -- stage V: verification

    async def _judged(
        self, claims: Sequence[Claim], passages: Sequence[Sequence[Passage]], entailment: WindowedEntailment
    ) -> list[_ClaimEvidence]:
        """Claims with the verdict of each passage: all pairs in one call, or separately where that fails."""
        examined = [_ClaimEvidence(claim, tuple(own)) for claim, own in zip(claims, passages, strict=True)]
        pairs = await off_loop(
            lambda: [[judged_pair(one.claim.text, passage) for passage in one.passages] for one in examined],
            is_long=_is_long(passages),
        )
        try:
            verdicts = iter(await entailment.judge([pair for own in pairs for pair in own]))
        except (BudgetExceeded, BackendError):
            return await _judge_separately(examined, pairs, entailment)
        return [
            replace(evidence, verdicts=tuple(next(verdicts) for _ in own))
            for evidence, own in zip(examined, pairs, strict=True)
        ]

    def _decide(self, evidence: _ClaimEvidence, rule: DecisionRule) -> ClaimDecision | None:
        """None where the budget did not reach the claim."""
        if evidence.verdicts is None:
            return None
        return rule.decide(evidence.claim.text, evidence.passages, evidence.verdicts)

    async def _spans(
        self,
        examined: Sequence[_ClaimEvidence],
        decisions: Sequence[ClaimDecision | None],
        entailment: WindowedEntailment,
        context: VerifierContext,
    ) -> list[dict[int, Span]]:
        """The span of each shown passage, by the passage's position, for each claim.

        Those of decisive verdicts are requested in one call. Two passages of which none is decisive by itself, and the
        closest one of an undecided claim, show their sentence with the most of the claim.
        """
        requests: list[SpanRequest] = []
        positions: list[tuple[int, int]] = []
        by_claim: list[dict[int, Span]] = [{} for _ in examined]
        for number, (evidence, decision) in enumerate(zip(examined, decisions, strict=True)):
            if decision is None:
                continue
            claim = evidence.claim.text
            for order, position in enumerate(decision.shown[:_MAX_SPANS]):
                passage = evidence.passages[position]
                label = _LABELS.get(decision.verdict)
                if decision.verdict == "disputed":
                    label = "supports" if order == 0 else "refutes"
                if label is None or decision.is_joint:
                    by_claim[number][position] = span_at(passage, *compare(claim, passage).nearest)
                else:
                    requests.append(SpanRequest(judged_passage(passage), judged_pair(claim, passage).claim, label))
                    positions.append((number, position))
        try:
            if self.config.judge == MODEL:
                spans = await spans_by_quotation(requests, context.models.judge)
            else:
                spans = await spans_by_entailment(requests, entailment)
        except (BudgetExceeded, BackendError):  # the verdict holds; its sentence is selected by words
            spans = [span_by_words(request.passage, request.claim) for request in requests]
        for (number, position), requested in zip(positions, spans, strict=True):
            by_claim[number][position] = _span_of(examined[number].passages[position], requested)
        # the clearest passage first
        return [
            {i: own[i] for i in decision.shown if i in own} if decision is not None else {}
            for own, decision in zip(by_claim, decisions, strict=True)
        ]

    def _report(
        self,
        evidence: _ClaimEvidence,
        decision: ClaimDecision | None,
        spans: dict[int, Span],
        calibrator: str,
        entailment: Entailment,
    ) -> ClaimReport:
        report = partial(ClaimReport, claim=evidence.claim, passages=evidence.passages, backend=entailment.identity)
        if decision is None:
            return report(verdict="unchecked", reason="unchecked", note="the budget did not reach it")
        verdicts = evidence.verdicts or ()
        scores, credibility = [p.score for p in evidence.passages], [p.credibility for p in evidence.passages]
        weights = evidence_weights(scores, credibility)
        pairs = tuple(
            PairVerdict(passage=p.id, probs=v, span=spans.get(i), weight=w)
            for i, (p, v, w) in enumerate(zip(evidence.passages, verdicts, weights, strict=False))
        )
        has_failed = bool(verdicts) and all(v is None for v in verdicts)
        warnings = [
            *(() if decision.is_fitted else ("unfitted",)),
            *(() if evidence.passages else ("no_evidence",)),
        ]
        if evidence.failed or has_failed:
            warnings.append("verifier_failed" if has_failed else "passage_left_out")
        if has_failed:
            return report(
                verdict="not_enough_evidence" if evidence.failed else "unparsed",
                pairs=pairs,
                reason="verifier_failed",
                note="it could not be judged",
                warnings=tuple(warnings),
            )
        return report(
            verdict=decision.verdict,
            label=None if decision.reason == "no_evidence" else decision.label,
            probs=decision.probs,
            confidence=_confidence(decision),
            downgraded=decision.lean is not None,
            threshold=decision.threshold,
            pairs=pairs,
            evidence=tuple(as_evidence(span, evidence.passages[position]) for position, span in spans.items()),
            conflict=decision.conflict,
            reason=decision.reason,
            note=decision.note,
            features=decision.features,
            calibrator=calibrator,
            warnings=tuple(warnings),
        )


def _is_long(passages: Sequence[Sequence[Passage]]) -> bool:
    """Whether to read the quantities in the passages is long work; it takes ten times as long as to split them."""
    return sum(len(passage.text) for own in passages for passage in own) > LONG_CHARS // 10


def fill_up(retrieved: Sequence[Passage], passages: Sequence[Passage], k: int) -> list[Passage]:
    """The first k retrieved passages; where fewer were, the others of a document follow in its order, with score 0.

    A claim may share no word with the passage that decides it ("You can't get your wine paid for", "Alcohol is not
    reimbursed"), and a document of few passages can be read completely.
    """
    known = {passage.id for passage in retrieved}
    others = [passage.model_copy(update={"score": 0.0}) for passage in passages if passage.id not in known]
    return [*retrieved, *others][:k]


def _cited(report: ClaimReport, uses: Mapping[str, ToolUse]) -> ClaimReport:
    """A report whose evidence from statements is the result that they were made from."""
    if report.reason == "program" or not any(one.source in uses for one in report.evidence):
        return report
    cited = (as_cited(one, uses[one.source]) if one.source in uses else one for one in report.evidence)
    return report.model_copy(update={"evidence": tuple(cited)})


def _num_chars(question: Question) -> int:
    return sum(len(document.text) for document in question.documents)


def _confidence(decision: ClaimDecision) -> float | None:
    """The probability that a verdict is right, or that the label it leans to is; None where there is no such number."""
    if decision.reason == "no_evidence" or decision.verdict == "disputed":
        return None
    label = decision.lean or ("neutral" if decision.verdict == "not_enough_evidence" else decision.label)
    return min(float(getattr(decision.probs, label)), 1.0)


def _span_of(passage: Passage, span: Span | None) -> Span:
    """A span of the judged passage in the original one, whose text has the same positions; the whole text for None."""
    if span is None:
        return span_at(passage, 0, len(passage.text))
    return span_at(passage, span.start, span.end, span.score)


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
    verdicts: tuple[Support | None, ...] | None = None
    failed: bool = False


async def _judge_separately(
    examined: Sequence[_ClaimEvidence], pairs: Sequence[Sequence[Pair]], entailment: WindowedEntailment
) -> list[_ClaimEvidence]:
    """Claim by claim until the budget is exhausted; where a call fails pair by pair, without the pairs that fail.

    Claims that the budget did not reach stay unchecked, unless they need no pass.
    """
    judged = list(examined)
    is_exhausted = False
    for number, own in enumerate(pairs):
        if is_exhausted and own:
            continue
        failed = False
        try:
            try:
                verdicts = await entailment.judge(own)
            except BackendError:
                verdicts, failed = await _judge_pairs(own, entailment)
        except BudgetExceeded:
            is_exhausted = True
        else:
            judged[number] = replace(examined[number], verdicts=tuple(verdicts), failed=failed)
    return judged


async def _judge_pairs(pairs: Sequence[Pair], entailment: WindowedEntailment) -> tuple[list[Support | None], bool]:
    """The verdict of each pair, and whether a call failed."""
    verdicts: list[Support | None] = []
    failed = False
    for pair in pairs:
        try:
            verdicts += await entailment.judge([pair])
        except BackendError:
            failed = True
            verdicts.append(None)
    return verdicts, failed


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


def make_verification(name: str, reports: Sequence[ClaimReport]) -> Verification:
    """The verification of an answer, with the verifier's name.

    Its support is that of the least supported claim; no number of claims is the probability that the answer is right.
    """
    claims = tuple(claim_summary(report) for report in reports)
    return Verification(
        verdict=overall_verdict(reports),
        support=least_support(claims),
        claims=claims,
        verifiers=(name,),
    )


def claim_summary(report: ClaimReport) -> CheckedClaim:
    """Summary of a report."""
    return CheckedClaim(
        text=report.claim.text,
        verdict=report.verdict,
        confidence=report.confidence,
        lean=None if not report.downgraded else "supported" if report.label == "supports" else "refuted",
        needed=min(report.threshold, 1.0) if report.downgraded else None,
        evidence=report.evidence,
        note=report.program or report.note,
        start=report.claim.start,
        end=report.claim.end,
        probs=report.probs if report.label is not None else None,
        origins=tuple(origin.component for origin in report.internal if origin.weight > 0),
        agreement=report.agreement,
    )


# -- claims of arithmetic

_MAX_STATEMENT_CHARS = 2000
"""A longer claim is not a single statement."""
_REPORTED = re.compile(
    r"\b(?:not|no|never|if|suppos\w+|would|could|might|may|said|says?|claim\w*|believ\w+|thought|false|wrong|incorrect"
    r"|error|instead|base|binary|octal|hex|mod|modulo|clock)\b|n['\u2019]t\b|[0-9]-[0-9]|[?\"\u201c\u201e\u00ab]",
    re.IGNORECASE,
)
"""What negates, supposes or quotes arithmetic, is about another one, or is a range."""
_NUMBER = r"(?:[$\u20ac\u00a3]?[0-9][0-9,.]*%?)"
_SYMBOLS = tuple(
    (re.compile(pattern, re.IGNORECASE), symbol)
    for pattern, symbol in (
        (rf"(?<=[0-9])\s?(?:%|percent|per cent) of (?={_NUMBER})", "% * "),
        (rf"(?<=[0-9%]) plus (?={_NUMBER})", " + "),
        (rf"(?<=[0-9%]) minus (?={_NUMBER})", " - "),
        (rf"(?<=[0-9%]) (?:times|multiplied by) (?={_NUMBER})", " * "),
        (rf"(?<=[0-9%]) divided by (?={_NUMBER})", " / "),
        (rf"(?<=[0-9%]) (?:is equal to|equals|is|makes|gives) (?:exactly )?(?={_NUMBER})", " = "),
    )
)
_TIMES = re.compile(r"(?<!\b0)(?<=[0-9)])\s?x\s?(?=[$(0-9])", re.IGNORECASE)
"""The letter x between numbers, in an equation: "a 4x4 is 2000 kg" has none."""
_OPERATOR = re.compile(r"[0-9)%]\s*[-+*/\u00d7\u00f7\u00b7\u2212]\s*[$(0-9]|\\frac|\\times|\\cdot|\\div")
_SIGN = re.compile(r"=|\u2248|\\approx")
_WORD = re.compile(r"[^\W\d_]{2,}")


def check_claim_arithmetic(claim: Claim) -> ClaimReport | None:
    """The report on a claim with a wrong equality, or one that is only right equalities; None of any other claim.

    Such claims need no evidence: "3 * 18 = 54", "15% of 80 is 12", "12 plus 30 equals 42".

    A right equality in a claim that states something else shows nothing about the rest. What is negated, supposed or
    quoted is not checked.
    """
    text = normalize_characters(claim.text)
    if len(text) > _MAX_STATEMENT_CHARS or _REPORTED.search(text):
        return None
    if "=" in text:
        text = _TIMES.sub(" * ", text)
    for pattern, symbol in _SYMBOLS:
        text = pattern.sub(symbol, text)
    if _OPERATOR.search(text) is None:
        return None
    lines = check_arithmetic(text).lines
    wrong = next((line for line in lines if _is_wrong(line)), None)
    if wrong is not None:
        shown = f"{wrong.text} is wrong: {_written(wrong)}"
        return ClaimReport.by_program(claim, holds=False, shown=shown, result=shown, backend="program")
    if not lines or len(lines) != len(_SIGN.findall(text)):
        return None
    if _WORD.search(text) or any(line.verdict != "right" for line in lines):
        return None
    shown = "; ".join(line.text for line in lines)
    return ClaimReport.by_program(claim, holds=True, shown=shown, result=shown, backend="program")


def _is_wrong(line: CheckedLine) -> bool:
    """Whether an equality is wrong by more than the rounding of one side to an integer."""
    are_integers = line.left.denominator == line.right.denominator == 1
    return line.verdict == "wrong" and (are_integers or 2 * abs(line.left - line.right) > 1)


def _written(line: CheckedLine) -> str:
    left = line.left
    return str(left) if left.denominator == 1 else f"{float(left):.6g}"
