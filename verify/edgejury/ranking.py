"""From reviews to an order of the opinions: Borda, Copeland, Schulze, or the published sum of points.

Marks become an order within each review before anything is added up, exactly, in fractions: so a lenient reviewer
counts as much as a strict one. Sums are rounded once, so that neither the order of reviews nor that of jurors changes
anything.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), whose public implementation adds up all marks ("points"). Ranks are
our choice: its sums reward candidates whom more lenient reviewers saw, once own answers are left out. Copeland: A. H.
Copeland 1951, as in Saari, Merlin, "The Copeland method" (Economic Theory 8, 1996). Schulze: M. Schulze, "A new
monotonic, clone-independent, reversal symmetric, and Condorcet-consistent single-winner election method" (Social Choice
and Welfare 36, 2011), sections 2.2 and 2.3, with winning votes.

`concordance`: how far each reviewer may be trusted, by how often the others order the same pairs alike.

A reviewer that turns orders round, so that its own side gains, is contradicted by all others and counts for next to
nothing. Who marks everybody alike says nothing, and counts for as little.

What this cannot see: own answers are not reviewed, so two jurors' answers are compared by the others alone. Of four
reviewers those are two, and where they differ on nothing but this one pair, nothing tells which of them is right.

Source: the weight is that of an independent voter who is right with probability c, ln(c / (1 - c)): Nitzan, Paroush,
"Optimal Decision Rules in Uncertain Dichotomous Choice Situations" (International Economic Review 23, 1982). Taking the
agreement of others for being right is ours.

Where opinions stand after stage 2: what others are shown of them, whose reviews count for what, and the ranking.
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

CRITERIA: Final = (0.6, 0.2, 0.2)
"""What accuracy, insight and clarity count for."""
UNPLACED: Final = 0.5
"""B of an opinion that nobody placed."""

Placed = Sequence[tuple[float, Mapping[int, Fraction]]]
"""What each review weighs, and its marks by candidate."""


def rank(
    reviews: Sequence[Review],
    jurors: Sequence[int],
    *,
    aggregate: Aggregate = "borda",
    criteria: tuple[float, float, float] = CRITERIA,
    weights: Mapping[int, float] | None = None,
    exclude_self: bool = True,
) -> Ranking:
    """Order the opinions by what reviewers make of them.

    A review's mark of a candidate is s = w_a accuracy + w_i insight + w_c clarity, its rank that among the m candidates
    of the review, equal ones sharing their mean rank.

    - "borda": B, the mean over the reviews that placed the candidate of (m - rank) / (m - 1), or 1/2 where m = 1.
    - "copeland": the share of the others that it beats, a tie counting half; a beats b if the reviews that place a
      above b weigh more than those that place it below.
    - "schulze": the same, where a beats b if its strongest path to b is stronger than the way back; the strength of a
      path is the weight behind its weakest victory.
    - "points": the sum of accuracy + insight + clarity over all reviews; it ignores `criteria`.

    Of equal scores the better mean mark is first, then the one in which fewer reviewers name a `factual_risk`, then the
    lower juror.

    Args:
        reviews: The reviews; those that are not ok change nothing.
        jurors: Whose opinions are ranked; marks of others are left out.
        aggregate: The rule.
        criteria: Weights of the three criteria, none negative, not all 0.
        weights: What each reviewer's review counts for, not negative; 1 for one that is not named.
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Raises:
        UserError: There are no jurors, or a weight is negative or no number.
    """
    wanted = sorted(set(jurors))
    if not wanted:
        raise UserError("no opinions, so no order of them", hint="rank the jurors whose opinions are ok")
    trusted = weights or {}
    for weight in (*criteria, *trusted.values()):
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"a weight of {weight} counts for nothing that there is", hint="weights are 0 or more")
    if not any(criteria):
        raise UserError("all criteria weigh 0", hint="give accuracy, insight or clarity a weight")
    read = [review for review in reviews if review.ok]
    placed = []
    for review in read:
        marks = marks_of(review, criteria, exclude_self=exclude_self)
        known = {juror: mark for juror, mark in marks.items() if juror in wanted}
        placed.append((trusted.get(review.reviewer, 1.0), known))
    borda = {juror: _borda(juror, placed) for juror in wanted}
    match aggregate:
        case "borda":
            scores = borda
        case "copeland":
            scores = _shares(wanted, _preferred(wanted, placed))
        case "schulze":
            scores = _shares(wanted, _strongest_paths(wanted, _preferred(wanted, placed)))
        case "points":
            scores = {juror: _points(juror, read, trusted, exclude_self) for juror in wanted}
        case _:
            raise UserError(f"no rule is called {aggregate!r}", hint="borda, copeland, schulze or points")
    risks = _risks(read, exclude_self)
    standings = [
        Standing(
            juror=juror,
            score=scores[juror],
            borda=borda[juror],
            mark=_mean([(weight, float(marks[juror])) for weight, marks in placed if juror in marks]),
            factual_risks=risks[juror],
        )
        for juror in wanted
    ]
    return Ranking(rule=aggregate, standings=tuple(sorted(standings, key=_place)), reviews=len(read))


def rank_by_agreement(opinions: Sequence[Opinion], agreement: Mapping[tuple[int, int], float]) -> Ranking:
    """Order the opinions by how far the others agree, where there are too few reviews to go by.

    B of an opinion is then its mean agreement with the others; 1/2 if it is the only one.

    Args:
        opinions: The opinions; those that failed are left out.
        agreement: How far two agree, in [0, 1], by pairs of jurors, the lower first (see `pair_agreement`).

    Raises:
        UserError: No opinion is ok.
    """
    jurors = sorted(opinion.juror for opinion in opinions if opinion.ok)
    if not jurors:
        raise UserError("no opinions, so no order of them", hint="rank opinions that are ok")
    standings = []
    for juror in jurors:
        shared = [agreement[min(juror, other), max(juror, other)] for other in jurors if other != juror]
        mean = math.fsum(shared) / len(shared) if shared else UNPLACED
        standings.append(Standing(juror=juror, score=mean, borda=mean))
    return Ranking(rule="agreement", standings=tuple(sorted(standings, key=_place)))


def pair_agreement(opinions: Sequence[Opinion]) -> dict[tuple[int, int], float]:
    """How far every two opinions agree: 1 or 0 by their choices, or where one has none, by their words.

    Agreement by words is the F1 of their words, as in `issues.overlap`.
    """
    given = sorted((opinion for opinion in opinions if opinion.ok), key=lambda o: o.juror)
    return {
        (a.juror, b.juror): float(a.choice == b.choice)
        if a.choice is not None and b.choice is not None
        else overlap(a.text, b.text)
        for a, b in combinations(given, 2)
    }


def marks_of(
    review: Review, criteria: tuple[float, float, float] = CRITERIA, *, exclude_self: bool = True
) -> dict[int, Fraction]:
    """A review's weighted mark of each candidate, 1 to 10, exactly.

    Args:
        review: The review.
        criteria: What accuracy, insight and clarity count for.
        exclude_self: Whether its reviewer's own opinion is left out.
    """
    exact = [Fraction(repr(weight)) for weight in criteria]
    return {
        marks.candidate: sum((w * mark for w, mark in zip(exact, _three(marks), strict=True)), Fraction(0)) / sum(exact)
        for marks in review.scores
        if not (exclude_self and marks.candidate == review.reviewer)
    }


def borda_of(marks: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """One review's (m - rank) / (m - 1) of each candidate, which is the share of the others it is above; ties are half.

    Args:
        marks: The review's mark by candidate.
    """
    others = len(marks) - 1
    if others < 1:
        return dict.fromkeys(marks, Fraction(1, 2))
    return {
        juror: Fraction(sum(2 * (mark > m) + (mark == m) for m in marks.values()) - 1, 2 * others)
        for juror, mark in marks.items()
    }


def _three(marks: Marks) -> tuple[int, int, int]:
    return marks.accuracy, marks.insight, marks.clarity


def _borda(juror: int, placed: Placed) -> float:
    mean = _mean([(weight, float(borda_of(marks)[juror])) for weight, marks in placed if juror in marks])
    return UNPLACED if mean is None else mean


def _mean(weighed: Sequence[tuple[float, float]]) -> float | None:
    """Weighted mean; None of nothing. Sums are exact up to one rounding, so the order of the terms changes nothing."""
    total = math.fsum(weight for weight, _ in weighed)
    return math.fsum(weight * value for weight, value in weighed) / total if total > 0 else None


def _points(juror: int, reviews: Sequence[Review], trusted: Mapping[int, float], exclude_self: bool) -> float:
    return math.fsum(
        trusted.get(review.reviewer, 1.0) * sum(_three(marks))
        for review in reviews
        for marks in review.scores
        if marks.candidate == juror and not (exclude_self and juror == review.reviewer)
    )


def _preferred(jurors: Sequence[int], placed: Placed) -> dict[tuple[int, int], float]:
    """The weight of the reviews that place the first of a pair above the second."""
    return {
        (a, b): math.fsum(weight for weight, marks in placed if a in marks and b in marks and marks[a] > marks[b])
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
    """The share of the others that each beats, a tie counting half; 1/2 where there are no others."""
    if len(jurors) < 2:
        return dict.fromkeys(jurors, UNPLACED)
    beaten = {
        a: sum(2 * (strength[a, b] > strength[b, a]) + (strength[a, b] == strength[b, a]) for b in jurors if b != a)
        for a in jurors
    }
    return {juror: halves / (2 * (len(jurors) - 1)) for juror, halves in beaten.items()}


def _risks(reviews: Sequence[Review], exclude_self: bool) -> Counter[int]:
    """How many reviewers see a factual risk in each opinion; one that names many counts once."""
    return Counter(
        candidate
        for review in reviews
        for candidate in {issue.candidate for issue in review.issues if issue.kind == "factual_risk"}
        if not (exclude_self and candidate == review.reviewer)
    )


def _place(standing: Standing) -> tuple[float, float, int, int]:
    return (-standing.score, -(standing.mark or 0.0), standing.factual_risks, standing.juror)


LEAST: Final = 0.05
"""What a review counts for at least, so that a jury in which nobody agrees is one of equals."""


def concordance(
    reviews: Sequence[Review], *, criteria: tuple[float, float, float] = CRITERIA, exclude_self: bool = True
) -> dict[int, float]:
    """The weight of each reviewer.

    c = (agreed + 1) / (compared + 2) over all pairs of candidates and all other reviewers that order the pair, too;
    ties are left out. The weight is ln(c / (1 - c)), and 0.05 where that is less.

    Args:
        reviews: The reviews; one by a reviewer.
        criteria: Weights of the three criteria (see `ranking.rank`).
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Weights by reviewer, of the reviews that are ok. None depends on the order of the reviews.
    """
    marks = {review.reviewer: marks_of(review, criteria, exclude_self=exclude_self) for review in reviews if review.ok}
    orders = {reviewer: _ordered(own) for reviewer, own in marks.items()}
    weights: dict[int, float] = {}
    for reviewer, own in orders.items():
        shared = [
            first == theirs[pair]
            for other, theirs in orders.items()
            if other != reviewer
            for pair, first in own.items()
            if pair in theirs
        ]
        agreed = (sum(shared) + 1) / (len(shared) + 2)
        weights[reviewer] = max(LEAST, math.log(agreed / (1 - agreed)))
    return weights


def _ordered(marks: Mapping[int, Fraction]) -> dict[tuple[int, int], int]:
    """Which of every two candidates is the better one, for those that are not equal."""
    return {(a, b): a if marks[a] > marks[b] else b for a, b in combinations(sorted(marks), 2) if marks[a] != marks[b]}


LEAST_REVIEWS = 2
"""Reviews that a ranking by reviews needs."""


def ranked_by_reviews(
    reviews: Sequence[Review],
    candidates: Sequence[int],
    weights: Mapping[int, float],
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> Ranking:
    """The ranking by reviews, each counting for its reviewer's reliability and for how far others agree with it.

    Args:
        reviews: The reviews.
        candidates: What is ranked.
        weights: Reliability by reviewer; 1 for one that is not named.
        config: Parameters.
        run: The run, whose trace is told.
        exclude_self: Whether what a reviewer says of the candidate of its number is left out.
    """
    trusted = {review.reviewer: weights.get(review.reviewer, 1.0) for review in reviews if review.ok}
    if config.concordance and config.aggregate != "points":  # the published sums count every review alike
        agreed = concordance(reviews, criteria=config.weights, exclude_self=exclude_self)
        trusted = {reviewer: weight * agreed[reviewer] for reviewer, weight in trusted.items()}
    ranking = rank(
        reviews,
        candidates,
        aggregate=config.aggregate,
        criteria=config.weights,
        weights=trusted,
        exclude_self=exclude_self,
    )
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking


def ranked(
    reviews: Sequence[Review], given: Sequence[Opinion], weights: Mapping[int, float], config: PanelConfig, run: Run
) -> Ranking:
    """The ranking of opinions: by their reviews, or where fewer than two can be read by how far they agree.

    Args:
        reviews: The reviews; empty where there were none.
        given: The opinions, those that are ok.
        weights: Reliability by juror; 1 for one that is not named.
        config: Parameters.
        run: The run.
    """
    read = sum(review.ok for review in reviews)
    if read >= LEAST_REVIEWS:
        jurors = [opinion.juror for opinion in given]
        return ranked_by_reviews(reviews, jurors, weights, config, run, exclude_self=config.exclude_self)
    if reviews:
        run.degrade(f"{read} of {len(reviews)} reviews could be read: opinions are ranked by how far they agree")
    ranking = rank_by_agreement(given, pair_agreement(given))
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking
