"""Issues of several reviewers put together, and quotations that are really there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.verify.edgejury.review import overlap, pool_issues, verified_quotes
from reason.verify.edgejury.types import Issue, IssueKind, PooledIssue, Quote, Review

YEAR = "the year 1889 is wrong"
DETAILS = [YEAR, "the year 1889 seems wrong", "the year seems odd", "units are missing", "units are missing here", "it"]


def review(reviewer: int, *issues: tuple[int, IssueKind, str], keep: tuple[tuple[int, str], ...] = ()) -> Review:
    return Review(
        reviewer=reviewer,
        ok=True,
        issues=tuple(Issue(candidate=c, kind=kind, detail=detail) for c, kind, detail in issues),
        keep=tuple(Quote(candidate=c, quote=quote) for c, quote in keep),
    )


def test_overlap_is_word_f1():
    assert overlap(YEAR, "The year 1889 is WRONG!") == 1.0
    assert overlap("a b c d", "a b x y") == 0.5
    assert overlap("a a b", "a b b") == pytest.approx(2 / 3)
    assert overlap("", "a") == 0.0


def test_equal_issues_are_merged_with_reviewers():
    pooled = pool_issues(
        [
            review(1, (0, "factual_risk", YEAR)),
            review(2, (0, "factual_risk", "the year 1889 seems wrong"), (0, "unclear", YEAR)),
            review(0, (2, "factual_risk", YEAR)),
        ]
    )
    assert pooled[0] == PooledIssue(
        candidate=0, kind="factual_risk", detail="the year 1889 seems wrong", reviewers=(1, 2)
    )
    assert [(i.candidate, i.kind, i.count) for i in pooled[1:]] == [(2, "factual_risk", 1), (0, "unclear", 1)]


def test_issues_merge_at_half_overlap():
    at, below = ("a b c d", "a b x y"), ("a b c d e", "a b x y z")
    for details, groups in ((at, 1), (below, 2)):
        found = pool_issues([review(r, (0, "unclear", detail)) for r, detail in enumerate(details, 1)])
        assert len(found) == groups


def test_issues_merge_transitively():
    chain = ["a b c d", "c d e f", "e f g h"]
    assert overlap(chain[0], chain[2]) == 0
    (found,) = pool_issues([review(r, (0, "unclear", detail)) for r, detail in enumerate(chain, 1)])
    assert (found.detail, found.reviewers) == ("c d e f", (1, 2, 3))


def test_reviewer_counts_once():
    pooled = pool_issues([review(1, (0, "unclear", "a b c d"), (0, "unclear", "a b c x"))])
    assert [(i.candidate, i.count) for i in pooled] == [(0, 1)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(4, 5), st.sampled_from(["unclear", "incomplete"]), st.sampled_from(DETAILS)
        ),
        max_size=8,
    ),
    st.randoms(),
)
def test_order_of_reviews_does_not_matter(entries, shuffler):
    reviews = [review(r, (c, kind, detail)) for r, c, kind, detail in entries]
    turned = list(reviews)
    shuffler.shuffle(turned)
    assert pool_issues(turned) == pool_issues(reviews)
    named = {(r, c, kind) for r, c, kind, _ in entries}
    assert {(r, i.candidate, i.kind) for i in pool_issues(reviews) for r in i.reviewers} == named


def test_quotes_must_appear_and_longest_overlap_wins():
    texts = {0: "The tower stands in Paris.\nIt is 300 m high and made of iron.", 1: "No idea."}
    reviews = [
        review(1, keep=((0, "stands in Paris. It is 300 m"), (0, "it is made of gold"))),
        review(2, keep=((0, "It is 300 m high and made of iron"), (1, "No idea."), (3, "nobody"))),
    ]
    found = verified_quotes(reviews, texts)
    assert [(q.candidate, q.quote, q.reviewers) for q in found] == [
        (0, "It is 300 m high and made of iron", (1, 2)),
        (1, "No idea.", (2,)),
    ]
