"""What the embedded judge sees of two texts by comparing their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.verify.entailment.embedded_features import FEATURES, MARKS, feature_words, pair_features
from reason.verify.types import Pair

TEXTS = st.text(alphabet="aB c1,.%5'9n’tΔ$-", max_size=60)


def marks(pair: Pair) -> list[tuple[str, str]]:
    return [(pair.claim[m.start : m.end], MARKS[m.mark]) for m in pair_features(pair).claim]


def feature(pair: Pair, name: str) -> float:
    return pair_features(pair).features[FEATURES.index(name)]


def test_numbers_of_equal_worth_are_the_same_word():
    assert {w.stem for w in feature_words("1,200 1200") if w.counts} == {"#1200"}
    assert feature_words("55 million")[0].stem == feature_words("55,000,000")[0].stem
    assert feature_words("eight percent")[0].stem == feature_words("8%")[0].stem
    assert feature_words("eight percent")[0].stem != feature_words("8")[0].stem


def test_each_word_of_a_claim_is_marked_by_where_it_is_found():
    pair = Pair("He was born in London in 1967.", "Kenny was born in Paris in 1950.", "Kenny Smith")
    assert marks(pair) == [
        ("Kenny", "claim: in the title alone"),
        ("was", "claim: in the text"),
        ("born", "claim: in the text"),
        ("in", "claim: in the text"),
        ("Paris", "claim: name that the text lacks"),
        ("in", "claim: in the text"),
        ("1950", "claim: number that the text lacks"),
    ]
    assert feature(pair, "number missing, the text has another") == 1.0
    assert feature(pair, "number missing, the text has none") == 0.0
    assert feature(pair, "share of the title in the claim") == 0.5


@pytest.mark.parametrize(
    ("evidence", "claim", "holds"),
    [
        ("It made $55.1 million.", "It made over $55 million.", True),
        ("It made $55.1 million.", "It made under $55 million.", False),
        ("It has 118 reviews.", "It has more than 120 reviews.", False),
        ("It has 120 reviews.", "It has more than 120 reviews.", False),
        ("It has 120 reviews.", "It has at least 120 reviews.", True),
        ("It has more than 120 reviews.", "It has over 120 reviews.", True),
        ("He was born in 1968.", "He was born after 1967.", True),
        ("He was born in 1968.", "He was born before 1967.", False),
    ],
)
def test_comparisons_are_decided_by_the_nearest_number(evidence, claim, holds):
    pair = Pair(evidence, claim)
    assert feature(pair, "comparison holds") == float(holds)
    assert feature(pair, "comparison does not hold") == float(not holds)


def test_a_comparison_needs_a_number_of_the_same_kind():
    for evidence in ("It was built in 1968.", "It grew by 12%.", "It is 900,000 km away."):
        pair = Pair(evidence, "It has more than 12 floors.")
        assert feature(pair, "comparison holds") == feature(pair, "comparison does not hold") == 0.0


@given(TEXTS, TEXTS, TEXTS)
def test_marks_lie_in_their_texts_and_features_in_their_range(evidence, claim, title):
    reading = pair_features(Pair(evidence, claim, title))
    for text, found in ((title, reading.title), (evidence, reading.evidence), (claim, reading.claim)):
        ends = [0]
        for one in found:
            assert ends[-1] <= one.start < one.end <= len(text)
            assert 0 < one.mark < len(MARKS)
            ends.append(one.end)
    assert len(reading.features) == len(FEATURES)
    assert all(0.0 <= value <= 1.0 for value in reading.features)


@pytest.mark.parametrize("text", ["9" * 400, "-" + "9" * 400, "1" + " million" * 60, "0." + "0" * 400 + "1", "9e999"])
def test_numbers_that_no_float_holds_are_read(text):
    for pair in (Pair(f"It has {text} parts.", "It has 3 parts."), Pair(text, text), Pair("3", text)):
        reading = pair_features(pair)
        assert all(0.0 <= value <= 1.0 for value in reading.features)
