"""`FusionParameters`: how pieces of evidence become one verdict; fitted by `fitting`, or the defaults of the method.

`Item`: what one piece of evidence says of a claim, with how far it counts and what tells it from others.

Why a verdict is uncertain: variance within pieces of evidence and between them, and how many pieces there are.

Contradiction raises `between`; vague evidence raises `within`. The words aleatoric and epistemic, by which the paper
calls them, suggest otherwise and are not used.

`weigh`: items made ready to be combined: cleaned, copies merged, each with its weight.

Steps 1 to 4 of Latent Posterior Factors as this project has it; the weight by spread follows the published one in
falling with the uncertainty of a piece of evidence.

`witness`: each piece of evidence is either informative of a claim that holds or does not, or tells nothing.

"Neutral" is the absence of evidence here and no state of the world: irrelevant pieces leave a decisive one nearly alone
instead of outvoting it. A sum node over "informative or not" for each piece stands under one product node, so that the
sum over all combinations is exact in one pass.

Source: our form of the sum-product combination of Alege 2026, arXiv:2603.15670; the noisy-or of Pearl 1988,
"Probabilistic Reasoning in Intelligent Systems", section 4.3.2.

`product`: a tempered product of distributions, as of independent pieces of evidence on one label.

Exact, and overconfident unless beta is fitted: neighbouring sentences are not independent.

Source: Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670 (P(y|E) ∝ prior · Π φ_e^w); Hinton 2002,
"Training Products of Experts by Minimizing Contrastive Divergence"; Genest and Zidek 1986, "Combining Probability
Distributions" (with beta = 1/Σw the logarithmic opinion pool).

The baselines: `mean`, `vote` and `max_fusion`, by which verdicts on pieces of evidence are usually combined.

`fuse`: many pieces of evidence into one verdict, with how sure it is and why it is not surer.

Source: Alege 2026, "I Know What I Don't Know: Latent Posterior Factor Models for Multi-Evidence Probabilistic
Reasoning", arXiv:2603.15670, of which soft factors, exponents, the exact combination and the split of the variance are
kept; nothing is learned here but a few numbers (`fitting`).
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

Mode = Literal["witness", "product", "mean", "vote", "max"]
Weighting = Literal["spread", "paper"]

TEMPERATURES: Final[dict[Mode, float]] = {"witness": 0.5, "product": 1.2, "mean": 1.0, "vote": 1.0, "max": 1.0}
"""The final temperature of each mode where none is given."""
UNIFORM: Final = Support(1 / 3, 1 / 3, 1 / 3)

Positive = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Inner = Annotated[FiniteFloat, Field(gt=0, lt=1)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]


class FusionParameters(Frozen):
    """How pieces of evidence become one verdict. The letters are those of Latent Posterior Factors.

    Attributes:
        mode: "witness" (each piece either tells of the claim or does not), "product" (tempered product of
            distributions), or the baselines "mean", "vote" and "max".
        a: How far a piece of evidence is taken to be informative; of "witness".
        beta: Exponent of every factor: 1 takes the pieces to be independent; of "product".
        temperature: The result is raised to 1 over it; None is the mode's own (`TEMPERATURES`).
        pi: Probability that a claim holds, before evidence; of "witness".
        prior: Probabilities before evidence; of "product".
        base: The verifier's average prediction on development data, which factors are divided by; None leaves it out.
        weighting: "spread": weights fall with the spread of a piece's draws as exp(-alpha · spread); "paper": as the
            published method has it (`weighing.paper_weight`).
        alpha: How fast they fall.
        merge: Whether copies and near copies count as one.
        jaccard: Share of common three-word sequences from which two texts are near copies.
        pairs: The same of two-word sequences, from which they are, too; the method has none of it.
        delta: h pieces of one document count as h^-delta each.
        rank: The piece of rank r counts as r^-rank: what a retriever puts last is seldom what decides.
        cap: With more pieces than this, "witness" leaves out those with under 0.1 for a decisive label; None: never.
        disputed: Whether the label "disputed" can be given.
        theta_c: Conflict from which evidence is contradictory.
        least_side: Informative pieces that a dispute needs on each side.
        threshold: Confidence below which a verdict is weak.
        fitted: Digest of the file these come from; empty if they are defaults.
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
        for name, given in (("prior", self.prior), ("base", self.base)):
            if given is not None and not (all(p > 0 for p in given) and abs(sum(given) - 1) < 1e-6):
                raise ValueError(f"{name} must be three probabilities above 0 that sum to 1")
        return self

    @property
    def final_temperature(self) -> float:
        """The temperature that is used."""
        return TEMPERATURES[self.mode] if self.temperature is None else self.temperature


