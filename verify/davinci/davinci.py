"""`davinci`: each claim of an answer is attributed, judged by evidence, and stood by only where that is sure enough.

Source: Rawte, Rossi, Dernoncourt, Lipka 2026, "Trust but Verify: Introducing DAVinCI, a Framework for Dual Attribution
and Verification in Claim Inference for Language Models", arXiv:2604.21193.

The parameters of `davinci`.

What the reports on its claims say of a whole answer.
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
from ..spans import SpanRequest, span_by_words, spans_by_entailment
from ..types import Claim, ClaimReport, InternalAttribution, Label, PairVerdict, Span, Support, as_evidence
from ..verifier import VerifierContext
from .config import DavinciConfig
from .decision import Decision, DecisionRule, decision_rule_for, evidence_weights

_CHECKED: tuple[Verdict, ...] = ("supported", "refuted", "disputed", "not_enough_evidence")


def overall_verdict(reports: Sequence[ClaimReport]) -> Verdict:
    """The verdict on an answer: refuted if a claim of it is; supported if all are; else what is missing.

    Nothing that was not looked at counts as supported: with a claim left unchecked or unread the answer is so, unless
    another is refuted.
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
    """The probability that the answer holds: that of its weakest claim; None if no claim was checked.

    All claims have to hold, so it is at most the least of theirs; their product would take them to be independent,
    which claims of one answer on one topic are not.
    """
    checked = [report.probs[0] for report in reports if report.verdict in _CHECKED]
    return min(checked) if checked else None


def make_verification(name: str, reports: Sequence[ClaimReport]) -> Verification:
    """The record that goes with an answer."""
    return Verification(
        verdict=overall_verdict(reports),
        confidence=answer_confidence(reports),
        claims=tuple(claim_summary(report) for report in reports),
        verifiers=(name,),
    )


def claim_summary(report: ClaimReport) -> CheckedClaim:
    """A report in short."""
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
    """Why the verdict is what it is, in a few words; empty where it needs none."""
    if report.program:
        return report.program
    said = {
        "no_evidence": "nothing was found to check it against",
        "irrelevant": "what was found does not speak of it",
        "conflict": "the evidence contradicts itself",
        "unchecked": "the budget did not reach it",
        "verifier_failed": "it could not be judged",
    }.get(report.reason, "")
    if report.downgraded and report.label is not None:
        leaning = "it is supported" if report.label == "supports" else "it is refuted"
        return f"the evidence leans towards saying that {leaning}, not surely enough"
    return said


_LABELS: dict[Verdict, Label | None] = {"supported": "supports", "refuted": "refutes", "disputed": None}


