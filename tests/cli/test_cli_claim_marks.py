"""An answer cut where its claims begin and end, for the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from reason.cli.render.claims import split_at_claims
from reason.core.types import CheckedClaim, Verdict


def claim(start: int | None, end: int | None, verdict: Verdict = "not_enough_evidence") -> CheckedClaim:
    return CheckedClaim(text="c", verdict=verdict, start=start, end=end)


def test_overlapping_claims_are_cut_where_they_begin_and_end() -> None:
    pieces = split_at_claims("abcdefgh", [claim(0, 6), claim(2, 4, "disputed"), claim(2, 8), claim(None, None), claim(5, 99)])
    assert [(p.text, p.claims, p.ends) for p in pieces] == [
        ("ab", (0,), ()),
        ("cd", (1, 0, 2), (1,)),
        ("ef", (0, 2), (0,)),
        ("gh", (2,), (2,)),
    ]
    assert [(p.text, p.claims) for p in split_at_claims("abc", [])] == [("abc", ())]
    assert split_at_claims("", []) == []


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-2, 32), st.integers(-2, 32)), max_size=6))
def test_pieces_are_the_text_again_and_every_placed_claim_ends_once(text: str, places: list[tuple[int, int]]) -> None:
    claims = [claim(start, end) for start, end in places]
    pieces = split_at_claims(text, claims)
    assert "".join(p.text for p in pieces) == text
    placed = [n for n, (start, end) in enumerate(places) if 0 <= start < end <= len(text)]
    assert sorted(n for p in pieces for n in p.ends) == placed
    for n in placed:
        start, end = places[n]
        assert "".join(p.text for p in pieces if n in p.claims) == text[start:end]