EPS = 1e-6
"""Least probability of a label: what is less is noise, and would decide alone."""
HARD = 0.8
"""Probability of a label that was given without one."""


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """One piece of evidence, or one opinion.

    Attributes:
        draws: What it says of the claim, at least once: by several votes, prompts, orders of labels or verifiers.
        credibility: How far its source is to be believed, in [0, 1]; 0 leaves it out.
        relevance: How far it is about the claim, in [0, 1].
        text: What it is, to find copies by; empty if unknown.
        id: Items of one id are one; empty if unknown.
        document: Where it is from; items of one document count less each; empty if unknown.
        hard: Whether the draws are bare labels that were made into probabilities.
        rank: Its place among what was found for the claim, from 1; 1 where the order says nothing.

    Raises:
        DataError: There is no draw, one is no distribution, or a number is out of its range.
    """

    draws: tuple[Support, ...]
    credibility: float = 1.0
    relevance: float = 1.0
    text: str = ""
    id: str = ""
    document: str = ""
    hard: bool = False
    rank: int = 1

    def __post_init__(self) -> None:
        called = f"the evidence {self.id!r}" if self.id else "a piece of evidence"
        if not self.draws:
            raise DataError(f"{called} says nothing of the claim", hint="leave it out")
        for draw in self.draws:
            if len(draw) != 3 or not all(math.isfinite(p) and p >= 0 for p in draw) or sum(draw) <= 0:
                raise DataError(f"{called} has the probabilities {tuple(draw)}, which are none of three labels")
        if self.rank < 1:
            raise DataError(f"{called} has the rank {self.rank}; ranks count from 1")
        for name in ("credibility", "relevance"):
            if not 0 <= getattr(self, name) <= 1:  # NaN fails too
                raise DataError(f"the {name} {getattr(self, name)} of {called} lies outside [0, 1]")


def evidence_item(
    passage: Passage, draws: Sequence[Support], *, relevance: float = 1.0, hard: bool = False, rank: int = 1
) -> EvidenceItem:
    """What a passage says of a claim.

    Args:
        passage: The passage.
        draws: Its verdicts.
        relevance: How far it is about the claim, in [0, 1]: a retriever's score on that scale.
        hard: Whether the draws are bare labels.
        rank: Its place among what was found.

    Raises:
        DataError: As `Item`.
    """
    return EvidenceItem(
        tuple(draws), passage.credibility, relevance, passage.text, passage.id, passage.source, hard, rank
    )


def clip_probabilities(draw: Support) -> Support:
    """The distribution with every probability at least 1e-6 before it is normalised."""
    total = math.fsum(draw)
    cut = [max(p / total, EPS) for p in draw]
    total = math.fsum(cut)
    return Support(*(p / total for p in cut))


def hard_label(label: Label) -> Support:
    """A bare label as probabilities: 0.8 for it, 0.1 for each other."""
    return _spread(dict.fromkeys(("supports", "refutes", "neutral"), (1 - HARD) / 2) | {label: HARD})


def smoothed_votes(labels: Sequence[Label]) -> Support:
    """Shares of votes, each label given half a vote more: (count + 0.5) / (n + 1.5).

    Args:
        labels: The votes; none at all are uniform.
    """
    counts: dict[str, float] = {label: labels.count(label) + 0.5 for label in ("supports", "refutes", "neutral")}
    return _spread({label: count / (len(labels) + 1.5) for label, count in counts.items()})


def _spread(by_label: dict[str, float]) -> Support:
    return Support(by_label["supports"], by_label["refutes"], by_label["neutral"])


class VarianceSplit(NamedTuple):
    """Variance of a label drawn by a piece of evidence drawn by its weight, summed over labels.

    Attributes:
        total: Σ_y p̄_y (1 - p̄_y) of the mean distribution p̄; `within + between`.
        within: Mean over the pieces of Σ_y p_y (1 - p_y).
        between: Mean squared distance of the pieces from p̄.
    """

    total: float
    within: float
    between: float


