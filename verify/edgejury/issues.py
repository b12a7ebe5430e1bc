"""What reviewers find wrong and want kept, put together: the same issue once, with how many named it.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for structured issues and quotations; when two issues are the same
is our own rule: one candidate, one kind, and words in common.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, get_args

from ...reasoning.brains.bm25 import words_of
from ..splitting.quotes import located
from .opinions import Issue, IssueKind, KeptQuote, PooledIssue, Review

SAME: Final = 0.5
"""F1 of their words from which two issues are one."""
ADDRESSED_FROM: Final = 2
"""Reviewers who must name an issue for the chair to have to address it."""
MOST_KEPT: Final = 6
"""Quotations that are shown to the chair."""

_KINDS: tuple[IssueKind, ...] = get_args(IssueKind)


def overlap(one: str, other: str) -> float:
    """F1 of the words of two texts, each counted as often as it stands there; 0 if one has none."""
    left, right = Counter(words_of(one)), Counter(words_of(other))
    both = (left & right).total()
    return 2 * both / (left.total() + right.total()) if both else 0.0


def pool(reviews: Sequence[Review], *, exclude_self: bool = True) -> tuple[PooledIssue, ...]:
    """The issues of all reviews, the same ones merged.

    Issues are the same if they are of one candidate and kind and their details overlap, by themselves or through others
    between them. Of their details that one stands for all which has the most in common with the rest, of equals the
    longest. A reviewer counts once. Nothing depends on the order of the reviews.

    Args:
        reviews: The reviews; those that are not ok have no issues.
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Those most named first, then by kind, candidate and detail.
    """
    alike: dict[tuple[int, IssueKind], list[tuple[int, Issue]]] = defaultdict(list)
    for review in reviews:
        for issue in review.issues:
            if not (exclude_self and issue.candidate == review.reviewer):
                alike[issue.candidate, issue.kind].append((review.reviewer, issue))
    pooled = [
        PooledIssue(
            candidate=candidate,
            kind=kind,
            detail=_middle([issue.detail for _, issue in group]),
            reviewers=tuple(sorted({reviewer for reviewer, _ in group})),
        )
        for (candidate, kind), named in alike.items()
        for group in _groups(named)
    ]
    return tuple(sorted(pooled, key=lambda i: (-i.count, _KINDS.index(i.kind), i.candidate, i.detail)))


def worth_keeping(
    reviews: Sequence[Review], texts: Mapping[int, str], *, most: int = MOST_KEPT, exclude_self: bool = True
) -> tuple[KeptQuote, ...]:
    """What reviewers want kept, as far as it stands in the answers.

    A quotation counts if its candidate's text has it, blanks apart. Of several that overlap the longest stands for all.

    Args:
        reviews: The reviews.
        texts: The answers by juror, as the reviewers saw them.
        most: Most quotations.
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Those most wanted first, then by candidate and place in its text.
    """
    places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for review in reviews:
        for kept in review.keep:
            text = texts.get(kept.candidate)
            place = None if text is None else located(kept.quote, text)
            if place is not None and not (exclude_self and kept.candidate == review.reviewer):
                places[kept.candidate].append((*place, review.reviewer))
    found: list[tuple[int, int, int, KeptQuote]] = []
    for candidate, wanted in places.items():
        for group in _overlapping(wanted):
            start, end = max(((a, b) for a, b, _ in group), key=lambda span: (span[1] - span[0], -span[0]))
            quote = KeptQuote(
                candidate=candidate,
                quote=texts[candidate][start:end],
                reviewers=tuple(sorted({reviewer for _, _, reviewer in group})),
            )
            found.append((-len(quote.reviewers), candidate, start, quote))
    return tuple(quote for *_, quote in sorted(found, key=lambda entry: entry[:3])[:most])


def _groups(named: Sequence[tuple[int, Issue]]) -> list[list[tuple[int, Issue]]]:
    """Issues of one candidate and kind that belong together: whatever is linked by overlaps."""
    groups: list[list[tuple[int, Issue]]] = []
    for one in named:
        linked = [g for g in groups if any(overlap(one[1].detail, other.detail) >= SAME for _, other in g)]
        apart = [group for group in groups if group not in linked]
        groups = [*apart, [one, *(member for group in linked for member in group)]]
    return groups


def _middle(details: Sequence[str]) -> str:
    """The detail that has the most in common with all of them."""
    shared = {one: math.fsum(overlap(one, other) for other in details) for one in details}
    return min(shared, key=lambda one: (-shared[one], -len(one), one))


def _overlapping(places: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Places in a text that overlap, directly or through others, in order."""
    groups: list[list[tuple[int, int, int]]] = []
    end = -1
    for place in sorted(places):
        if place[0] < end:
            groups[-1].append(place)
        else:
            groups.append([place])
        end = max(end, place[1])
    return groups
