"""`fuse_evidence`: many pieces of evidence into one verdict, with its confidence and the reason for it.

Items are cleaned, copies are merged, and each gets a weight (`weigh_items`). They are combined by one of five modes:

    witness     each item is informative of a claim that holds or fails, or uninformative (`witness_fusion`)
    product     tempered product of distributions (`product_fusion`)
    mean        weighted mean
    vote        weighted vote of the top labels
    max         the most decisive item

Source: Alege 2026, "I Know What I Don't Know: Latent Posterior Factor Models for Multi-Evidence Probabilistic
Reasoning", arXiv:2603.15670, of which soft factors, exponents, the exact combination and the split of the variance are
kept; only a few numbers are learned here (`fusion_fitting`). The paper calls the parts of the variance aleatoric
and epistemic; contradiction raises `between` and vague evidence raises `within`, so these words are not used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, FiniteFloat, model_validator

from ..core.errors import DataError
from ..core.messages import Frozen
from ..core.types import Probability
from ..reasoning.retrieval.deduplication import CopyClusters, cluster_copies
from ..reasoning.retrieval.protocol import Passage
from .calibration import apply_temperature
from .types import NOTHING, Label, Support

# -- parameters

Mode = Literal["witness", "product", "mean", "vote", "max"]
Weighting = Literal["spread", "paper"]

TEMPERATURES: Final[dict[Mode, float]] = {"witness": 0.5, "product": 1.2, "mean": 1.0, "vote": 1.0, "max": 1.0}
"""Default final temperature of each mode."""
UNIFORM: Final = Support(1 / 3, 1 / 3, 1 / 3)

Positive = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Inner = Annotated[FiniteFloat, Field(gt=0, lt=1)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]


class FusionParameters(Frozen):
    """Parameters of the fusion. The letters are those of Latent Posterior Factors.

    Attributes:
        mode: How items are combined.
        a: How far an item is assumed to be informative; of "witness".
        beta: Exponent of every factor, 1 for independent items; of "product".
        temperature: Final temperature; None is the mode's own (`TEMPERATURES`).
        pi: Prior probability that a claim holds; of "witness".
        prior: Prior probabilities; of "product".
        base: The verifier's mean prediction on development data, which factors are divided by; None for none.
        weighting: "spread": weights fall with the spread of an item's samples as exp(-alpha · spread); "paper": as in
            the published method (`paper_weight`).
        alpha: How fast they decay.
        merge: Whether copies and near copies count as one.
        jaccard: Jaccard index of word 3-grams from which two texts are near copies.
        pairs: The same for word 2-grams, which the method does not have.
        delta: h items of one document weigh h^-delta each.
        rank: The item of rank r weighs r^-rank: what a retriever ranks last is seldom decisive.
        cap: With more items than this, "witness" drops those with less than 0.1 for a decisive label; None: never.
        disputed: Whether the label "disputed" is possible.
        theta_c: Conflict from which evidence is contradictory.
        least_side: Informative items that a dispute needs on each side.
        threshold: Confidence below which a verdict is weak.
        fitted: Digest of the file these come from; empty for defaults.
    """

    mode: Mode = "witness"
    a: Share = 0.4
    beta: Share = 0.3
    temperature: Positive | None = None
    pi: Inner = 0.5
    prior: Support = UNIFORM
    base: Support | None = None
    weighting: Weighting = "spread"
    alpha: NotNegative = 2.0
    merge: bool = True
    jaccard: Share = 0.6
    pairs: Share = 0.4
    delta: NotNegative = 0.5
    rank: NotNegative = 0.0
    cap: Annotated[int, Field(ge=1)] | None = 10
    disputed: bool = False
    theta_c: Probability = 0.6
    least_side: NotNegative = 0.5
    threshold: NotNegative = 0.6
    fitted: str = ""

    @model_validator(mode="after")
    def _distributions_sum_to_one(self) -> Self:
        for name, value in (("prior", self.prior), ("base", self.base)):
            if value is not None and not (all(p > 0 for p in value) and abs(sum(value) - 1) < 1e-6):
                raise ValueError(f"{name} must be three probabilities above 0 that sum to 1")
        return self

    @property
    def final_temperature(self) -> float:
        """The final temperature that applies."""
        return TEMPERATURES[self.mode] if self.temperature is None else self.temperature


# -- items

EPS = 1e-6
"""Minimum probability of a label: a smaller one is noise, and would decide by itself."""
HARD_LABEL_PROBABILITY = 0.8
"""Probability of a label without a probability."""


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """One piece of evidence, or one opinion.

    Attributes:
        samples: Its verdicts on the claim, at least one: by several votes, prompts, orders of labels or verifiers.
        credibility: Credibility of its source, in [0, 1]; 0 excludes it.
        relevance: Relevance to the claim, in [0, 1].
        text: Its text, to find copies by; empty if unknown.
        id: Items with the same id are one; empty if unknown.
        document: Its document; items of one document weigh less each; empty if unknown.
        hard: Whether the samples are bare labels converted to probabilities.
        rank: Its rank in the retrieval, from 1; 1 where the order has no meaning.

    Raises:
        DataError: There is no sample, one is no distribution, or a number is out of its range.
    """

    samples: tuple[Support, ...]
    credibility: float = 1.0
    relevance: float = 1.0
    text: str = ""
    id: str = ""
    document: str = ""
    hard: bool = False
    rank: int = 1

    def __post_init__(self) -> None:
        label = f"the evidence {self.id!r}" if self.id else "a piece of evidence"
        if not self.samples:
            raise DataError(f"{label} has no verdict on the claim", hint="leave it out")
        for sample in self.samples:
            if len(sample) != 3 or not all(math.isfinite(p) and p >= 0 for p in sample) or sum(sample) <= 0:
                raise DataError(f"{label} has the probabilities {tuple(sample)}, which are not three of a distribution")
        if self.rank < 1:
            raise DataError(f"the rank of {label} must be at least 1, got {self.rank}")
        for name in ("credibility", "relevance"):
            if not 0 <= getattr(self, name) <= 1:  # NaN fails too
                raise DataError(f"the {name} of {label} must be in [0, 1], got {getattr(self, name)}")


def evidence_item(
    passage: Passage, samples: Sequence[Support], *, relevance: float = 1.0, hard: bool = False, rank: int = 1
) -> EvidenceItem:
    """The item of a passage (see `EvidenceItem`).

    Raises:
        DataError: As `EvidenceItem`.
    """
    return EvidenceItem(
        tuple(samples), passage.credibility, relevance, passage.text, passage.id, passage.source, hard, rank
    )


def clip_probabilities(sample: Support) -> Support:
    """The distribution with every probability at least 1e-6 before normalisation."""
    total = math.fsum(sample)
    clipped = [max(p / total, EPS) for p in sample]
    total = math.fsum(clipped)
    return Support(*(p / total for p in clipped))


def hard_label(label: Label) -> Support:
    """A bare label as probabilities: 0.8 for it, 0.1 for each other."""
    rest = (1 - HARD_LABEL_PROBABILITY) / 2
    return Support(rest, rest, rest)._replace(**{label: HARD_LABEL_PROBABILITY})


def smoothed_votes(labels: Sequence[Label]) -> Support:
    """Shares of votes with half a vote added to each label: (count + 0.5) / (n + 1.5); no votes are uniform."""
    sides: tuple[Label, ...] = ("supports", "refutes", "neutral")
    return Support(*((labels.count(label) + 0.5) / (len(labels) + 1.5) for label in sides))


# -- variance


class VarianceSplit(NamedTuple):
    """Variance of a label sampled from an item sampled by its weight, summed over labels.

    Attributes:
        total: Σ_y p̄_y (1 - p̄_y) of the mean distribution p̄; `within + between`.
        within: Mean over the items of Σ_y p_y (1 - p_y): the items are vague.
        between: Mean squared distance of the items from p̄: the items differ.
    """

    total: float
    within: float
    between: float


def split_variance(distributions: Sequence[Support], weights: Sequence[float] = ()) -> VarianceSplit:
    """The law of total variance for items, or for the samples of one; without weight there is no variance.

    Source: Alege 2026, "I Know What I Don't Know", arXiv:2603.15670 (there over samples of one latent).

    Args:
        distributions: The distribution of each item.
        weights: Their weights; equal by default.
    """
    shares = _shares(weights or [1.0] * len(distributions))
    if not shares:
        return VarianceSplit(0.0, 0.0, 0.0)
    mean = mean_of(distributions, weights)
    pairs = list(zip(shares, distributions, strict=True))
    return VarianceSplit(
        total=math.fsum(p * (1 - p) for p in mean),
        within=math.fsum(u * p * (1 - p) for u, d in pairs for p in d),
        between=math.fsum(u * (p - m) ** 2 for u, d in pairs for p, m in zip(d, mean, strict=True)),
    )


def mean_of(distributions: Sequence[Support], weights: Sequence[float] = ()) -> Support:
    """Weighted mean of at least one distribution; the weights, equal by default, must not all be 0."""
    first = distributions[0]
    if all(other == first for other in distributions):
        return first  # exactly, so that copies change nothing
    shares = _shares(weights or [1.0] * len(distributions))
    return Support(*(math.fsum(u * d[y] for u, d in zip(shares, distributions, strict=True)) for y in range(3)))


def effective_sample_size(weights: Sequence[float]) -> float:
    """(Σ w)² / Σ w²: the equivalent number of items of equal weight; 0 without weight.

    Source: Kish 1965, "Survey Sampling", section 11.7.
    """
    shares = _shares(weights)
    return 1 / math.fsum(u * u for u in shares) if shares else 0.0


def _shares(weights: Sequence[float]) -> list[float]:
    """Weights that sum to 1; empty if all are 0. Divided before they are squared: very small ones have no squares."""
    total = math.fsum(weights)
    return [w / total for w in weights] if total > 0 else []


# -- weights


class WeightedItem(NamedTuple):
    """Merged copies with their weight.

    Attributes:
        probs: The mean of their samples, clipped; a likelihood where the base is known.
        weight: Their weight, in (0, 1].
        positions: Positions of the items; the first represents them.
    """

    probs: Support
    weight: float
    positions: tuple[int, ...]


class WeightedItems(NamedTuple):
    """All weighted items, and whether the search for copies was complete."""

    items: tuple[WeightedItem, ...]
    complete: bool


def weigh_items(items: Sequence[EvidenceItem], parameters: FusionParameters) -> WeightedItems:
    """Merge copies and weigh items (steps 1 to 4 of the method); items without weight are dropped first.

    A group of copies is one item: its samples are those of all, its weight the largest, its document that of the item
    of the largest weight. h items of one document then weigh h^-delta of their weight each. The result does not depend
    on the order of the items except in `positions`.
    """
    clipped = [tuple(clip_probabilities(sample) for sample in item.samples) for item in items]
    weights = [
        item.credibility * item.relevance * item.rank**-parameters.rank * _sample_weight(samples, parameters)
        for item, samples in zip(items, clipped, strict=True)
    ]
    kept = [i for i, w in enumerate(weights) if w > 0]
    if parameters.merge:
        clusters = cluster_copies([items[i] for i in kept], jaccard=parameters.jaccard, pairs=parameters.pairs)
    else:
        clusters = CopyClusters(tuple((i,) for i in range(len(kept))), True)

    def precedence(i: int) -> tuple[float, str, str, str]:
        return -weights[i], items[i].document, items[i].id, items[i].text

    groups = [sorted((kept[i] for i in group), key=lambda i: (*precedence(i), i)) for group in clusters.groups]
    per_document = Counter(items[group[0]].document for group in groups)
    weighted = []
    for group in groups:
        probs = mean_of([sample for i in group for sample in clipped[i]])
        if parameters.base is not None:
            probs = clip_probabilities(Support(*(p / b for p, b in zip(probs, parameters.base, strict=True))))
        document = items[group[0]].document
        count = per_document[document] if document else 1
        weighted.append(WeightedItem(probs, weights[group[0]] * count**-parameters.delta, tuple(group)))
    return WeightedItems(tuple(weighted), clusters.complete)


def paper_weight(sigma: float, alpha: float) -> float:
    """The published weight of an item: clip(1/(1 + sigma) · sigmoid(-alpha · sigma), 0, 1); at most 0.5.

    Source: the implementation of Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670.

    Args:
        sigma: Mean standard deviation of its samples.
        alpha: Penalty on it.
    """
    return min(1 / (1 + sigma) / (1 + math.exp(min(alpha * sigma, 700.0))), 1.0)


def _sample_weight(samples: Sequence[Support], parameters: FusionParameters) -> float:
    """The factor of the weight that depends on the spread of the samples."""
    if parameters.weighting == "paper":
        mean = mean_of(samples)
        variances = (math.fsum((s[y] - mean[y]) ** 2 for s in samples) / len(samples) for y in range(3))
        return paper_weight(math.fsum(math.sqrt(v) for v in variances) / 3, parameters.alpha)
    if len(samples) == 1:
        return 1.0
    return math.exp(-parameters.alpha * split_variance(samples).between)


# -- mode "witness"

MIN_DECISIVE: Final = 0.1
"""Probability of a decisive label below which an item may be dropped where there are many."""


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


def witness_factor(item: WeightedItem, a: float) -> WitnessFactor:
    """Q = a · w · (p_S + p_R), below 1, and d = p_S / (p_S + p_R)."""
    supports, refutes, _ = item.probs
    decisive = supports + refutes
    leaning = (supports - refutes) / decisive if decisive > 0 else 0.0
    return WitnessFactor(min(a * item.weight * decisive, 1 - EPS), leaning)


def relevant_items(items: Sequence[WeightedItem], cap: int | None) -> list[bool]:
    """Which items are used: all, or, where there are more than `cap`, those that may be decisive.

    Many items of low relevance would drive "neutral" to 0. The step from `cap` to one more item may therefore
    raise "neutral"; on either side it never rises with another item.
    """
    if cap is None or len(items) <= cap:
        return [True] * len(items)
    return [item.probs.supports + item.probs.refutes >= MIN_DECISIVE for item in items]


def witness_fusion(factors: Sequence[WitnessFactor], pi: float = 0.5) -> Support:
    """The verdict by witness factors; without any it is "neutral" with certainty.

    "Neutral" is the absence of evidence rather than a state of the world: irrelevant items leave a decisive one nearly
    unchanged instead of outvoting it. A sum node over "informative or not" for each item under one product node makes
    the sum over all combinations exact in one pass. `neutral` is Π(1 - q), before the items are conditioned on their
    agreement, on purpose: afterwards it would be more confident. The rest is divided by the posterior of the claim.

    Source: our form of the sum-product combination of Alege 2026, arXiv:2603.15670; the noisy-or of Pearl 1988,
    "Probabilistic Reasoning in Intelligent Systems", section 4.3.2.

    Args:
        factors: In any order.
        pi: Prior probability that the claim holds, in (0, 1).
    """
    odds = math.log(pi) - math.log1p(-pi) + math.fsum(f.log_odds for f in factors)
    holds = 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
    fails = 1 / (1 + math.exp(odds)) if odds <= 0 else math.exp(-odds) / (1 + math.exp(-odds))
    log_neutral = math.fsum(math.log1p(-f.informative) for f in factors)
    decided = -math.expm1(log_neutral)
    return Support(decided * holds, decided * fails, math.exp(log_neutral))


class Conflict(NamedTuple):
    """How far factors contradict one another.

    Attributes:
        supporting: Informative items on the claim's side, Σ q d.
        refuting: Those against it, Σ q (1 - d).
    """

    supporting: float
    refuting: float

    @property
    def degree(self) -> float:
        """4AB/(A + B)², in [0, 1]: 1 if both sides are equally strong, 0 if one or both are empty."""
        both = self.supporting + self.refuting
        if both <= 0:
            return 0.0
        share = self.supporting / both
        return 4 * share * (1 - share)


def conflict(factors: Sequence[WitnessFactor]) -> Conflict:
    """The two sides."""
    return Conflict(
        math.fsum(f.informative * (1 + f.leaning) / 2 for f in factors),
        math.fsum(f.informative * (1 - f.leaning) / 2 for f in factors),
    )


# -- the other modes


def product_fusion(items: Sequence[WeightedItem], beta: float = 1.0, prior: Support = UNIFORM) -> Support:
    """The normalised exp of log P(y) = log prior(y) + beta · Σ w log p(y); without items it is the prior.

    Exact, and overconfident unless beta is fitted: neighbouring sentences are not independent.

    Source: Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670 (P(y|E) ∝ prior · Π φ_e^w); Hinton 2002,
    "Training Products of Experts by Minimizing Contrastive Divergence"; Genest and Zidek 1986, "Combining Probability
    Distributions" (with beta = 1/Σw the logarithmic opinion pool).

    Args:
        items: In any order; every probability above 0.
        beta: Exponent of all factors; 1 for independent items.
        prior: Prior probabilities, above 0.
    """
    logs = [
        math.log(prior[y]) + beta * math.fsum(item.weight * math.log(item.probs[y]) for item in items) for y in range(3)
    ]
    top = max(logs)
    exponentials = [math.exp(log - top) for log in logs]
    total = math.fsum(exponentials)
    return Support(*(r / total for r in exponentials))


def log_odds(item: WeightedItem, beta: float) -> float:
    """Contribution of an item of `product_fusion` to log P(supports)/P(refutes), in nats."""
    return beta * item.weight * (math.log(item.probs.supports) - math.log(item.probs.refutes))


def mean_fusion(items: Sequence[WeightedItem]) -> Support:
    """Σ w p / Σ w; nothing without items."""
    return mean_of([item.probs for item in items], [item.weight for item in items]) if items else NOTHING


def vote_fusion(items: Sequence[WeightedItem]) -> Support:
    """Weighted votes for the top labels, with half a vote added to each label; nothing without items."""
    if not items:
        return NOTHING
    total = math.fsum(item.weight for item in items)

    def share(label: Label) -> float:
        return (math.fsum(item.weight for item in items if item.probs.label == label) + 0.5) / (total + 1.5)

    return Support(share("supports"), share("refutes"), share("neutral"))


def max_fusion(items: Sequence[WeightedItem]) -> Support:
    """The item of the largest weight times max(p_S, p_R); the mean of several such; nothing without items."""
    if not items:
        return NOTHING
    decisiveness = [item.weight * max(item.probs.supports, item.probs.refutes) for item in items]
    top = max(decisiveness)
    return mean_of([item.probs for item, value in zip(items, decisiveness, strict=True) if value == top])


# -- fusion

Reason = Literal["ok", "weak", "irrelevant", "conflict", "no_evidence"]
FusedLabel = Label | Literal["disputed"]

MIN_IRRELEVANT_NEUTRAL: Final = 0.5
"""Probability of "neutral" from which evidence is irrelevant."""


class FusedVerdict(Frozen):
    """The verdict of pieces of evidence together.

    Attributes:
        probs: (supports, refutes, neutral).
        label: The top label, or "disputed"; before any gate. Ties go to "neutral", then "refutes".
        confidence: Largest of the three probabilities; 0 without evidence.
        conflict: How far the evidence contradicts itself, in [0, 1].
        k_eff: Effective number of items.
        total: Variance of the mean distribution, `within + between`.
        within: Its part within items: they are vague.
        between: Its part between items: they differ.
        item_logodds: Contribution of each item to the log-odds of "supports" against "refutes", in nats, before the
            final temperature; 0 for items that are dropped or represented by a copy. Empty in the modes "mean", "vote"
            and "max", where contributions do not add up.
        duplicates: Positions of items that are copies of one another, the representative first.
        mode: How they were combined.
        reason: "no_evidence"; "irrelevant" (neutral has 0.5 or more); "conflict"; "weak" (too little confidence); "ok".
        warnings: "unfitted": the parameters are defaults. "hard_labels": an item's verdict is a bare label.
            "duplicates_unfinished": the search for copies was not complete.
    """

    probs: Support
    label: FusedLabel
    confidence: Probability
    conflict: Probability
    k_eff: float
    total: float
    within: float
    between: float
    item_logodds: tuple[float, ...]
    duplicates: tuple[tuple[int, ...], ...]
    mode: Mode
    reason: Reason
    warnings: tuple[str, ...] = ()


def fuse_evidence(items: Sequence[EvidenceItem], parameters: FusionParameters | None = None) -> FusedVerdict:
    """Combine pieces of evidence; their order does not matter, and items without weight change nothing.

    Args:
        items: Any number of items.
        parameters: How they are combined; by default "witness" with its defaults.
    """
    p = FusionParameters() if parameters is None else parameters
    weighted = weigh_items(items, p)
    is_additive = p.mode in ("witness", "product")
    conditions = {
        "unfitted": not p.fitted,
        "hard_labels": any(item.hard for item in items),
        "duplicates_unfinished": not weighted.complete,
    }
    warnings = tuple(name for name, applies in conditions.items() if applies)
    if not weighted.items:
        return FusedVerdict(
            probs=NOTHING,
            label="neutral",
            confidence=0.0,
            conflict=0.0,
            k_eff=0.0,
            total=0.0,
            within=0.0,
            between=0.0,
            item_logodds=(0.0,) * len(items) if is_additive else (),
            duplicates=(),
            mode=p.mode,
            reason="no_evidence",
            warnings=warnings,
        )
    is_used = relevant_items(weighted.items, p.cap) if p.mode == "witness" else [True] * len(weighted.items)
    factors = witness_factors(weighted.items, is_used, p)
    probs = apply_temperature(combine(weighted.items, factors, p), p.final_temperature)
    sides = conflict(factors)
    is_disputed = p.disputed and sides.degree >= p.theta_c and min(sides) >= p.least_side
    weights = [item.weight for item in weighted.items]
    variance = split_variance([item.probs for item in weighted.items], weights)
    return FusedVerdict(
        probs=probs,
        label="disputed" if is_disputed else probs.label,
        confidence=min(probs.confidence, 1.0),
        conflict=min(sides.degree, 1.0),
        k_eff=effective_sample_size(weights),
        total=variance.total,
        within=variance.within,
        between=variance.between,
        item_logodds=_item_log_odds(len(items), weighted.items, factors, is_used, p) if is_additive else (),
        duplicates=tuple(item.positions for item in weighted.items if len(item.positions) > 1),
        mode=p.mode,
        reason=reason_for(probs, sides.degree, p.theta_c, p.threshold),
        warnings=warnings,
    )


def reason_for(probs: Support, degree: float, theta_c: float, threshold: float) -> Reason:
    """The reason of a verdict on some evidence; computed again where its probabilities were calibrated.

    Args:
        probs: The verdict.
        degree: Conflict of the evidence, in [0, 1].
        theta_c: Conflict from which it is contradictory.
        threshold: Confidence below which the verdict is weak.
    """
    if probs.neutral >= MIN_IRRELEVANT_NEUTRAL:
        return "irrelevant"
    if degree >= theta_c:
        return "conflict"
    return "weak" if probs.confidence < threshold else "ok"


def witness_factors(
    items: Sequence[WeightedItem], is_used: Sequence[bool], parameters: FusionParameters
) -> list[WitnessFactor]:
    """The factors of the used items; in modes without a discount they are assumed to be informative."""
    a = parameters.a if parameters.mode == "witness" else 1.0
    return [witness_factor(item, a) for item, used in zip(items, is_used, strict=True) if used]


def combine(items: Sequence[WeightedItem], factors: Sequence[WitnessFactor], parameters: FusionParameters) -> Support:
    """The verdict by the mode, before the final temperature, normalised."""
    match parameters.mode:
        case "witness":
            probs = witness_fusion(factors, parameters.pi)
        case "product":
            probs = product_fusion(items, parameters.beta, parameters.prior)
        case "mean":
            probs = mean_fusion(items)
        case "vote":
            probs = vote_fusion(items)
        case "max":
            probs = max_fusion(items)
    total = math.fsum(probs)
    return probs if total == 1 else Support(*(q / total for q in probs))


def _item_log_odds(
    count: int,
    items: Sequence[WeightedItem],
    factors: Sequence[WitnessFactor],
    is_used: Sequence[bool],
    parameters: FusionParameters,
) -> tuple[float, ...]:
    contributions = [0.0] * count
    remaining = iter(factors)
    for item, used in zip(items, is_used, strict=True):
        if used:
            factor = next(remaining)
            by_product = parameters.mode == "product"
            contributions[item.positions[0]] = log_odds(item, parameters.beta) if by_product else factor.log_odds
    return tuple(contributions)