def split_variance(distributions: Sequence[Support], weights: Sequence[float] = ()) -> VarianceSplit:
    """The law of total variance for pieces of evidence, or for the draws of one.

    Source: Alege 2026, "I Know What I Don't Know", arXiv:2603.15670 (there over draws of one latent).

    Args:
        distributions: What each says; none at all have no variance.
        weights: Their weights, at least 0; equal by default. If all are 0 there is no variance either.
    """
    shares = _shares(weights or [1.0] * len(distributions))
    if not shares:
        return VarianceSplit(0.0, 0.0, 0.0)
    middle = mean_of(distributions, weights)
    pairs = list(zip(shares, distributions, strict=True))
    return VarianceSplit(
        total=math.fsum(p * (1 - p) for p in middle),
        within=math.fsum(u * p * (1 - p) for u, d in pairs for p in d),
        between=math.fsum(u * (p - m) ** 2 for u, d in pairs for p, m in zip(d, middle, strict=True)),
    )


def mean_of(distributions: Sequence[Support], weights: Sequence[float] = ()) -> Support:
    """Their weighted mean.

    Args:
        distributions: At least one.
        weights: Their weights, at least 0 and not all 0; equal by default.
    """
    first = distributions[0]
    if all(other == first for other in distributions):
        return first  # to the last digit, so that copies change nothing
    shares = _shares(weights or [1.0] * len(distributions))
    return Support(*(math.fsum(u * d[y] for u, d in zip(shares, distributions, strict=True)) for y in range(3)))


def effective_sample_size(weights: Sequence[float]) -> float:
    """(Σ w)² / Σ w²: how many pieces of equal weight they amount to; 0 if there are none or all weights are 0.

    Source: Kish 1965, "Survey Sampling", section 11.7.
    """
    shares = _shares(weights)
    return 1 / math.fsum(u * u for u in shares) if shares else 0.0


def _shares(weights: Sequence[float]) -> list[float]:
    """Weights that sum to 1; empty if all are 0. Divided before they are squared: very small ones have no squares."""
    total = math.fsum(weights)
    return [w / total for w in weights] if total > 0 else []


class WeightedItem(NamedTuple):
    """One piece of evidence, ready to be combined.

    Attributes:
        probs: What it says of the claim: the mean of its draws, cleaned; a likelihood where the base is known.
        weight: How far it counts, in (0, 1].
        places: Places of the items that it stands for; the first is the one that speaks for them.
    """

    probs: Support
    weight: float
    places: tuple[int, ...]


class Weighing(NamedTuple):
    """All pieces, and whether the search for copies came to its end."""

    pieces: tuple[WeightedItem, ...]
    complete: bool


def weigh_items(items: Sequence[EvidenceItem], parameters: FusionParameters) -> Weighing:
    """The pieces that items amount to. Items that weigh nothing are left out before anything else.

    A group of copies is one piece: its draws are those of all, its weight the largest, its document that of the item
    with the largest weight. h pieces of one document then weigh h^-delta of their weight each.

    Args:
        items: What there is, in any order; the pieces do not depend on it but for their `places`.
        parameters: How it is weighed.
    """
    cleaned = [tuple(clip_probabilities(draw) for draw in item.draws) for item in items]
    weights = [
        item.credibility * item.relevance * item.rank**-parameters.rank * _of_spread(draws, parameters)
        for item, draws in zip(items, cleaned, strict=True)
    ]
    kept = [i for i, w in enumerate(weights) if w > 0]
    if parameters.merge:
        found = cluster_copies([items[i] for i in kept], jaccard=parameters.jaccard, pairs=parameters.pairs)
    else:
        found = CopyClusters(tuple((i,) for i in range(len(kept))), True)

    def rank(i: int) -> tuple[float, str, str, str]:
        return -weights[i], items[i].document, items[i].id, items[i].text

    groups = [sorted((kept[i] for i in group), key=lambda i: (*rank(i), i)) for group in found.groups]
    crowd = Counter(items[group[0]].document for group in groups)
    pieces = []
    for group in groups:
        draws = [draw for i in group for draw in cleaned[i]]
        probs = mean_of(draws)
        if parameters.base is not None:
            probs = clip_probabilities(Support(*(p / b for p, b in zip(probs, parameters.base, strict=True))))
        document = items[group[0]].document
        shared = crowd[document] if document else 1
        pieces.append(WeightedItem(probs, weights[group[0]] * shared**-parameters.delta, tuple(group)))
    return Weighing(tuple(pieces), found.complete)


