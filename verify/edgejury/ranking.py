"""From reviews to a ranking of the opinions: Borda, or the published sum of points.

Marks become an order within each review before they are added up, exactly, in fractions, so that a lenient reviewer
counts as much as a strict one. Sums are rounded once, so that the order of reviews and jurors does not matter.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), whose public implementation sums all marks ("points"). Differs:
ranks, since sums favour candidates of lenient reviewers once own answers are excluded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Final

from ...core.errors import UserError
from ...core.events import OpinionsRanked
from ...core.run import Run
from .review import overlap
from .types import Aggregate, Marks, Opinion, Ranking, Review, Standing

CRITERIA_WEIGHTS: Final = (Fraction("0.6"), Fraction("0.2"), Fraction("0.2"))
"""Weights of accuracy, insight and clarity."""
UNRANKED_BORDA: Final = 0.5
"""B of an opinion without marks."""
MIN_REVIEWS: Final = 2
"""Number of reviews that a ranking by reviews needs."""


def rank(reviews: Sequence[Review], jurors: Sequence[int], *, aggregate: Aggregate = "borda") -> Ranking:
    """Rank the opinions by their reviews.

    A review's mark of a candidate is s = 0.6 accuracy + 0.2 insight + 0.2 clarity, and its rank is that among the m
    candidates of the review; ties share their mean rank.

    - "borda": B, the mean over the reviews of the candidate of (m - rank) / (m - 1), or 1/2 where m = 1.
    - "points": the sum of accuracy + insight + clarity over all reviews.

    Ties go to the better mean mark, then to fewer reviewers naming a `factual_risk`, then to the lower juror.

    Args:
        reviews: The reviews; failed ones do not count.
        jurors: The jurors whose opinions are ranked.

    Raises:
        UserError: There are no jurors.
    """
    candidates = sorted(set(jurors))
    if not candidates:
        raise UserError("there are no opinions to rank", hint="rank the jurors whose opinions are ok")
    counted = [review for review in reviews if review.ok]
    marks = [marks_of(review) for review in counted]
    shares = [borda_of({juror: mark for juror, mark in own.items() if juror in candidates}) for own in marks]
    risks = Counter(
        candidate
        for review in counted
        for candidate in {issue.candidate for issue in review.issues if issue.kind == "factual_risk"}
    )
    standings = []
    for juror in candidates:
        borda = _mean([share[juror] for share in shares if juror in share])
        borda = UNRANKED_BORDA if borda is None else borda
        points = sum(sum(_marks(one)) for review in counted for one in review.scores if one.candidate == juror)
        standings.append(
            Standing(
                juror=juror,
                score=borda if aggregate == "borda" else float(points),
                borda=borda,
                mark=_mean([own[juror] for own in marks if juror in own]),
                factual_risks=risks[juror],
            )
        )
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


def rank_opinions(reviews: Sequence[Review], opinions: Sequence[Opinion], aggregate: Aggregate, run: Run) -> Ranking:
    """The ranking by reviews, or by agreement with fewer than two that could be parsed."""
    num_readable = sum(review.ok for review in reviews)
    if num_readable >= MIN_REVIEWS:
        ranking = rank(reviews, [opinion.juror for opinion in opinions], aggregate=aggregate)
    else:
        ranking = rank_by_agreement(opinions, pair_agreement(opinions))
        if reviews:
            run.degrade(
                f"only {num_readable} of {len(reviews)} reviews could be parsed: opinions are ranked by agreement"
            )
    run.emit(OpinionsRanked(report=ranking.model_dump(mode="json")))
    return ranking


def marks_of(review: Review) -> dict[int, Fraction]:
    """A review's exact weighted mark of each candidate, 1 to 10."""
    return {
        marks.candidate: sum((w * mark for w, mark in zip(CRITERIA_WEIGHTS, _marks(marks), strict=True)), Fraction(0))
        for marks in review.scores
    }


def borda_of(marks: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """One review's (m - rank) / (m - 1) of each candidate: the share of the others it is above, ties counting half."""
    others = len(marks) - 1
    if others < 1:
        return dict.fromkeys(marks, Fraction(1, 2))
    return {
        juror: Fraction(sum(2 * (mark > m) + (mark == m) for m in marks.values()) - 1, 2 * others)
        for juror, mark in marks.items()
    }


def _marks(marks: Marks) -> tuple[int, int, int]:
    return marks.accuracy, marks.insight, marks.clarity


def _mean(values: Sequence[Fraction]) -> float | None:
    return float(sum(values, Fraction(0)) / len(values)) if values else None


def _sort_key(standing: Standing) -> tuple[float, float, int, int]:
    return (-standing.score, -(standing.mark or 0.0), standing.factual_risks, standing.juror)
