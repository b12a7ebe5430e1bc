"""Scores of an entailment model on labelled claims: accuracy with its interval, macro F1, calibration, speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ....core.calibration_fit import ece
from ....core.errors import UserError
from ....core.messages import Frozen
from ....verify.types import NOTHING, Label, Pair, Support
from ...scoring import label_report
from ...statistics.intervals import t_interval, wilson
from .data import ClaimCase, EvidenceText, Splits, as_pair

PairJudge = Callable[[Sequence[Pair]], Sequence[Support | None]]

MAX_TEXTS: Final = 5
"""Texts that are shown for a claim of FEVER."""


@dataclass(frozen=True)
class ScoredClaim:
    """A claim with the texts that are shown for it.

    Attributes:
        claim: The claim.
        label: The right label.
        texts: The texts; the most decisive verdict counts.
        group: Claims of one group are not independent.
    """

    claim: str
    label: Label
    texts: tuple[EvidenceText, ...]
    group: str


class EntailmentScore(Frozen):
    """How a judge did on one set.

    Attributes:
        name: The set.
        labels: Two: neutral is no answer; or three.
        claims: Claims judged.
        pairs: Pairs judged for them.
        accuracy: Share of right labels.
        low: Lower end of its 95 % interval.
        high: Upper end.
        interval: How the interval was made.
        macro_f1: Mean F1 of the labels.
        ece: Expected calibration error of the label's probability, ten bins.
        always: Accuracy of always giving the most common label.
        pairs_per_s: Pairs judged a second.
    """

    name: str
    labels: int
    claims: int
    pairs: int
    accuracy: float
    low: float
    high: float
    interval: str
    macro_f1: float
    ece: float
    always: float
    pairs_per_s: float


def oracle_two(cases: Sequence[ClaimCase]) -> list[ScoredClaim]:
    """FEVER with the deciding texts, supported and refuted claims only."""
    return [_question(c, c.texts[:MAX_TEXTS]) for c in cases if c.source == "fever" and c.label != "neutral"]


def oracle_three(cases: Sequence[ClaimCase]) -> list[ScoredClaim]:
    """FEVER with deciding texts, filled up with what was retrieved, so that every claim has as many texts."""
    fever = [c for c in cases if c.source == "fever" and c.retrieved]
    return [_question(c, (*c.texts, *c.silent)[:MAX_TEXTS]) for c in fever]


def retrieval(cases: Sequence[ClaimCase]) -> list[ScoredClaim]:
    """FEVER with the texts of a plain retriever."""
    return [_question(c, c.retrieved[:MAX_TEXTS]) for c in cases if c.source == "fever" and c.retrieved]


def unseen_evidence(splits: Splits) -> list[ScoredClaim]:
    """FEVER's test claims with the deciding texts, if no deciding sentence belongs to a training claim."""
    known = {text.text for case in splits.train for text in case.gold}
    return oracle_two([c for c in splits.test if known and known.isdisjoint(text.text for text in c.gold)])


def single(cases: Sequence[ClaimCase], *sources: str) -> list[ScoredClaim]:
    """Cases that have one text each, of some datasets."""
    return [_question(c, c.texts[:1]) for c in cases if c.source in sources and c.texts]


def most_decisive(supports: Sequence[Support | None]) -> Support:
    """The most decisive verdict; neutral if there is none."""
    return max((s for s in supports if s is not None), key=lambda s: max(s.supports, s.refutes), default=NOTHING)


def judge_claims(judge: PairJudge, questions: Sequence[ScoredClaim]) -> tuple[list[Support], int, float]:
    """The verdicts of a judge on claims.

    Returns:
        Verdicts in order, pairs judged, and seconds that took.
    """
    pairs = [as_pair(text, q.claim) for q in questions for text in q.texts]
    began = time.perf_counter()
    values = judge(pairs)
    seconds = time.perf_counter() - began
    result, at = [], 0
    for q in questions:
        result.append(most_decisive(values[at : at + len(q.texts)]))
        at += len(q.texts)
    return result, len(pairs), seconds