def paper_weight(sigma: float, alpha: float) -> float:
    """The published weight of a piece of evidence: clip(1/(1 + sigma) · sigmoid(-alpha · sigma), 0, 1); at most 0.5.

    Source: the implementation of Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670.

    Args:
        sigma: Mean standard deviation of what it says, at least 0.
        alpha: Penalty on it, at least 0.
    """
    return min(1 / (1 + sigma) / (1 + math.exp(min(alpha * sigma, 700.0))), 1.0)


def _of_spread(draws: Sequence[Support], parameters: FusionParameters) -> float:
    """The part of the weight that the draws decide."""
    if parameters.weighting == "paper":
        middle = mean_of(draws)
        variances = (math.fsum((d[y] - middle[y]) ** 2 for d in draws) / len(draws) for y in range(3))
        return paper_weight(math.fsum(math.sqrt(v) for v in variances) / 3, parameters.alpha)
    if len(draws) == 1:
        return 1.0
    return math.exp(-parameters.alpha * split_variance(draws).between)


IRRELEVANT: Final = 0.1
"""Probability of a decisive label below which a piece may be left out where there are many."""


class WitnessFactor(NamedTuple):
    """What one piece of evidence testifies.

    Attributes:
        informative: q, the probability that it tells of the claim at all, in [0, 1).
        leaning: 2d - 1, d being the probability that it supports the claim if it does; in [-1, 1]. So written, pieces
            that say the opposite cancel to the last digit.
    """

    informative: float
    leaning: float

    @property
    def log_odds(self) -> float:
        """log(φ(1)/φ(0)): what it adds to the log-odds of the claim, in nats; at most log((1 + q)/(1 - q)) in size."""
        lean = self.informative * self.leaning
        return math.log1p(lean) - math.log1p(-lean)


def witness_factor(piece: WeightedItem, a: float) -> WitnessFactor:
    """What a piece testifies: q = a · w · (p_S + p_R), below 1, and d = p_S / (p_S + p_R).

    Args:
        piece: The piece.
        a: How far pieces are informative, in (0, 1].
    """
    supports, refutes, _ = piece.probs
    decisive = supports + refutes
    leaning = (supports - refutes) / decisive if decisive > 0 else 0.0
    return WitnessFactor(min(a * piece.weight * decisive, 1 - EPS), leaning)


def relevant_items(pieces: Sequence[WeightedItem], cap: int | None) -> list[bool]:
    """Which pieces are heard: all, or, where there are more than `cap`, those that may be decisive.

    Many pieces of a little relevance each would let "neutral" vanish. The step from `cap` to one more piece may
    therefore raise "neutral"; within either side it never rises with a piece more.
    """
    if cap is None or len(pieces) <= cap:
        return [True] * len(pieces)
    return [p.probs.supports + p.probs.refutes >= IRRELEVANT for p in pieces]


def witness_fusion(testimonies: Sequence[WitnessFactor], pi: float = 0.5) -> Support:
    """The verdict that testimonies amount to; of none it is "neutral" for certain.

    `neutral` is Π(1 - q), before the pieces are conditioned on their agreement, on purpose: afterwards it would be more
    confident. The rest is shared by the posterior of the claim.

    Args:
        testimonies: In any order.
        pi: Probability that the claim holds, before evidence; in (0, 1).
    """
    odds = math.log(pi) - math.log1p(-pi) + math.fsum(t.log_odds for t in testimonies)
    holds = 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
    fails = 1 / (1 + math.exp(odds)) if odds <= 0 else math.exp(-odds) / (1 + math.exp(-odds))
    silent = math.fsum(math.log1p(-t.informative) for t in testimonies)
    told = -math.expm1(silent)
    return Support(told * holds, told * fails, math.exp(silent))


