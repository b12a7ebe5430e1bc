"""BM25 against the formula written out, and what counts as a word."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bm25s")

from reason.reasoning.retrieval.bm25 import K1, B, BM25Index
from reason.reasoning.retrieval.words import split_words

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "the"])
TEXTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=8)


def plain_bm25(texts, query):
    bags = [Counter(split_words(t)) for t in texts]
    mean = sum(sum(b.values()) for b in bags) / len(bags)
    scores = []
    asked = split_words(query)
    asked = [word for word in asked if word != "the"] or asked
    for bag in bags:
        score = 0.0
        for word in asked:
            n = sum(word in b for b in bags)
            idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
            tf, length = bag[word], sum(bag.values())
            score += idf * tf / (tf + K1 * (1 - B + B * length / mean)) if tf else 0.0
        scores.append(score)
    return scores


@given(TEXTS, st.lists(WORDS, max_size=4).map(" ".join))
def test_scores_are_those_of_the_formula(texts, query):
    found = dict(BM25Index.of(map(split_words, texts)).search(query, 100))
    expected = plain_bm25(texts, query) if any(texts) else []
    assert found == pytest.approx({i: s for i, s in enumerate(expected) if s > 0}, rel=1e-5)


def test_order_bound_and_nothing():
    index = BM25Index.of(map(split_words, ["the moon", "moon moon moon", "the sun", "moon the"]))
    assert [i for i, _ in index.search("Moon", 10)] == [1, 0, 3]
    assert [i for i, _ in index.search("moon", 2)] == [1, 0]
    assert index.search("nowhere", 5) == index.search("", 5) == index.search("?!", 5) == []
    assert BM25Index.of([]).search("moon", 3) == BM25Index.of([[], []]).search("moon", 3) == []
    assert [i for i, _ in index.search("moon " * 100_000, 1)] == [1]


def test_words():
    assert split_words("Zürich's Straße, 3.5 km — don't!") == ["zurich", "strasse", "3", "5", "km", "don't"]
    assert split_words("富士山 in 日本") == ["富", "士", "山", "in", "日", "本"]
    assert split_words("ＡＢＣ x\u2019s") == ["abc", "x"]
    assert split_words("\ud800 \0") == []