class Davinci:
    """Attribution, then verification, claim by claim.

    Model calls: 1 to cut the answer with `claims=model`; with the judge model as the entailment 2 for each pair of
    claim and passage; none otherwise. Reward calls: the entailment's passes, one for each window of each pair.

    Differs: evidence is the premise and the claim the hypothesis, as classifiers of inference are trained, where the
    paper states the order the other way round. Several passages are combined by tempered factors, and probabilities are
    calibrated before the gate, where the paper has the gate alone. Whole passages are judged and spans shown, as in its
    better ablation. Claims that a program can work out are, without evidence.
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
        judges = self.config.entailment == "judge" or self.config.claims == "model"
        looks_inside = not {"context", "whitebox"}.isdisjoint(self.config.internal)
        return (*(("judge",) if judges else ()), *(("main",) if looks_inside else ()))

    async def verify(self, question: Question, solution: Solution, means: VerifierContext) -> Verification:
        """See `Verifier.verify`."""
        return make_verification(self.name, await self.reports(question, solution, means))

    async def reports(self, question: Question, solution: Solution, means: VerifierContext) -> list[ClaimReport]:
        """The whole record of each claim, in order of the answer; none if there is no answer.

        Raises:
            ReasonError: Nothing could be verified at all.
        """
        reports = await self.examined(question, solution, means)
        for number, report in enumerate(reports):
            means.run.emit(ClaimChecked(index=number, report=report.model_dump(mode="json")))
        return reports

    async def examined(self, question: Question, solution: Solution, means: VerifierContext) -> list[ClaimReport]:
        """The same, not yet told to the run's listeners: for a verifier that has more to say of each claim.

        Raises:
            ReasonError: Nothing could be verified at all.
        """
        text = "" if solution.best is None else solution.best.text
        claims = await self._claims(text, question, means) if text.strip() else []
        if not claims:
            return []
        entailment = WindowedEntailment(means.entailment)
        deciding = decision_rule_for(self.config, means.entailment.identity)
        drafts = [self._by_program(claim) for claim in claims]
        open_ = [i for i, draft in enumerate(drafts) if draft is None]
        found = await self._passages([claims[i] for i in open_], question, means)
        checked = await self._check([claims[i] for i in open_], found, entailment, deciding)
        for i, report in zip(open_, checked, strict=True):
            drafts[i] = report
        origins = await self._origins(claims, question, solution, means, entailment)
        reports = []
        for draft, internal in zip(drafts, origins, strict=True):
            if draft is not None:
                reports.append(draft.model_copy(update={"internal": internal}))
        missed = sum(report.reason == "unchecked" for report in reports)
        if missed:
            means.run.degrade(f"{self.name}: the budget ended before {missed} of {len(reports)} claims were checked")
        return reports

    # -- stage 0: claims

    async def _claims(self, text: str, question: Question, means: VerifierContext) -> list[Claim]:
        config = self.config
        if config.claims == "rules":
            return split_claims(text, question.text, config.max_claims)
        seed = means.run.derive_seed("davinci", "claims")
        split = await split_claims_by_model(text, question.text, means.models.judge, most=config.max_claims, seed=seed)
        if split.degraded:
            means.run.degrade(f"davinci: {split.degraded}")
        return list(split.claims)

    def _by_program(self, claim: Claim) -> ClaimReport | None:
        """What a program can settle: a part that is wrong, or a claim that says nothing but what was worked out."""
        worked = check_claim(claim.text) if self.config.programs else None
        if worked is None or (worked.holds and not worked.whole):
            return None
        evidence = Evidence(source="program", text=worked.detail)
        probs = Support(1.0, 0.0, 0.0) if worked.holds else Support(0.0, 1.0, 0.0)
        return ClaimReport(
            claim=claim,
            verdict="supported" if worked.holds else "refuted",
            label=probs.label,
            probs=probs,
            confidence=1.0,
            evidence=(evidence,),
            reason="program",
            program=worked.detail,
            backend="program",
        )

    # -- stage A: evidence and origin

    async def _passages(
        self, claims: Sequence[Claim], question: Question, means: VerifierContext
    ) -> list[list[Passage]]:
        """Passages for each claim, best first: of the question's documents, and of where the run was told to look."""
        texts, k = [claim.text for claim in claims], self.config.k
        sources: list[Retriever] = [] if means.retriever is None else [means.retriever]
        given = document_passages(question.documents)
        if given:
            sources.insert(0, await HybridRetriever.build(given, means.models.knowledge.embedding, name="documents"))
        found: list[list[Passage]] = [[] for _ in claims]
        for source in sources if texts else []:
            for mine, more in zip(found, await source.retrieve(texts, k), strict=True):
                mine.extend(more)
        return [sorted(passages, key=lambda p: -p.score)[:k] for passages in found]

    async def _origins(
        self,
        claims: Sequence[Claim],
        question: Question,
        solution: Solution,
        means: VerifierContext,
        entailment: Entailment,
    ) -> list[tuple[InternalAttribution, ...]]:
        segments = segments_of(question, solution)
        samples = samples_of(segments)
        # a single attempt agrees with itself, and that is not worth a pass
        levels = [level for level in self.config.internal if level != "agreement" or len(samples) > 1]
        return await attribute_claims(
            claims,
            segments,
            samples=samples,
            entailment=entailment,
            model=means.models.main if means.models.has("main") else None,
            levels=levels,
            seed=means.run.derive_seed("davinci", "origins"),
        )

    # -- stage V: verification

    async def _check(
        self,
        claims: Sequence[Claim],
        found: Sequence[Sequence[Passage]],
        entailment: WindowedEntailment,
        deciding: DecisionRule,
    ) -> list[ClaimReport]:
        looked = [_Looked(claim, tuple(passages)) for claim, passages in zip(claims, found, strict=True)]
        looked = await self._judged(looked, entailment)
        decided = [self._decided(one, deciding) for one in looked]
        return await self._with_spans(looked, decided, deciding, entailment)

    async def _judged(self, looked: Sequence[_Looked], entailment: WindowedEntailment) -> list[_Looked]:
        """What each passage says of its claim: all pairs in one call, or pair by pair where that fails."""
        asked = [self._pairs(one) for one in looked]
        try:
            flat = await entailment.judge_windows([pair for pairs in asked for pair in pairs])
        except BudgetExceeded:
            return await _as_far_as_it_goes(looked, asked, entailment)
        except BackendError:
            return await _one_by_one(looked, asked, entailment)
        verdicts = iter(flat)
        return [
            replace(one, judged=tuple(next(verdicts) for _ in pairs)) for one, pairs in zip(looked, asked, strict=True)
        ]

    def _pairs(self, one: _Looked) -> list[Pair]:
        """What is asked of a claim: each passage, or all of them as one text, best first."""
        if self.config.aggregation == "concat" and one.passages:
            together = " ".join(f"{p.title}: {p.text}" if p.title else p.text for p in one.passages)
            return [Pair(together, one.claim.text)]
        if self.config.evidence_form == "span":
            best = [span_by_words(p, one.claim.text) for p in one.passages]
            return [
                Pair(p.text if span is None else span.text, one.claim.text, p.title)
                for p, span in zip(one.passages, best, strict=True)
            ]
        return [Pair(p.text, one.claim.text, p.title) for p in one.passages]

    def _decided(self, one: _Looked, deciding: DecisionRule) -> Decision | None:
        """None where the budget did not reach the claim."""
        if one.judged is None:
            return None
        supports = [judged.support for judged in one.judged]
        if self.config.aggregation == "concat":
            return deciding.decide_whole(supports[0] if supports else None)
        return deciding.decide(one.passages, supports)

    async def _with_spans(
        self,
        looked: Sequence[_Looked],
        decided: Sequence[Decision | None],
        deciding: DecisionRule,
        entailment: WindowedEntailment,
    ) -> list[ClaimReport]:
        """The reports: every decisive verdict with the span that shows it, all of them looked for in one call."""
        wanted: list[SpanRequest] = []
        places: list[tuple[int, int]] = []
        for number, (one, decision) in enumerate(zip(looked, decided, strict=True)):
            if decision is None or decision.verdict not in _LABELS:
                continue
            for place in self._deciders(one, decision):
                wanted.append(SpanRequest(one.passages[place], one.claim.text, _LABELS[decision.verdict]))
                places.append((number, place))
        try:
            selected = await spans_by_entailment(wanted, entailment)
            spans = [s.span for s in selected]
        except (BudgetExceeded, BackendError):  # the verdict stands; its sentence is found by words
            spans = [span_by_words(w.passage, w.claim) for w in wanted]
        shown: dict[int, dict[int, Span]] = {}
        for (number, place), span, want in zip(places, spans, wanted, strict=True):
            shown.setdefault(number, {})[place] = span or _whole(want.passage)
        return [
            self._report(one, decision, shown.get(number, {}), deciding, entailment)
            for number, (one, decision) in enumerate(zip(looked, decided, strict=True))
        ]

    def _deciders(self, one: _Looked, decision: Decision) -> list[int]:
        """Places of the passages that speak for the verdict, the clearest first; of a dispute one for each side."""
        judged = one.judged or ()
        if self.config.aggregation == "concat":
            return list(range(len(one.passages)))
        read = [(i, j.support) for i, j in enumerate(judged) if j.support is not None]
        best = {
            side: max(read, key=lambda found: getattr(found[1], side))[0] for side in ("supports", "refutes") if read
        }
        if decision.verdict == "disputed":
            return list(dict.fromkeys(best.values()))
        label = _LABELS[decision.verdict] or "supports"
        agreeing = sorted((-getattr(s, label), i) for i, s in read if s.label == label)
        return [i for _, i in agreeing[:3]] or [best[label]]

    def _report(
        self,
        one: _Looked,
        decision: Decision | None,
        spans: dict[int, Span],
        deciding: DecisionRule,
        entailment: Entailment,
    ) -> ClaimReport:
        about = {"claim": one.claim, "passages": one.passages, "backend": entailment.identity}
        if decision is None:
            return ClaimReport(**about, verdict="unchecked", reason="unchecked", threshold=deciding.least_confidence)
        judged = one.judged or ()
        weights = evidence_weights(
            [p.score for p in one.passages], [p.credibility for p in one.passages], self.config.tau
        )
        each = () if self.config.aggregation == "concat" else judged  # one verdict on all of them is no passage's own
        pairs = tuple(
            PairVerdict(passage=p.id, probs=j.support, span=spans.get(i), weight=w)
            for i, (p, j, w) in enumerate(zip(one.passages, each, weights, strict=False))
        )
        failed = bool(judged) and all(j.support is None for j in judged)
        verdict: Verdict = decision.verdict
        if failed:
            verdict = "unparsed" if not one.failed else "not_enough_evidence"
        warnings = [*decision.warnings, *(() if one.passages else ("no_evidence",))]
        if one.failed or failed:
            warnings.append("verifier_failed" if failed else "passage_left_out")
        return ClaimReport(
            **about,
            verdict=verdict,
            label=None if failed else decision.label,
            probs=decision.probs,
            confidence=0.0 if failed else decision.confidence,
            downgraded=decision.downgraded,
            threshold=decision.threshold,
            pairs=pairs,
            evidence=tuple(as_evidence(span, one.passages[place]) for place, span in spans.items()),
            conflict=decision.conflict,
            reason="verifier_failed" if failed else decision.reason,
            calibrator="" if deciding.calibration is None else deciding.calibration.digest,
            warnings=tuple(warnings),
        )


