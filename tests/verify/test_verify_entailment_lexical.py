"""Entailment by words: the rule, its conflicts, and text that asks for a verdict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.words import (
    capitalised_words,
    content_words,
    is_negated,
    number_values,
    sentence_scores,
)
from reason.verify.entailment.lexical import LexicalEntailment, lexical_support
from reason.verify.types import Pair

CAPITAL = "The capital of France is Paris."

CASES = [
    (CAPITAL, "Paris is the capital of France.", "supports"),
    (CAPITAL, "Lyon is the capital of France.", "refutes"),
    (CAPITAL, "Paris is not the capital of France.", "refutes"),
    (CAPITAL, "Whales are mammals.", "neutral"),
    ("The tower is 330 metres tall.", "The tower is 330 metres tall.", "supports"),
    ("The tower is 330 metres tall.", "The tower is 300 metres tall.", "refutes"),
    ("The tower is 1,000 metres tall.", "The tower is 1000 metres tall.", "supports"),
    ("The tower is many metres tall.", "The tower is 300 metres tall.", "neutral"),  # silent of the number
    ("Whales never sleep on land.", "Whales sleep on land.", "refutes"),
    ("Whales didn't sleep. Fish do not matter.", "Whales didn't sleep.", "supports"),  # denied elsewhere as well
    ("He was born in Rome.", "Ada was born in Rome.", "neutral"),  # no other name in the place of hers
    ("", "Paris is the capital of France.", "neutral"),
    (CAPITAL, "It is what it is.", "neutral"),
]


@pytest.mark.parametrize(("evidence", "claim", "label"), CASES)
async def test_the_rule(evidence, claim, label):
    (verdict,) = await LexicalEntailment().judge([Pair(evidence, claim)])
    assert verdict.label == label
    assert sorted(verdict) == [0.15, 0.15, 0.7]
    assert getattr(verdict, label) == 0.7


async def test_the_order_of_the_pair_matters():
    claim, evidence = "Paris is a city.", "Paris is a city of light, bridges, museums, gardens and bakers."
    forth, back = await LexicalEntailment().judge([Pair(evidence, claim), Pair(claim, evidence)])
    assert (forth.label, back.label) == ("supports", "neutral")


def test_the_title_names_what_the_text_does_not():
    pair = Pair("She wrote the first program.", "Ada Lovelace wrote the first program.")
    assert lexical_support(pair).label == "neutral"
    assert lexical_support(pair._replace(title="Ada Lovelace")).label == "supports"


def test_words_of_meaning():
    assert content_words("The dog's bone is not in the house") == ["dog", "bone", "house"]
    assert [is_negated(t) for t in ("it isn't", "not never", "all of it")] == [True, False, False]
    assert capitalised_words("The Eiffel tower in Paris, and Rome's Tiber") == {"eiffel", "paris", "rome", "tiber"}
    assert number_values("1,000 and 3/4 of 50%") == {1000, 3 / 4, 1 / 2}


def test_sentence_scores_by_hand():
    # N = 2; "whales" and "swim" are in one sentence each, weight ln(1 + 1.5/1.5) = ln 2; so is "birds" and "fly"
    assert sentence_scores("Whales swim", ["whales swim", "birds fly"]) == [1.0, 0.0]
    # "fast" is in neither: weight ln(1 + 2.5/0.5) = ln 6
    import math

    both, one = math.log(2), math.log(6)
    expected = 2 * both / (both + one + 2 * both)
    assert sentence_scores("whales fast", ["whales swim", "birds fly"]) == pytest.approx([expected, 0.0])
    assert sentence_scores("of the", ["of the"]) == [0.0]
    assert sentence_scores("whales", []) == []


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_gets_a_verdict(evidence, claim):
    assert sum(lexical_support(Pair(evidence, claim))) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("piece", ["A ", "not ", "1,", "[", "1 1/"])
def test_long_texts_are_read(piece):  # what is not linear runs into the limit of every test
    verdict = lexical_support(Pair(piece * (100_000 // len(piece)), "Paris has 3 bridges"))
    assert sum(verdict) == pytest.approx(1, abs=1e-9)