class Conflict(NamedTuple):
    """How far testimonies contradict one another.

    Attributes:
        supporting: Informative pieces on the claim's side, Σ q d.
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


def conflict(testimonies: Sequence[WitnessFactor]) -> Conflict:
    """The two sides."""
    return Conflict(
        math.fsum(t.informative * (1 + t.leaning) / 2 for t in testimonies),
        math.fsum(t.informative * (1 - t.leaning) / 2 for t in testimonies),
    )


def product_fusion(pieces: Sequence[WeightedItem], beta: float = 1.0, prior: Support = UNIFORM) -> Support:
    """The normalised exp of log P(y) = log prior(y) + beta · Σ w log p(y); of no pieces it is the prior.

    Args:
        pieces: In any order; every probability above 0.
        beta: Exponent of all factors; 1 takes them to be independent.
        prior: Probabilities before evidence, above 0.
    """
    logs = [
        math.log(prior[y]) + beta * math.fsum(piece.weight * math.log(piece.probs[y]) for piece in pieces)
        for y in range(3)
    ]
    top = max(logs)
    raised = [math.exp(log - top) for log in logs]
    total = math.fsum(raised)
    return Support(*(r / total for r in raised))


def log_odds(piece: WeightedItem, beta: float) -> float:
    """What a piece adds to log P(supports)/P(refutes), in nats."""
    return beta * piece.weight * (math.log(piece.probs.supports) - math.log(piece.probs.refutes))


def mean_fusion(pieces: Sequence[WeightedItem]) -> Support:
    """Σ w p / Σ w; of no pieces, nothing."""
    return mean_of([p.probs for p in pieces], [p.weight for p in pieces]) if pieces else NOTHING


def vote_fusion(pieces: Sequence[WeightedItem]) -> Support:
    """Each piece votes for its likeliest label with its weight; half a vote more for each label keeps all possible.

    Of no pieces, nothing.
    """
    if not pieces:
        return NOTHING
    total = math.fsum(p.weight for p in pieces)

    def share(label: Label) -> float:
        return (math.fsum(p.weight for p in pieces if p.probs.label == label) + 0.5) / (total + 1.5)

    return Support(share("supports"), share("refutes"), share("neutral"))


def max_fusion(pieces: Sequence[WeightedItem]) -> Support:
    """What the piece says whose weight times max(p_S, p_R) is largest; the mean of several such; of none, nothing."""
    if not pieces:
        return NOTHING
    decided = [p.weight * max(p.probs.supports, p.probs.refutes) for p in pieces]
    top = max(decided)
    return mean_of([p.probs for p, value in zip(pieces, decided, strict=True) if value == top])


Reason = Literal["ok", "weak", "irrelevant", "conflict", "no_evidence"]
FusedLabel = Label | Literal["disputed"]

IRRELEVANT_NEUTRAL: Final = 0.5
"""Probability of "neutral" from which evidence is irrelevant."""


class FusedVerdict(Frozen):
    """What pieces of evidence say of a claim together.

    Attributes:
        probs: (supports, refutes, neutral).
        label: The likeliest, or "disputed"; before any gate. Among equals "neutral", then "refutes".
        confidence: Probability of the likeliest of the three; 0 if there is no evidence.
        conflict: How far the evidence contradicts itself, in [0, 1].
        k_eff: How many pieces of equal weight it amounts to.
        total: Variance of the mean distribution, `within + between`.
        within: Its part within pieces: they are vague.
        between: Its part between pieces: they differ.
        item_logodds: What each item adds to the log-odds of "supports" against "refutes", in nats, before the final
            temperature; 0 for items that are left out or that another of their copies speaks for. Empty in the modes
            "mean", "vote" and "max", where nothing adds up.
        duplicates: Places of items that are copies of one another, the one that speaks for them first.
        mode: How they were combined.
        reason: "no_evidence"; "irrelevant" (neutral has 0.5 or more); "conflict"; "weak" (not sure enough); or "ok".
        warnings: "unfitted": the parameters are defaults. "hard_labels": an item's verdict is a bare label.
            "duplicates_unfinished": the search for copies was ended.
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
    """Combine pieces of evidence. Their order does not matter, and items of no weight change nothing.

    Args:
        items: What each piece says; any number.
        parameters: How they are combined; by default "witness" with the defaults.
    """
    p = FusionParameters() if parameters is None else parameters
    weighed = weigh_items(items, p)
    pieces = weighed.pieces
    additive = p.mode in ("witness", "product")
    warnings = [
        name
        for name, given in (
            ("unfitted", not p.fitted),
            ("hard_labels", any(item.hard for item in items)),
            ("duplicates_unfinished", not weighed.complete),
        )
        if given
    ]
    if not pieces:
        return FusedVerdict(
            probs=NOTHING,
            label="neutral",
            confidence=0.0,
            conflict=0.0,
            k_eff=0.0,
            total=0.0,
            within=0.0,
            between=0.0,
            item_logodds=(0.0,) * len(items) if additive else (),
            duplicates=(),
            mode=p.mode,
            reason="no_evidence",
            warnings=tuple(warnings),
        )
    heard = relevant_items(pieces, p.cap) if p.mode == "witness" else [True] * len(pieces)
    testimonies = witness_factors(pieces, heard, p)
    probs = apply_temperature(combine(pieces, testimonies, p), p.final_temperature)
    sides = conflict(testimonies)
    contradicting = sides.degree >= p.theta_c
    disputed = p.disputed and contradicting and min(sides) >= p.least_side
    spread = split_variance([piece.probs for piece in pieces], [piece.weight for piece in pieces])
    confidence = min(probs.confidence, 1.0)
    return FusedVerdict(
        probs=probs,
        label="disputed" if disputed else probs.label,
        confidence=confidence,
        conflict=min(sides.degree, 1.0),
        k_eff=effective_sample_size([piece.weight for piece in pieces]),
        total=spread.total,
        within=spread.within,
        between=spread.between,
        item_logodds=_log_odds(len(items), pieces, testimonies, heard, p) if additive else (),
        duplicates=tuple(piece.places for piece in pieces if len(piece.places) > 1),
        mode=p.mode,
        reason=reason_for(probs, sides.degree, p.theta_c, p.threshold),
        warnings=tuple(warnings),
    )


