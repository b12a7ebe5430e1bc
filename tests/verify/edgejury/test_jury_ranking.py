"""Rankings from reviews: the two rules, what they must not depend on, and who may not decide."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.run import Run
from reason.verify.edgejury.ranking import pair_agreement, rank, rank_by_agreement, rank_opinions
from reason.verify.edgejury.types import Aggregate, Issue, Marks, Opinion, Ranking, Review
from support.stored_runs import run_config

RULES: tuple[Aggregate, ...] = ("borda", "points")


def review(reviewer: int, marks: dict[int, int | tuple[int, int, int]], risks: Sequence[int] = ()) -> Review:
    return Review(
        reviewer=reviewer,
        ok=True,
        scores=tuple(
            Marks(candidate=c, accuracy=m[0], insight=m[1], clarity=m[2])
            for c, m in ((c, m if isinstance(m, tuple) else (m, m, m)) for c, m in marks.items())
        ),
        issues=tuple(Issue(candidate=c, kind="factual_risk", detail="it is false") for c in risks),
    )


def in_order(reviewer: int, best_first: Sequence[int]) -> Review:
    return review(reviewer, {c: 10 - 2 * place for place, c in enumerate(best_first)})


def borda(ranking: Ranking) -> list[float]:
    return [b for _, b in sorted(ranking.borda.items())]


def test_borda_of_two_reviewers_and_three_candidates():
    found = rank([in_order(3, (0, 1, 2)), in_order(4, (0, 2, 1))], [0, 1, 2])
    assert borda(found) == [1.0, 0.25, 0.25]
    assert (found.best, found.reviews, found.rule) == (0, 2, "borda")


def test_ties_share_mean_rank():
    assert borda(rank([review(3, {0: 8, 1: 8, 2: 5})], [0, 1, 2])) == [0.75, 0.75, 0.0]


def test_points_are_sums_of_marks():
    found = rank([review(2, {0: (8, 7, 6), 1: (6, 9, 8)})], [0, 1], aggregate="points")
    assert {s.juror: s.score for s in found.standings} == {0: 21.0, 1: 23.0}
    assert found.best == 1
    assert rank([review(2, {0: (8, 7, 6), 1: (6, 9, 8)})], [0, 1]).best == 0  # accuracy has the largest weight here


def test_marks_are_weighted_exactly():
    # 0.6 * 5 + 0.2 * 9 + 0.2 * 4 and 0.6 * 6 + 0.2 * 5 + 0.2 * 5 are both 5.6, but not in floating point
    found = rank([review(2, {0: (5, 9, 4), 1: (6, 5, 5)})], [0, 1])
    assert borda(found) == [0.5, 0.5]
    assert found.standings[0].mark == pytest.approx(5.6)


def test_unranked_opinion_has_borda_one_half():
    found = rank([review(3, {0: 8, 1: 5})], [0, 1, 2])
    assert borda(found) == [1.0, 0.0, 0.5]
    assert found.order == (0, 2, 1)
    assert [s.mark for s in found.standings] == [8.0, None, 5.0]
    assert borda(rank([review(3, {0: 2})], [0, 1])) == [0.5, 0.5]  # a single candidate has no rank


def test_only_factual_risks_are_counted():
    kinds = ("factual_risk", "missing_edge_case", "unclear", "incomplete")
    issues = tuple(Issue(candidate=c, kind=kind, detail="it is so") for c in range(3) for kind in kinds)
    reviews = [Review(reviewer=r, ok=True, scores=(), issues=issues) for r in (1, 7)]
    risks = {s.juror: s.factual_risks for s in rank(reviews, [0, 1, 2]).standings}
    assert risks == {0: 2, 1: 2, 2: 2}
    others = [Issue(candidate=0, kind=kind, detail="it is so") for kind in kinds[1:]]
    assert rank([Review(reviewer=7, ok=True, scores=(), issues=tuple(others))], [0]).standings[0].factual_risks == 0


def test_ties_rank_unmarked_last():
    assert rank([review(7, {1: 1})], [0, 1]).order == (1, 0)  # both are 1/2; 1 has the lowest mark there is, 0 none


def test_tie_break_order():
    by_mark = [review(3, {0: 5, 1: 8}), review(4, {0: 6, 1: 5})]
    assert rank(by_mark, [0, 1]).order == (1, 0)  # B is 1/2 each, the means are 5.5 and 6.5
    level = [review(3, {0: 5, 1: 5}, risks=[0, 0, 0])]
    assert rank(level, [0, 1]).order == (1, 0)
    assert [s.factual_risks for s in rank(level, [0, 1]).standings] == [0, 1]
    assert rank([review(3, {0: 5, 1: 5})], [1, 0]).order == (0, 1)


def test_unparsed_review_changes_nothing():
    reviews = [in_order(0, (1, 2)), in_order(1, (2, 0)), in_order(2, (1, 0))]
    for rule in RULES:
        before = rank(reviews, [0, 1, 2], aggregate=rule)
        assert rank([*reviews, Review(reviewer=3, ok=False, failure="no marks")], [0, 1, 2], aggregate=rule) == before


@given(
    st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 10), min_size=1), min_size=1, max_size=5),
    st.sampled_from(RULES),
    st.permutations(range(5)),
    st.randoms(),
)
def test_ranking_is_independent_of_order(marks, rule, names, shuffler):
    reviews = [review(reviewer, given) for reviewer, given in enumerate(marks)]
    found = rank(reviews, range(5), aggregate=rule)
    turned = list(reviews)
    shuffler.shuffle(turned)
    assert rank(turned, [4, 2, 0, 3, 1], aggregate=rule) == found
    # the same jury under other numbers: every juror has the score it had
    renamed = [review(names[r.reviewer], {names[m.candidate]: m.accuracy for m in r.scores}) for r in turned]
    again = rank(renamed, range(5), aggregate=rule)
    scores = {s.juror: (s.score, s.borda, s.mark) for s in again.standings}
    assert {names[s.juror]: (s.score, s.borda, s.mark) for s in found.standings} == scores


@given(st.lists(st.lists(st.integers(1, 4), min_size=4, max_size=4), min_size=2, max_size=4), st.integers(1, 2))
def test_borda_is_invariant_to_affine_marks(marks, b):
    plain = [review(4 + r, dict(enumerate(given))) for r, given in enumerate(marks)]
    stretched = [review(4, {c: 2 * m + b for c, m in enumerate(marks[0])}), *plain[1:]]
    before, after = (rank(reviews, range(4)) for reviews in (plain, stretched))
    scores = {s.juror: s.score for s in before.standings}
    assert {s.juror: s.score for s in after.standings} == scores
    if len(set(scores.values())) == len(scores):  # equal scores go by mean marks, which do have a scale
        assert before.order == after.order


def test_points_depend_on_scale_of_marks():
    mild, strict = review(2, {0: 4, 1: 3}), [review(3, {0: 5, 1: 7})]
    stretched = review(2, {0: 10, 1: 7})  # 3 m - 2
    assert rank([mild, *strict], [0, 1], aggregate="points").best == 1
    assert rank([stretched, *strict], [0, 1], aggregate="points").best == 0
    assert borda(rank([mild, *strict], [0, 1])) == borda(rank([stretched, *strict], [0, 1]))


def test_ranking_by_agreement_without_reviews():
    def opinion(juror: int, text: str, choice: str | None = None) -> Opinion:
        return Opinion(juror=juror, model="m", text=text, choice=choice, ok=True)

    closed = [opinion(0, "a", "A"), opinion(1, "b", "B"), opinion(2, "c", "B"), Opinion(juror=3, model="m", ok=False)]
    found = rank_by_agreement(closed, pair_agreement(closed))
    assert (found.order, found.rule) == ((1, 2, 0), "agreement")
    assert borda(found) == [0.0, 0.5, 0.5]
    assert pair_agreement([opinion(0, "b", "B"), opinion(1, "a", "A")]) == {(0, 1): 0.0}
    assert pair_agreement([opinion(0, "it is B", "B"), opinion(1, "it is B")]) == {(0, 1): 1.0}  # lexically
    texts = [opinion(0, "the sky is blue"), opinion(1, "the sky is blue today"), opinion(2, "no idea")]
    shared = pair_agreement(texts)
    assert shared == {(0, 1): pytest.approx(8 / 9), (0, 2): 0.0, (1, 2): 0.0}
    assert rank_by_agreement(texts[:1], {}).borda == {0: 0.5}
    with pytest.raises(UserError):
        rank_by_agreement([Opinion(juror=3, model="m", ok=False)], {})


@pytest.mark.parametrize(
    ("num_parsed", "num_failed", "rule", "degraded"),
    [
        (3, 0, "borda", []),
        (2, 1, "borda", []),
        (1, 2, "agreement", ["only 1 of 3 reviews could be parsed: opinions are ranked by agreement"]),
        (0, 0, "agreement", []),
    ],
)
async def test_fewer_than_two_parsed_reviews_rank_by_agreement(num_parsed, num_failed, rule, degraded, store):
    sink = MemorySink()
    run = Run("r", run_config(), store, sinks=[sink])
    reviews = [in_order(i, (0, 1)) for i in range(num_parsed)]
    reviews += [Review(reviewer=9, ok=False, failure="no marks")] * num_failed
    opinions = [Opinion(juror=i, model="m", text="yes", ok=True) for i in (0, 1)]
    assert rank_opinions(reviews, opinions, "borda", run).rule == rule
    assert run.degraded == degraded
    assert [event.report["rule"] for event in sink.of_type("jury.ranked")] == [rule]


def test_ranking_nothing_raises():
    with pytest.raises(UserError):
        rank([], [])
