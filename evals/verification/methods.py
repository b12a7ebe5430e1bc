"""What is said of judged claims: by the shipped decision, by the judge alone, and by a refit without a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ...core.types import Verdict
from ...verify.davinci.decision import DecisionRule
from ...verify.davinci.features import claim_features
from ...verify.davinci.verdict_model import VerdictExample, fit_verdict_model
from ...verify.metrics import LABELS, GoldLabel
from ...verify.types import NOTHING, Support, support
from .judging import JudgedClaim

GOLDS: Final[dict[Verdict, GoldLabel]] = {
    "supported": "supports",
    "refuted": "refutes",
    "not_enough_evidence": "neutral",
    "disputed": "disputed",
}


class ClaimVerdict(NamedTuple):
    """What a method states about a claim.

    Attributes:
        label: The label.
        probs: Its probabilities; a gate does not change them.
        shown: Ids of the passages that show a decisive verdict; none if the method shows none.
    """

    label: GoldLabel
    probs: Support
    shown: tuple[str, ...] = ()


def decide_claim(one: JudgedClaim, rule: DecisionRule) -> ClaimVerdict:
    """What `davinci` decides."""
    passages = one.row.passages or ()
    decision = rule.decide(one.row.claim, passages, one.supports)
    shown = () if decision.verdict == "not_enough_evidence" else tuple(passages[i].id for i in decision.shown)
    return ClaimVerdict(GOLDS[decision.verdict], decision.probs, shown)


def judge_alone(one: JudgedClaim) -> ClaimVerdict:
    """The top label of the passage that the judge is surest supports or refutes; neutral without passages."""
    parsed = [s for s in one.supports if s is not None]
    best = max(parsed, key=lambda s: max(s.supports, s.refutes), default=NOTHING)
    return ClaimVerdict(best.label, best)


def majority(judged: Sequence[JudgedClaim]) -> list[ClaimVerdict]:
    """The most common label for all claims, with the shares of the labels as probabilities."""
    counts = Counter(one.row.gold for one in judged)
    best = max(sorted(counts), key=lambda label: counts[label])
    shares = support(counts[label] for label in LABELS)
    return [ClaimVerdict(best, shares) for _ in judged]


def without_abstaining(verdict: ClaimVerdict) -> ClaimVerdict:
    """The same where "not enough evidence" is no answer: the likelier of the other two, refutes if they are equal."""
    probs = verdict.probs
    total = probs.supports + probs.refutes
    two = Support(probs.supports / total, probs.refutes / total, 0.0) if total > 0 else Support(0.0, 1.0, 0.0)
    return ClaimVerdict("supports" if two.supports > two.refutes else "refutes", two)


def examples_of(judged: Sequence[JudgedClaim]) -> list[VerdictExample]:
    """Claims as the decision is fitted to them; those of which no passage could be parsed are left out."""
    return [
        VerdictExample(
            features=claim_features(one.row.claim, one.row.passages or (), one.supports),
            gold=one.row.gold,
            dataset=one.row.source,
            group=one.row.group or one.row.name,
        )
        for one in judged
        if any(s is not None for s in one.supports)
    ]


def fitted_without(
    examples: Sequence[VerdictExample], dataset: str, rule: DecisionRule, *, judge: str
) -> Callable[[JudgedClaim], ClaimVerdict]:
    """The shipped decision with a model fitted to the examples of all datasets but one.

    Args:
        examples: Those that the shipped model was fitted to.
        dataset: What is left out.
        rule: What ships; all but its model is kept.
        judge: Identity of the judge.

    Raises:
        UserError: Too few examples are left.
    """
    left = [example for example in examples if example.dataset != dataset]
    refitted = DecisionRule(model=fit_verdict_model(left, judge=judge).model, mode=rule.mode)
    return lambda one: decide_claim(one, refitted)