def reason_for(probs: Support, degree: float, theta_c: float, threshold: float) -> Reason:
    """Why a verdict on some evidence is what it is; to be asked again where its probabilities were calibrated.

    Args:
        probs: The verdict.
        degree: Conflict of the evidence, in [0, 1].
        theta_c: Conflict from which it is contradictory.
        threshold: Confidence below which the verdict is weak.
    """
    if probs.neutral >= IRRELEVANT_NEUTRAL:
        return "irrelevant"
    if degree >= theta_c:
        return "conflict"
    return "weak" if probs.confidence < threshold else "ok"


def witness_factors(
    pieces: Sequence[WeightedItem], heard: Sequence[bool], parameters: FusionParameters
) -> list[WitnessFactor]:
    """What the pieces that are heard testify; in modes without a discount they are taken to be informative."""
    a = parameters.a if parameters.mode == "witness" else 1.0
    return [witness_factor(piece, a) for piece, is_heard in zip(pieces, heard, strict=True) if is_heard]


def combine(
    pieces: Sequence[WeightedItem], testimonies: Sequence[WitnessFactor], parameters: FusionParameters
) -> Support:
    """The verdict by the mode, before the final temperature, normalised."""
    if parameters.mode == "witness":
        found = witness_fusion(testimonies, parameters.pi)
    elif parameters.mode == "product":
        found = product_fusion(pieces, parameters.beta, parameters.prior)
    else:
        found = {"mean": mean_fusion, "vote": vote_fusion, "max": max_fusion}[parameters.mode](pieces)
    total = math.fsum(found)
    return found if total == 1 else Support(*(q / total for q in found))


def _log_odds(
    count: int,
    pieces: Sequence[WeightedItem],
    testimonies: Sequence[WitnessFactor],
    heard: Sequence[bool],
    parameters: FusionParameters,
) -> tuple[float, ...]:
    found = [0.0] * count
    told = iter(testimonies)
    for piece, is_heard in zip(pieces, heard, strict=True):
        if not is_heard:
            continue
        testified = next(told)
        by_product = parameters.mode == "product"
        found[piece.places[0]] = log_odds(piece, parameters.beta) if by_product else testified.log_odds
    return tuple(found)