@dataclass(frozen=True)
class _Looked:
    """A claim and what was looked at for it.

    Attributes:
        judged: What each pair says; None where the budget did not reach the claim.
        failed: Whether a call about it failed.
    """

    claim: Claim
    passages: tuple[Passage, ...]
    judged: tuple[WindowVerdict, ...] | None = None
    failed: bool = False


async def _as_far_as_it_goes(
    looked: Sequence[_Looked], asked: Sequence[Sequence[Pair]], entailment: WindowedEntailment
) -> list[_Looked]:
    """Claim by claim, in order, until the budget is spent; the rest stays unchecked, but for what needs no pass."""
    found = list(looked)
    spent = False
    for number, pairs in enumerate(asked):
        if spent and pairs:
            continue
        try:
            found[number] = replace(looked[number], judged=tuple(await entailment.judge_windows(pairs)))
        except BudgetExceeded:
            spent = True
    return found


async def _one_by_one(
    looked: Sequence[_Looked], asked: Sequence[Sequence[Pair]], entailment: WindowedEntailment
) -> list[_Looked]:
    """Pair by pair: one that fails is left out, and said to be."""
    found = []
    for one, pairs in zip(looked, asked, strict=True):
        judged: list[WindowVerdict] = []
        failed = False
        for pair in pairs:
            try:
                judged += await entailment.judge_windows([pair])
            except BudgetExceeded:
                break
            except BackendError:
                failed = True
                judged.append(WindowVerdict(None, 0, len(pair.evidence)))
        whole = len(judged) == len(pairs)
        found.append(replace(one, judged=tuple(judged) if whole else None, failed=failed))
    return found


def _whole(passage: Passage) -> Span:
    return Span(passage=passage.id, start=0, end=len(passage.text), text=passage.text)


async def check_claims(
    claims: Sequence[str], retriever: Retriever | None, means: VerifierContext, config: DavinciConfig
) -> list[ClaimReport]:
    """Bare claims, without an answer that they come from: what evaluations ask.

    Args:
        claims: The claims.
        retriever: Finds their evidence; None leaves them without.
        means: What is worked with; its own retriever is not asked.
        config: Parameters.
    """
    verifier = Davinci(config)
    stated = [Claim(text=text, start=0, end=len(text)) for text in claims]
    found = [[] for _ in claims] if retriever is None else await retriever.retrieve(claims, config.k)
    entailment = WindowedEntailment(means.entailment)
    return await verifier._check(stated, found, entailment, decision_rule_for(config, means.entailment.identity))
