"""What holds of every answer that is split: places are valid and in order, facts are covered, nothing is added."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.words import NEGATIONS, number_values, split_words
from reason.verify.claims import split_claims

PIECES = st.sampled_from([
    "Tin", "is", "He", "It", "was", "and", "died", ".", "\n", "\r\n", "- ", "**", "`", "```\n", "$", "$$", "\\[", "|",
    "# ", '"', ":", "?", " ", " ", "1. ", "🌊", "Ünal", "in 1900",
    ";", ", and it", "born", "(", ")", "> ", "\u2003", "I think",
    "[a](b)",
])  # fmt: skip
NAMES = ["Emil Vogt", "The Old Tower", "Zinc", "Rosa Lund", "Lake Huron", "Oslo"]
FACTS = ["was known in 1900", "is heavy", "has five parts", "lies in Norway", "became famous", "contains 3.5 g of salt"]


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join)), st.text(max_size=40))
def test_places_are_valid_and_in_order(answer, question):
    claims = split_claims(answer, question)
    assert len(claims) <= 20
    for claim in claims:
        assert answer[claim.start : claim.end].strip()
        assert claim.text.strip()
    assert [c.start for c in claims] == sorted(c.start for c in claims)
    assert all(a.end <= b.start for a, b in pairwise(claims))


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(FACTS)), min_size=1, max_size=8, unique=True),
    st.sampled_from([" ", "\n", "\n\n", "\r\n", "\n- "]),
)
def test_every_sentence_of_a_plain_factual_text_is_covered(facts, between):
    sentences = [f"{name} {fact}." for name, fact in facts]
    answer = between.join(sentences)
    claims = split_claims(answer)
    assert [answer[c.start : c.end] for c in claims] == sentences
    assert [c.text for c in claims] == sentences


SUBJECTS = ["The bridge", "Emil Vogt", "Anna and Ben", "Lake Huron", "The members of the council", "It", "Only members"]
VERBS = [
    "did not open in 1926", "has no more than 30 rooms", "never cost 5.5 euros", "is not 3 km long but 4 km",
    "may not be 12",
    "opened in 1926", "cannot hold 200 people", "was closed in 1990", "covers 3 risks but not 2 others", "has 7 parks",
    "won 3 medals and lost 2", "isn't open", "did", "does not", "was not", "had 5 members without 1 vote",
]  # fmt: skip
LINKS = [". ", ", and ", ", but ", "; ", " and ", ". However, ", " because ", " unless ", ", so "]


def negations(text: str) -> int:
    """Negating words, contracted ones included."""
    return sum(word in NEGATIONS or word.endswith("n't") for word in split_words(text))


@given(
    st.lists(
        st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(VERBS), st.sampled_from(LINKS)), min_size=1, max_size=4
    ),
    st.sampled_from(["", "When was the bridge closed?", "Who is Emil Vogt?", "Did the bridge open in 1926?"]),
)
def test_numbers_and_negations_of_an_answer_are_in_its_claims(parts, question):
    answer = "".join(f"{subject} {verb}{link}" for subject, verb, link in parts)
    answer = answer[: -len(parts[-1][2])] + "."
    claims = split_claims(answer, question)
    stated = " ".join(claim.text for claim in claims)
    assert number_values(answer) <= number_values(stated)
    distinct = {f"{subject} {verb}" for subject, verb, _ in parts}  # what is repeated is one claim
    assert negations(stated) >= negations(". ".join(distinct)) or len(distinct) < len(parts)
