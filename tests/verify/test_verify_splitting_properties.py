"""What holds of every answer that is split: places are valid and in order, facts are covered, nothing is added."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from reason.reasoning.retrieval.words import split_words
from reason.verify.claims.splitter import split_claims

PIECES = st.sampled_from([
    "Tin", "is", "He", "It", "was", "and", "died", ".", "\n", "\r\n", "- ", "**", "`", "```\n", "$", "$$", "\\[", "|",
    "# ", '"', ":", "?", " ", " ", "1. ", "🌊", "Ünal", "in 1900",
    ";", ", and it", "born", "(", ")", "> ", "\u2003", "I think",
    "[a](b)",
])  # fmt: skip
NAMES = ["Emil Vogt", "The Old Tower", "Zinc", "Rosa Lund", "Lake Huron", "Oslo"]
FACTS = ["was known in 1900", "is heavy", "has five parts", "lies in Norway", "became famous", "contains 3.5 g of salt"]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)), st.text(max_size=40))
def test_places_are_valid_and_in_order(answer: str, question: str) -> None:
    claims = split_claims(answer, question)
    assert len(claims) <= 20
    for claim in claims:
        assert answer[claim.start : claim.end].strip()
        assert claim.text.strip()
    assert [c.start for c in claims] == sorted(c.start for c in claims)
    assert all(a.end <= b.start for a, b in pairwise(claims))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(PIECES, max_size=40).map(" ".join), st.sampled_from(["", "When was Emil Vogt born?", "What is the sea?"])
)
def test_nothing_is_added(answer: str, question: str) -> None:
    known = set(split_words(re.sub(r"[*_`]", " ", f"{answer} {question}")))
    for claim in split_claims(answer, question):
        assert set(split_words(re.sub(r"[*_`]", " ", claim.text))) <= known


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(FACTS)), min_size=1, max_size=8, unique=True),
    st.sampled_from([" ", "\n", "\n\n", "\r\n", "\n- "]),
)
def test_every_sentence_of_a_plain_factual_text_is_covered(facts: list[tuple[str, str]], between: str) -> None:
    sentences = [f"{name} {fact}." for name, fact in facts]
    answer = between.join(sentences)
    claims = split_claims(answer)
    assert [answer[c.start : c.end] for c in claims] == sentences
    assert [c.text for c in claims] == sentences
