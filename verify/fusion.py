"""`fuse_evidence`: many pieces of evidence into one verdict, and how far they contradict one another.

Items are cleaned, copies are merged, and each gets a weight (`weigh_items`). They are combined by one of three modes:

    witness     each item is informative of a claim that holds or fails, or uninformative (`witness_fusion`)
    product     tempered product of distributions (`product_fusion`)
    mean        weighted mean

Source: Alege 2026, "I Know What I Don't Know: Latent Posterior Factor Models for Multi-Evidence Probabilistic
Reasoning", arXiv:2603.15670, of which soft factors, exponents and the exact combination are kept; nothing is learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ..reasoning.knowledge import Passage
from ..reasoning.retrieval.deduplication import cluster_copies
from .types import NOTHING, Support

Mode = Literal["witness", "product", "mean"]

EPS: Final = 1e-6
"""Minimum probability of a label: a smaller one is noise, and would decide by itself."""
BETA: Final = 0.3
"""Exponent of every factor of "product"; 1 for independent items."""
DOCUMENT_DECAY: Final = 0.5
"""h items of one document weigh h^-0.5 each."""
MAX_FAINT_ITEMS: Final = 10
"""With more items than this, "witness" drops those with less than `MIN_DECISIVE` for a decisive label."""
MIN_DECISIVE: Final = 0.1

# -- items


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """One piece of evidence.

    Attributes:
        probs: Its verdict on the claim.
        credibility: Credibility of its source, in [0, 1]; 0 excludes it.
        text: Its text, to find copies by; empty if unknown.
        id: Items with the same id are one; empty if unknown.
        document: Its document; items of one document weigh less each; empty if unknown.
    """

    probs: Support
    credibility: float = 1.0
    text: str = ""
    id: str = ""
    document: str = ""


def evidence_item(passage: Passage, probs: Support) -> EvidenceItem:
    """The item of a passage."""
    return EvidenceItem(probs, passage.credibility, passage.text, passage.id, passage.source)


def clip_probabilities(probs: Support) -> Support:
    """The distribution with every probability at least 1e-6 before normalisation."""
    total = math.fsum(probs)
    clipped = [max(p / total, EPS) for p in probs]
    total = math.fsum(clipped)
    return Support(*(p / total for p in clipped))


def mean_of(distributions: Sequence[Support], weights: Sequence[float] = ()) -> Support:
    """Weighted mean of at least one distribution; the weights, equal by default, must not all be 0."""
    first = distributions[0]
    if all(other == first for other in distributions):
        return first  # exactly, so that copies change nothing
    weights = weights or [1.0] * len(distributions)
    total = math.fsum(weights)
    shares = [w / total for w in weights]
    return Support(*(math.fsum(u * d[y] for u, d in zip(shares, distributions, strict=True)) for y in range(3)))


# -- weights


class WeightedItem(NamedTuple):
    """Merged copies with their weight.

    Attributes:
        probs: Their mean, clipped.
        weight: Their weight, in (0, 1].
    """

    probs: Support
    weight: float


def weigh_items(items: Sequence[EvidenceItem]) -> tuple[WeightedItem, ...]:
    """Merge copies and weigh items by their credibility; items without weight are dropped first.

    A group of copies is one item: its weight is the largest, its document that of the item of the largest weight. h
    items of one document then weigh h^-0.5 of their weight each. The result does not depend on the order of the items.
    """
    kept = [item for item in items if item.credibility > 0]

    def precedence(item: EvidenceItem) -> tuple[float, str, str, str]:
        return -item.credibility, item.document, item.id, item.text

    groups = [sorted((kept[i] for i in group), key=precedence) for group in cluster_copies(kept)]
    per_document = Counter(group[0].document for group in groups)
    weighted = []
    for group in groups:
        first = group[0]
        count = per_document[first.document] if first.document else 1
        probs = mean_of([clip_probabilities(item.probs) for item in group])
        weighted.append(WeightedItem(probs, first.credibility * count**-DOCUMENT_DECAY))
    return tuple(weighted)


# -- mode "witness"


class WitnessFactor(NamedTuple):
    """The factor of one item.

    Attributes:
        informative: q, the probability that it is informative of the claim, in [0, 1).
        leaning: 2d - 1, where d is the probability that it supports the claim if it is; in [-1, 1]. In this form,
            opposite items cancel exactly.
    """

    informative: float
    leaning: float

    @property
    def log_odds(self) -> float:
        """log(φ(1)/φ(0)), its contribution to the log-odds of the claim, in nats; up to log((1 + q)/(1 - q))."""
        lean = self.informative * self.leaning
        return math.log1p(lean) - math.log1p(-lean)


def witness_factor(item: WeightedItem) -> WitnessFactor:
    """Q = w · (p_S + p_R), below 1, and d = p_S / (p_S + p_R)."""
    supports, refutes, _ = item.probs
    decisive = supports + refutes
    leaning = (supports - refutes) / decisive if decisive > 0 else 0.0
    return WitnessFactor(min(item.weight * decisive, 1 - EPS), leaning)


def relevant_items(items: Sequence[WeightedItem]) -> Sequence[WeightedItem]:
    """The used items: all, or, where there are more than `MAX_FAINT_ITEMS`, those that may be decisive.

    Many items of low relevance would drive "neutral" to 0. The step from ten to one more item may therefore raise
    "neutral"; on either side it never rises with another item.
    """
    if len(items) <= MAX_FAINT_ITEMS:
        return items
    return [item for item in items if item.probs.supports + item.probs.refutes >= MIN_DECISIVE]


def witness_fusion(factors: Sequence[WitnessFactor]) -> Support:
    """The verdict by witness factors; without any it is "neutral" with certainty.

    "Neutral" is the absence of evidence rather than a state of the world: irrelevant items leave a decisive one nearly
    unchanged instead of outvoting it. A sum node over "informative or not" for each item under one product node makes
    the sum over all combinations exact in one pass. `neutral` is Π(1 - q), before the items are conditioned on their
    agreement, on purpose: afterwards it would be more confident. The rest is divided by the posterior of the claim,
    whose prior is 0.5.

    Source: our form of the sum-product combination of Alege 2026, arXiv:2603.15670; the noisy-or of Pearl 1988,
    "Probabilistic Reasoning in Intelligent Systems", section 4.3.2.
    """
    odds = math.fsum(f.log_odds for f in factors)
    holds = 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
    fails = 1 / (1 + math.exp(odds)) if odds <= 0 else math.exp(-odds) / (1 + math.exp(-odds))
    log_neutral = math.fsum(math.log1p(-f.informative) for f in factors)
    decided = -math.expm1(log_neutral)
    return Support(decided * holds, decided * fails, math.exp(log_neutral))


def conflict(factors: Sequence[WitnessFactor]) -> float:
    """How far factors contradict one another, in [0, 1]: 4AB/(A + B)² of the informative items on both sides.

    1 if the sides are equally strong, 0 if one or both are empty.
    """
    supporting = math.fsum(f.informative * (1 + f.leaning) / 2 for f in factors)
    refuting = math.fsum(f.informative * (1 - f.leaning) / 2 for f in factors)
    both = supporting + refuting
    if both <= 0:
        return 0.0
    share = supporting / both
    return min(4 * share * (1 - share), 1.0)


# -- the other modes


def product_fusion(items: Sequence[WeightedItem], beta: float = BETA) -> Support:
    """The normalised exp of beta · Σ w log p(y); without items it is uniform.

    Exact, and overconfident unless beta is fitted: neighbouring sentences are not independent.

    Source: Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670 (P(y|E) ∝ prior · Π φ_e^w); Hinton 2002,
    "Training Products of Experts by Minimizing Contrastive Divergence"; Genest and Zidek 1986, "Combining Probability
    Distributions" (with beta = 1/Σw the logarithmic opinion pool).

    Args:
        items: In any order; every probability above 0.
        beta: Exponent of all factors; 1 for independent items.
    """
    logs = [beta * math.fsum(item.weight * math.log(item.probs[y]) for item in items) for y in range(3)]
    top = max(logs)
    exponentials = [math.exp(log - top) for log in logs]
    total = math.fsum(exponentials)
    return Support(*(r / total for r in exponentials))


def mean_fusion(items: Sequence[WeightedItem]) -> Support:
    """Σ w p / Σ w of at least one item."""
    return mean_of([item.probs for item in items], [item.weight for item in items])


# -- fusion


class FusedVerdict(NamedTuple):
    """The verdict of pieces of evidence together, and how far they contradict one another, in [0, 1]."""

    probs: Support
    conflict: float


def fuse_evidence(items: Sequence[EvidenceItem], mode: Mode = "witness") -> FusedVerdict:
    """Combine pieces of evidence; their order does not matter, and items without weight change nothing."""
    weighted = weigh_items(items)
    if not weighted:
        return FusedVerdict(NOTHING, 0.0)
    factors = [witness_factor(item) for item in (relevant_items(weighted) if mode == "witness" else weighted)]
    match mode:
        case "witness":
            probs = witness_fusion(factors)
        case "product":
            probs = product_fusion(weighted)
        case "mean":
            probs = mean_fusion(weighted)
    total = math.fsum(probs)
    return FusedVerdict(probs if total == 1 else Support(*(q / total for q in probs)), conflict(factors))
