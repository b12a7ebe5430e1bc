"""From reviews to a ranking of the opinions: Borda, Copeland, Schulze, or the published sum of points.

Marks become an order within each review before they are added up, exactly, in fractions, so that a lenient reviewer
counts as much as a strict one. Sums are rounded once, so that the order of reviews and jurors does not matter.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), whose public implementation sums all marks ("points"). Differs:
    ranks,
since sums favour candidates of lenient reviewers once own answers are excluded. Copeland: A. H. Copeland 1951, as in
Saari, Merlin, "The Copeland method" (Economic Theory 8, 1996). Schulze: M. Schulze, "A new monotonic,
clone-independent, reversal symmetric, and Condorcet-consistent single-winner election method" (Social Choice and
Welfare 36, 2011), sections 2.2 and 2.3, with winning votes. The weight of a reviewer is that of an independent voter
who is right with probability c, ln(c / (1 - c)): Nitzan, Paroush, "Optimal Decision Rules in Uncertain Dichotomous
Choice Situations" (International Economic Review 23, 1982); estimating c by the agreement of the others is ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations, permutations
from typing import Final

from ...core.errors import UserError
from ...core.events import OpinionsRanked
from ...core.run import Run
from .config import PanelConfig
from .review import overlap
from .types import Aggregate, Marks, Opinion, Ranking, Review, Standing

CRITERIA_WEIGHTS: Final = (0.6, 0.2, 0.2)
"""Weights of accuracy, insight and clarity."""
UNRANKED_BORDA: Final = 0.5
"""B of an opinion without marks."""

WeightedMarks = Sequence[tuple[float, Mapping[int, Fraction]]]
"""Weight and marks by candidate of each review."""


def rank(
    reviews: Sequence[Review],
    jurors: Sequence[int],
    *,
    aggregate: Aggregate = "borda",
    criteria: tuple[float, float, float] = CRITERIA_WEIGHTS,
    weights: Mapping[int, float] | None = None,
    exclude_self: bool = True,
) -> Ranking:
    """Rank the opinions by their reviews.

    A review's mark of a candidate is s = w_a accuracy + w_i insight + w_c clarity, and its rank is that among the m
    candidates of the review; ties share their mean rank.

    - "borda": B, the mean over the reviews of the candidate of (m - rank) / (m - 1), or 1/2 where m = 1; of a review
    by comparisons its `wins`, which are the expectation of that.
    - "copeland": the share of the others that it beats, a tie counting half; a beats b if the reviews that rank a above
    b weigh more than those that rank it below. - "schulze": the same, where a beats b if its strongest path to b is
    stronger than the reverse; the strength of a path is the weight of its weakest victory. - "points": the sum of
    accuracy + insight + clarity over all reviews; ignores `criteria`.

    Ties go to the better mean mark, then to fewer reviewers naming a `factual_risk`, then to the lower juror.

    Args:
        reviews: The reviews; failed ones do not count.
        jurors: The jurors whose opinions are ranked.
        aggregate: The rule.
        criteria: Weights of the criteria, none negative, not all 0.
        weights: Weight of each reviewer, not negative; 1 by default.
        exclude_self: Whether marks of the reviewer's own opinion are ignored.

    Raises:
        UserError: There are no jurors, or a weight is negative or not finite.
    """
    candidates = sorted(set(jurors))
    if not candidates:
        raise UserError("there are no opinions to rank", hint="rank the jurors whose opinions are ok")
    reviewer_weights = weights or {}
    for weight in (*criteria, *reviewer_weights.values()):
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"weights must be finite and not negative, got {weight}", hint="use 0 or more")
    if not any(criteria):
        raise UserError("all criteria have weight 0", hint="give accuracy, insight or clarity a weight")
    counted = [review for review in reviews if review.ok]
    weighted_orders, weighted_marks, shares = [], [], []
    for review in counted:
        order = order_of(review, criteria, exclude_self=exclude_self)
        own_order = {juror: mark for juror, mark in order.items() if juror in candidates}
        weight = reviewer_weights.get(review.reviewer, 1.0)
        weighted_orders.append((weight, own_order))
        weighted_marks.append((weight, marks_of(review, criteria, exclude_self=exclude_self)))
        shares.append((weight, own_order if review.wins else borda_of(own_order)))
    borda = {juror: _borda(juror, shares) for juror in candidates}
    match aggregate:
        case "borda":
            scores = borda
        case "copeland":
            scores = _shares(candidates, _preferred(candidates, weighted_orders))
        case "schulze":
            scores = _shares(candidates, _strongest_paths(candidates, _preferred(candidates, weighted_orders)))
        case "points":
            scores = {juror: _points(juror, counted, reviewer_weights, exclude_self) for juror in candidates}
        case _:
            raise UserError(f"unknown ranking rule {aggregate!r}", hint="use borda, copeland, schulze or points")
    risks = _risks(counted, exclude_self)
    standings = [
        Standing(
            juror=juror,
            score=scores[juror],
            borda=borda[juror],
            mark=_mean([(weight, float(marks[juror])) for weight, marks in weighted_marks if juror in marks]),
            factual_risks=risks[juror],
        )
        for juror in candidates
    ]
    return Ranking(rule=aggregate, standings=tuple(sorted(standings, key=_sort_key)), reviews=len(counted))


def rank_by_agreement(opinions: Sequence[Opinion], agreement: Mapping[tuple[int, int], float]) -> Ranking:
    """Rank the opinions by mutual agreement, for lack of reviews.

    B of an opinion is then its mean agreement with the others; 1/2 if it is the only one.

    Args:
        opinions: The opinions; failed ones are ignored.
        agreement: Agreement in [0, 1] by pair of jurors, the lower first (see `pair_agreement`).

    Raises:
        UserError: No opinion is ok.
    """
    jurors = sorted(opinion.juror for opinion in opinions if opinion.ok)
    if not jurors:
        raise UserError("there are no opinions to rank", hint="rank opinions that are ok")
    standings = []
    for juror in jurors:
        agreements = [agreement[min(juror, other), max(juror, other)] for other in jurors if other != juror]
        mean = math.fsum(agreements) / len(agreements) if agreements else UNRANKED_BORDA
        standings.append(Standing(juror=juror, score=mean, borda=mean))
    return Ranking(rule="agreement", standings=tuple(sorted(standings, key=_sort_key)))


def pair_agreement(opinions: Sequence[Opinion]) -> dict[tuple[int, int], float]:
    """Agreement of every two opinions: 1 or 0 by their choices, or the word F1 of their texts if one has none."""
    complete = sorted((opinion for opinion in opinions if opinion.ok), key=lambda o: o.juror)
    return {
        (a.juror, b.juror): float(a.choice == b.choice)
        if a.choice is not None and b.choice is not None
        else overlap(a.text, b.text)
        for a, b in combinations(complete, 2)
    }


def marks_of(
    review: Review, criteria: tuple[float, float, float] = CRITERIA_WEIGHTS, *, exclude_self: bool = True
) -> dict[int, Fraction]:
    """A review's exact weighted mark of each candidate, 1 to 10."""
    exact = [Fraction(repr(weight)) for weight in criteria]
    return {
        marks.candidate: sum((w * mark for w, mark in zip(exact, _mark_tuple(marks), strict=True)), Fraction(0))
        / sum(exact)
        for marks in review.scores
        if not (exclude_self and marks.candidate == review.reviewer)
    }


