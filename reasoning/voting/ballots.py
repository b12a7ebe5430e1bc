"""Counting ranked ballots: Borda count, instant runoff, mean reciprocal rank. Pure arithmetic, exact.

A ballot names answers, the best first, each once; it need not name all. Under every rule, ballots of a single answer
make a plurality vote. The order of the ballots has no influence; of equal answers the smallest wins, so the
caller's numbering breaks ties.

Source: Wang et al., "Ranked Voting based Self-Consistency of Large Language Models" (Findings of ACL 2025,
arXiv:2505.10772).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush
from typing import Literal

from ...core.errors import UserError

CountingRule = Literal["borda", "irv", "mrr"]
Ballot = Sequence[int]


@dataclass(frozen=True)
class Election:
    """The outcome of a count.

    Attributes:
        winner: The answer that won.
        scores: Each answer's score, the best first: points, ballots that counted for it in its last round, or mean of
            reciprocal ranks.
        max_score: Score of an answer that is first on every ballot.
        eliminated: Under "irv", the eliminated answers, in order; else empty.
    """

    winner: int
    scores: dict[int, Fraction]
    max_score: Fraction
    eliminated: tuple[int, ...] = ()

    @property
    def share(self) -> Fraction:
        """The winner's score as a share of the maximum, in (0, 1]; 1 if it is first on every ballot."""
        return self.scores[self.winner] / self.max_score


def count_ballots(ballots: Sequence[Ballot], rule: CountingRule) -> Election:
    """Count ballots.

    - "borda": on ballots of up to m answers the first gets m points, the second m - 1, and so on; an answer that a
      ballot does not name gets none from it.
    - "irv": each ballot counts for its best answer that is not eliminated, if any. While no answer has more than half
      of the ballots that count, the one with the fewest is eliminated; of equals the one with the fewer Borda points,
      then the largest.
    - "mrr": the mean over all ballots of 1 / rank, 0 for an answer that is not named.

    Differs: the authors' program gives the first of k answers on a ballot k points, so that a chain that names a single
    answer would count a third of one that names three; m is the same for all ballots here, and the two agree where all
    are of one length. In its instant runoff the ballots of an eliminated answer are dropped; here they pass to the next
    answer, as the rule requires.

    Args:
        ballots: The ballots.
        rule: How they are counted.

    Raises:
        UserError: There is no ballot, one is empty or names an answer twice, or there is no such rule.
    """
    if not ballots or any(not ballot or len(set(ballot)) < len(ballot) for ballot in ballots):
        raise UserError("every ballot needs one or more answers, none of them twice, and there must be a ballot")
    match rule:
        case "borda":
            depth = max(map(len, ballots))
            return _by_score(_points(ballots), Fraction(depth * len(ballots)))
        case "mrr":
            sums: dict[int, Fraction] = {}
            for ballot in ballots:
                for rank, answer in enumerate(ballot, 1):
                    sums[answer] = sums.get(answer, Fraction(0)) + Fraction(1, rank)
            return _by_score({a: s / len(ballots) for a, s in sums.items()}, Fraction(1))
        case "irv":
            return _runoff(ballots)
        case _:
            raise UserError(f"no rule of counting is called {rule!r}", hint="borda, irv or mrr")


def first_choices(ballots: Sequence[Ballot]) -> dict[int, int]:
    """How often each answer is first, in decreasing order, of equals the smallest; 0 for answers that never are."""
    counts = {answer: 0 for ballot in ballots for answer in ballot}
    for ballot in ballots:
        counts[ballot[0]] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _points(ballots: Sequence[Ballot]) -> dict[int, Fraction]:
    depth = max(map(len, ballots))
    points: dict[int, Fraction] = {}
    for ballot in ballots:
        for rank, answer in enumerate(ballot):
            points[answer] = points.get(answer, Fraction(0)) + depth - rank
    return points


def _by_score(scores: dict[int, Fraction], max_score: Fraction, eliminated: tuple[int, ...] = ()) -> Election:
    ranked = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
    return Election(next(iter(ranked)), ranked, max_score, eliminated)


def _runoff(ballots: Sequence[Ballot]) -> Election:
    points = _points(ballots)
    supporters: dict[int, list[Iterator[int]]] = {answer: [] for answer in points}
    for ballot in ballots:
        rest = iter(ballot)
        supporters[next(rest)].append(rest)
    counts = {answer: len(held) for answer, held in supporters.items()}
    weakest = [(count, points[answer].numerator, -answer) for answer, count in counts.items()]
    heapify(weakest)
    standing = set(points)
    eliminated: list[int] = []
    counting, most = len(ballots), max(counts.values())
    while 2 * most <= counting:  # at the latest the last one left has them all: a ballot names it
        count, _, negative = heappop(weakest)
        loser = -negative
        if count < counts[loser]:  # it has got votes since
            continue
        standing.remove(loser)
        eliminated.append(loser)
        for rest in supporters[loser]:
            heir = next((answer for answer in rest if answer in standing), None)
            if heir is None:
                counting -= 1
                continue
            supporters[heir].append(rest)
            counts[heir] += 1
            most = max(most, counts[heir])
            heappush(weakest, (counts[heir], points[heir].numerator, -heir))
    leader = next(answer for answer in standing if counts[answer] == most)
    last = {answer: Fraction(count) for answer, count in counts.items()}
    order = sorted(last, key=lambda a: (a not in standing, -last[a], a))
    return Election(leader, {a: last[a] for a in order}, Fraction(len(ballots)), tuple(eliminated))
