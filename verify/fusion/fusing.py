"""`fuse`: many pieces of evidence into one verdict, with how sure it is and why it is not surer.

Source: Alege 2026, "I Know What I Don't Know: Latent Posterior Factor Models for Multi-Evidence Probabilistic
Reasoning", arXiv:2603.15670, of which soft factors, exponents, the exact combination and the split of the variance are
kept; nothing is learned here but a few numbers (`fitting`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from ...core.answer import Probability
from ...core.messages import Frozen
from ..calibration.temperature import temper
from ..support import NOTHING, Label, Support
from .items import Item
from .parameters import FusionParameters, Mode
from .pooled import mean, most_decisive, vote
from .product import log_odds, product
from .uncertainty import effective_count, split
from .weighing import Weighed, weigh
from .witness import Testimony, conflict, relevant, testimony, witness

Reason = Literal["ok", "weak", "irrelevant", "conflict", "no_evidence"]
FusedLabel = Label | Literal["disputed"]

MOSTLY_SILENT: Final = 0.5
"""Probability of "neutral" from which evidence is irrelevant."""


class Fusion(Frozen):
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


def fuse(items: Sequence[Item], parameters: FusionParameters | None = None) -> Fusion:
    """Combine pieces of evidence. Their order does not matter, and items of no weight change nothing.

    Args:
        items: What each piece says; any number.
        parameters: How they are combined; by default "witness" with the defaults.
    """
    p = FusionParameters() if parameters is None else parameters
    weighed = weigh(items, p)
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
        return Fusion(
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
    heard = relevant(pieces, p.cap) if p.mode == "witness" else [True] * len(pieces)
    testimonies = testimonies_of(pieces, heard, p)
    probs = temper(combined(pieces, testimonies, p), p.final_temperature)
    sides = conflict(testimonies)
    contradicting = sides.degree >= p.theta_c
    disputed = p.disputed and contradicting and min(sides) >= p.least_side
    spread = split([piece.probs for piece in pieces], [piece.weight for piece in pieces])
    confidence = min(probs.confidence, 1.0)
    return Fusion(
        probs=probs,
        label="disputed" if disputed else probs.label,
        confidence=confidence,
        conflict=min(sides.degree, 1.0),
        k_eff=effective_count([piece.weight for piece in pieces]),
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
    if probs.neutral >= MOSTLY_SILENT:
        return "irrelevant"
    if degree >= theta_c:
        return "conflict"
    return "weak" if probs.confidence < threshold else "ok"


def testimonies_of(pieces: Sequence[Weighed], heard: Sequence[bool], parameters: FusionParameters) -> list[Testimony]:
    """What the pieces that are heard testify; in modes without a discount they are taken to be informative."""
    a = parameters.a if parameters.mode == "witness" else 1.0
    return [testimony(piece, a) for piece, is_heard in zip(pieces, heard, strict=True) if is_heard]


def combined(pieces: Sequence[Weighed], testimonies: Sequence[Testimony], parameters: FusionParameters) -> Support:
    """The verdict by the mode, before the final temperature, normalised."""
    if parameters.mode == "witness":
        found = witness(testimonies, parameters.pi)
    elif parameters.mode == "product":
        found = product(pieces, parameters.beta, parameters.prior)
    else:
        found = {"mean": mean, "vote": vote, "max": most_decisive}[parameters.mode](pieces)
    total = math.fsum(found)
    return found if total == 1 else Support(*(q / total for q in found))


def _log_odds(
    count: int,
    pieces: Sequence[Weighed],
    testimonies: Sequence[Testimony],
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