def order_of(
    review: Review, criteria: tuple[float, float, float] = CRITERIA_WEIGHTS, *, exclude_self: bool = True
) -> dict[int, Fraction]:
    """What a review orders its candidates by: their wins if it compares them, else their marks."""
    if review.wins:
        return {juror: Fraction(win) for juror, win in review.wins.items()}
    return marks_of(review, criteria, exclude_self=exclude_self)


def borda_of(marks: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """One review's (m - rank) / (m - 1) of each candidate: the share of the others it is above, ties counting half."""
    others = len(marks) - 1
    if others < 1:
        return dict.fromkeys(marks, Fraction(1, 2))
    return {
        juror: Fraction(sum(2 * (mark > m) + (mark == m) for m in marks.values()) - 1, 2 * others)
        for juror, mark in marks.items()
    }


def _mark_tuple(marks: Marks) -> tuple[int, int, int]:
    return marks.accuracy, marks.insight, marks.clarity


def _borda(juror: int, shares: WeightedMarks) -> float:
    mean = _mean([(weight, float(share[juror])) for weight, share in shares if juror in share])
    return UNRANKED_BORDA if mean is None else mean


def _mean(weighted: Sequence[tuple[float, float]]) -> float | None:
    """Weighted mean; None if empty. Sums are exact up to one rounding, so the order of the terms does not matter."""
    total = math.fsum(weight for weight, _ in weighted)
    return math.fsum(weight * value for weight, value in weighted) / total if total > 0 else None


def _points(juror: int, reviews: Sequence[Review], reviewer_weights: Mapping[int, float], exclude_self: bool) -> float:
    return math.fsum(
        reviewer_weights.get(review.reviewer, 1.0) * sum(_mark_tuple(marks))
        for review in reviews
        for marks in review.scores
        if marks.candidate == juror and not (exclude_self and juror == review.reviewer)
    )


def _preferred(jurors: Sequence[int], weighted_marks: WeightedMarks) -> dict[tuple[int, int], float]:
    """The weight of the reviews that rank the first of a pair above the second."""
    return {
        (a, b): math.fsum(
            weight for weight, marks in weighted_marks if a in marks and b in marks and marks[a] > marks[b]
        )
        for a, b in permutations(jurors, 2)
    }


def _strongest_paths(jurors: Sequence[int], preferred: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The strength of the strongest path between every two (Schulze 2011, section 2.3)."""
    paths = {(a, b): w if w > preferred[b, a] else 0.0 for (a, b), w in preferred.items()}
    for via in jurors:
        for a, b in permutations(jurors, 2):
            if via not in (a, b):
                paths[a, b] = max(paths[a, b], min(paths[a, via], paths[via, b]))
    return paths


def _shares(jurors: Sequence[int], strength: Mapping[tuple[int, int], float]) -> dict[int, float]:
    """The share of the others that each beats, a tie counting half; 1/2 without others."""
    if len(jurors) < 2:
        return dict.fromkeys(jurors, UNRANKED_BORDA)
    beaten = {
        a: sum(2 * (strength[a, b] > strength[b, a]) + (strength[a, b] == strength[b, a]) for b in jurors if b != a)
        for a in jurors
    }
    return {juror: halves / (2 * (len(jurors) - 1)) for juror, halves in beaten.items()}


def _risks(reviews: Sequence[Review], exclude_self: bool) -> Counter[int]:
    """Number of reviewers who name a factual risk in each opinion."""
    return Counter(
        candidate
        for review in reviews
        for candidate in {issue.candidate for issue in review.issues if issue.kind == "factual_risk"}
        if not (exclude_self and candidate == review.reviewer)
    )


def _sort_key(standing: Standing) -> tuple[float, float, int, int]:
    return (-standing.score, -(standing.mark or 0.0), standing.factual_risks, standing.juror)


MIN_REVIEWER_WEIGHT: Final = 0.05
"""Minimum weight, with which a jury without any agreement has equal votes."""


def concordance(
    reviews: Sequence[Review], *, criteria: tuple[float, float, float] = CRITERIA_WEIGHTS, exclude_self: bool = True
) -> dict[int, float]:
    """The weight of each reviewer by its agreement with the others on pairs of candidates.

    c = (agreed + 1) / (compared + 2) over all pairs of candidates and all reviews of other reviewers that order the
    pair; ties are ignored. A reviewer may have several reviews, such as one of each pair in each order. The weight is
    ln(c / (1 - c)), at least 0.05. A reviewer that inverts orders to favour its own answer is contradicted by all
    others and has next to no weight, as has one that marks everything alike.

    Limits: own answers are not reviewed, so two jurors' answers are compared by the others only, of four reviewers by
        two. If
    these differ only on this pair, nothing shows which is right.

    Args:
        criteria: Weights of the criteria (see `rank`).
        exclude_self: Whether marks of the reviewer's own opinion are ignored.

    Returns:
        Weights by reviewer, of the reviews that are ok, independent of their order.
    """
    orders: dict[int, list[dict[tuple[int, int], int]]] = {}
    for review in reviews:
        if review.ok:
            marks = order_of(review, criteria, exclude_self=exclude_self)
            orders.setdefault(review.reviewer, []).append(_pair_winners(marks))
    weights: dict[int, float] = {}
    for reviewer, own in orders.items():
        agreements = [
            first == other_winners[pair]
            for other, others in orders.items()
            if other != reviewer
            for other_winners in others
            for winners in own
            for pair, first in winners.items()
            if pair in other_winners
        ]
        agreed = (sum(agreements) + 1) / (len(agreements) + 2)
        weights[reviewer] = max(MIN_REVIEWER_WEIGHT, math.log(agreed / (1 - agreed)))
    return weights


def _pair_winners(marks: Mapping[int, Fraction]) -> dict[tuple[int, int], int]:
    """The better candidate of every two that are not equal."""
    return {(a, b): a if marks[a] > marks[b] else b for a, b in combinations(sorted(marks), 2) if marks[a] != marks[b]}


MIN_REVIEWS = 2
"""Number of reviews that a ranking by reviews needs."""


def rank_by_reviews(
    reviews: Sequence[Review],
    candidates: Sequence[int],
    weights: Mapping[int, float],
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> Ranking:
    """The ranking by reviews, weighted by reliability and concordance.

    Args:
        candidates: The candidates to rank.
        weights: Reliability by reviewer; 1 by default.
        exclude_self: Whether marks of the reviewer's own opinion are ignored.
    """
    reviewer_weights = {review.reviewer: weights.get(review.reviewer, 1.0) for review in reviews if review.ok}
    if config.concordance and config.aggregate != "points":  # the published sum weights all reviews equally
        trust = concordance(reviews, exclude_self=exclude_self)
        reviewer_weights = {reviewer: weight * trust[reviewer] for reviewer, weight in reviewer_weights.items()}
    ranking = rank(
        reviews,
        candidates,
        aggregate=config.aggregate,
        weights=reviewer_weights,
        exclude_self=exclude_self,
    )
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking


def rank_opinions(
    reviews: Sequence[Review], opinions: Sequence[Opinion], weights: Mapping[int, float], config: PanelConfig, run: Run
) -> Ranking:
    """The ranking of the opinions by their reviews, or by agreement if fewer than two reviews could be parsed.

    Args:
        weights: Reliability by juror; 1 by default.
    """
    num_readable = sum(review.ok for review in reviews)
    if num_readable >= MIN_REVIEWS:
        jurors = [opinion.juror for opinion in opinions]
        return rank_by_reviews(reviews, jurors, weights, config, run, exclude_self=config.exclude_self)
    if reviews:
        run.degrade(f"only {num_readable} of {len(reviews)} reviews could be parsed: opinions are ranked by agreement")
    ranking = rank_by_agreement(opinions, pair_agreement(opinions))
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking
