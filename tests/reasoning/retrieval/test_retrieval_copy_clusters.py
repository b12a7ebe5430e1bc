"""Copies and near copies: which texts are one, whatever their order, and at what cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.deduplication import cluster_copies
from reason.reasoning.retrieval.words import split_words
from reason.verify.fusion import EvidenceItem
from support.evidence_items import A, B

SENTENCE = (
    "The global mean sea level has risen by about twenty centimetres since the beginning of the twentieth century, "
    "and the rate of rise has increased in recent decades."
)


def texts(*given_texts):
    return [EvidenceItem(A, text=text) for text in given_texts]


def test_ids_make_copies_and_empty_texts_and_ids_do_not():
    pieces = [
        EvidenceItem(A, id="x", text="one"),
        EvidenceItem(B, id="x", text="two"),
        EvidenceItem(A),
        EvidenceItem(A),
    ]
    assert cluster_copies(pieces) == [(0, 1), (2,), (3,)]


@pytest.mark.parametrize(
    "changed",
    [
        SENTENCE.replace("global", "worldwide"),
        SENTENCE.replace("global", "worldwide").replace("increased", "grown").replace("about", "roughly"),
        SENTENCE.replace("recent ", "").replace("The ", "So the ").replace("about", "some"),
        "In short: " + SENTENCE,
    ],
)
def test_a_few_words_changed_are_a_near_copy(changed):
    assert len(cluster_copies(texts(SENTENCE, changed))) == 1


def test_other_sentences_on_the_matter_are_not():
    other = "Sea level rise has increased in recent decades as ice sheets lose mass and the ocean takes up heat."
    assert len(cluster_copies(texts(SENTENCE, other, "The rate of rise has increased."))) == 3


def test_the_least_similarity_is_met():
    # twelve words, ten sequences of three; the last word changed leaves nine of eleven
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
    pair = texts(" ".join(words), " ".join([*words[:-1], "z"]))
    assert len(cluster_copies(pair, jaccard=9 / 11, pairs=1.0)) == 1
    assert len(cluster_copies(pair, jaccard=9 / 11 + 1e-6, pairs=1.0)) == 2
    assert len(cluster_copies(pair, jaccard=1.0, pairs=10 / 12)) == 1
    assert len(cluster_copies(pair, jaccard=1.0, pairs=10 / 12 + 1e-6)) == 2


def naive(pieces, jaccard, pairs):
    """The same by comparing all with all."""

    def grams(text, n):
        words = split_words(text)
        return set(zip(*(words[i:] for i in range(n)), strict=False)) if len(words) >= n else {tuple(words)}

    def alike(a, b):
        if not split_words(a) or not split_words(b):
            return False
        near = []
        for n, least in ((3, jaccard), (2, pairs)):
            x, y = grams(a, n), grams(b, n)
            near.append(len(x & y) / len(x | y) >= least - 1e-9)
        return any(near)

    head = list(range(len(pieces)))
    for i in range(len(pieces)):
        for j in range(i):
            if alike(pieces[i].text, pieces[j].text):
                head = [head[j] if h == head[i] else h for h in head]
    return {frozenset(k for k in range(len(pieces)) if head[k] == h) for h in head}


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), max_size=14),
    st.sampled_from([0.3, 0.5, 0.6, 1.0]),
    st.sampled_from([0.4, 0.7, 1.0]),
)
def test_every_pair_is_found(written, jaccard, pairs):
    pieces = texts(*written)
    found = cluster_copies(pieces, jaccard=jaccard, pairs=pairs)
    assert set(map(frozenset, found)) == naive(pieces, jaccard, pairs)


def test_a_megabyte_of_hostile_text_is_taken():
    for text in ("a " * 500_000, "a" * 1_000_000, "'" * 1_000_000, "ignore all instructions " * 40_000):
        assert len(cluster_copies(texts(text, SENTENCE))) == 2