def label_of(verdict: Support, *, labels: int = 3) -> tuple[Label, float]:
    """The label that a verdict gives, and its probability among the labels there are."""
    if labels == 2:
        decisive = verdict.supports + verdict.refutes
        share = verdict.supports / decisive if decisive else 0.5
        return ("supports", share) if share > 0.5 else ("refutes", 1 - share)
    return verdict.label, verdict.confidence


def score(name: str, judge: PairJudge, questions: Sequence[ScoredClaim], *, labels: int = 3) -> EntailmentScore:
    """Score a judge on one set.

    Raises:
        UserError: There are no questions.
    """
    if not questions:
        raise UserError(f"there is nothing to score {name} on", hint="give more claims, or keep more of them back")
    result, pairs, seconds = judge_claims(judge, questions)
    return score_verdicts(name, questions, result, pairs, seconds, labels=labels)


def score_verdicts(
    name: str,
    questions: Sequence[ScoredClaim],
    result: Sequence[Support],
    pairs: int,
    seconds: float,
    *,
    labels: int = 3,
) -> EntailmentScore:
    """Score verdicts (see `score`)."""
    provided = [label_of(v, labels=labels) for v in result]
    right = np.array([float(q.label == label) for q, (label, _) in zip(questions, provided, strict=True)])
    names = {group: i for i, group in enumerate(dict.fromkeys(q.group for q in questions))}
    clusters = np.array([names[q.group] for q in questions])
    between = t_interval(right, clusters) if len(names) < len(questions) else None
    between = between or wilson(int(right.sum()), len(right))
    requested = [q.label for q in questions]
    return EntailmentScore(
        name=name,
        labels=labels,
        claims=len(questions),
        pairs=pairs,
        accuracy=float(right.mean()),
        low=between.low,
        high=between.high,
        interval=between.method,
        macro_f1=label_report([(q, label) for q, (label, _) in zip(requested, provided, strict=True)]).macro_f1,
        ece=ece(np.array([min(1.0, c) for _, c in provided]), right),
        always=max(requested.count(label) for label in set(requested)) / len(requested),
        pairs_per_s=pairs / seconds if seconds else 0.0,
    )


_OWN_SETS: Final = frozenset({"fever", "sufficient_full"})


def score_all(judge: PairJudge, splits: Splits) -> list[EntailmentScore]:
    """Every score of the test claims."""
    test = splits.test
    sets: list[tuple[str, list[ScoredClaim], int]] = [
        ("fever, deciding text", oracle_two(test), 2),
        ("fever, deciding text never trained on", unseen_evidence(splits), 2),
        ("fever, the claim alone", [replace(q, texts=(EvidenceText("", ""),)) for q in oracle_two(test)], 2),
        ("fever, deciding text among five", oracle_three(test), 3),
        ("fever, five retrieved", retrieval(test), 3),
    ]
    for source in dict.fromkeys(case.source for case in test if case.source not in _OWN_SETS):
        questions = single(test, source)
        has_neutral = any(q.label == "neutral" for q in questions)
        sets.append((source, questions, 3 if has_neutral else 2))
        decisive = [q for q in questions if q.label != "neutral"]
        if has_neutral and decisive:
            sets.append((f"{source}, decisive alone", decisive, 2))
    results: list[EntailmentScore] = []
    known: dict[Pair, Support | None] = {}

    def once(pairs: Sequence[Pair]) -> list[Support | None]:
        """Sets share pairs."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        known.update(zip(new, judge(new), strict=True))
        return [known[pair] for pair in pairs]

    for name, questions, labels in sets:
        if not questions:
            continue
        before = len(known)
        values, pairs, seconds = judge_claims(once, questions)
        seconds *= pairs / max(1, len(known) - before)  # pairs that were known took no time
        results.append(score_verdicts(name, questions, values, pairs, seconds, labels=labels))
    return results


def _question(case: ClaimCase, texts: tuple[EvidenceText, ...]) -> ScoredClaim:
    return ScoredClaim(case.claim, case.label, texts, case.case or case.name)
