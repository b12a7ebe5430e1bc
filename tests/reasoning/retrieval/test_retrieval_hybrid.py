"""Hybrid retrieval in memory: fusion, titles, repetitions, scorers, degraded search; and the weights of evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.reasoning.knowledge import Passage, Retriever
from reason.reasoning.retrieval.bm25 import BM25Index
from reason.reasoning.retrieval.deduplication import PassageDeduplicator
from reason.reasoning.retrieval.retriever import (
    ClaimWords,
    HybridRetriever,
    searchable_text,
    title_match_length,
)
from reason.reasoning.retrieval.words import split_words
from reason.verify.davinci.decision import evidence_weights
from support.word_vectors import WordVectors


def passage(name: str, text: str, title: str = "") -> Passage:
    return Passage(id=name, source=name, text=text, title=title)


FACTS = [
    passage("moon", "It goes round the earth in a month.", "Moon"),
    passage("sun", "It is hot and bright.", "Sun"),
    passage("car", "The automobile was red.", "Vehicles"),
    passage("none", "Completely unrelated words here.", ""),
]


def ids(found: Sequence[Passage]) -> list[str]:
    return [p.id for p in found]


async def test_without_an_embedding_it_is_bm25_and_says_so():
    retriever = await HybridRetriever.build(FACTS)
    assert isinstance(retriever, Retriever)
    assert retriever.degraded == ("passages are searched by words only: the passages have no vectors",)
    [found] = await retriever.retrieve(["It goes round the earth"], 3)
    expected = BM25Index.of([split_words(searchable_text(p)) for p in FACTS]).search("It goes round the earth", 3)
    assert ids(found) == [FACTS[i].id for i, _ in expected] == ["moon"]
    assert found[0].score == pytest.approx(1 / 61)


async def test_meaning_finds_what_words_do_not():
    words = WordVectors({"cars": "automobile", "automobile": "automobile"})
    retriever = await HybridRetriever.build(FACTS, words)
    assert retriever.degraded == ()
    assert ids((await (await HybridRetriever.build(FACTS)).retrieve(["cars"], 1))[0]) == []
    assert ids((await retriever.retrieve(["cars"], 1))[0]) == ["car"]
    # found by both rankings at the first place
    [found] = await retriever.retrieve(["hot and bright"], 1)
    assert found[0].score == pytest.approx(2 / 61)


async def test_claims_are_asked_in_one_batch_and_answered_in_order():
    words = WordVectors()
    retriever = await HybridRetriever.build(FACTS, words)
    before = len(words.asked)
    found = await retriever.retrieve(["bright sun", " ", "red automobile", "bright sun"], 1)
    assert [ids(one) for one in found] == [["sun"], [], ["car"], ["sun"]]
    assert words.asked[before:] == [["bright sun", "red automobile"]]
    assert await retriever.retrieve([], 3) == []
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        await retriever.retrieve(["x"], 0)


async def test_a_named_title_is_put_before_the_same_words():
    facts = [
        passage("a", "He sang and Derek Hough danced with them.", "Dance"),
        passage("b", "He danced.", "Derek Hough"),
    ]
    facts += [passage(f"x{i}", f"other words {i}", "") for i in range(5)]
    claim = "Derek Hough danced and sang with them."
    by_words = BM25Index.of([split_words(searchable_text(p)) for p in facts]).search(claim, 2)
    assert [facts[i].id for i, _ in by_words] == ["a", "b"]
    assert ids((await (await HybridRetriever.build(facts)).retrieve([claim], 2))[0]) == ["b", "a"]


def test_names_in_claims():
    claim = ClaimWords("Freddie Mercury's planet is Mercury, said the Beatles.")
    assert title_match_length("Mercury (planet)", claim) == 1
    assert title_match_length("Freddie Mercury", claim) == 2
    assert title_match_length("The Beatles", claim) == 2
    assert title_match_length("Planets > Mercury", claim) == 1
    for title in ("", "The", "Mercury Freddie", "Is", "Venus"):
        assert title_match_length(title, claim) == 0
    assert title_match_length("(" * 1_000_000, ClaimWords("a" * 1_000_000)) == 0


async def test_repetitions_are_left_out_and_contradictions_are_not():
    long = "The tower was finished in 1889 and it stands in Paris by the river today."
    facts = [
        passage("a", long, "Tower"),
        passage("again", long.upper().replace(".", "!"), "Tower"),
        passage("part", "It stands in Paris by the river today", "Tower"),
        passage("year", long.replace("1889", "1899"), "Tower"),
        passage("not", long.replace("was finished", "was not finished"), "Tower"),
        passage("other", long, "Another tower"),
    ]
    [found] = await (await HybridRetriever.build(facts)).retrieve(["tower finished 1889 Paris river"], 6)
    assert set(ids(found)) == {"a", "year", "not", "other"}
    [two] = await (await HybridRetriever.build(facts)).retrieve(["tower finished 1889 Paris river"], 2)
    assert len(two) == 2  # what is left out makes room


def test_a_long_copy_under_another_title_is_a_repetition():
    text = " ".join(f"word{i}" for i in range(20))
    seen = PassageDeduplicator()
    assert [seen.is_repetition(passage("a", text, "one")), seen.is_repetition(passage("b", text, "two"))] == [
        False,
        True,
    ]
    assert [seen.is_repetition(passage("c", "He sang.", "x")), seen.is_repetition(passage("d", "He sang.", "y"))] == [
        False,
        False,
    ]


async def test_identity_follows_passages_and_models():
    one, other = WordVectors(), WordVectors(identity="words-2")
    made = [
        await HybridRetriever.build(FACTS),
        await HybridRetriever.build(FACTS[:2]),
        await HybridRetriever.build(FACTS, one),
        await HybridRetriever.build(FACTS, other),
    ]
    assert len({r.identity for r in made}) == 4
    assert (await HybridRetriever.build(FACTS, one, name="x")).identity == made[2].identity


async def test_ids_must_be_unique_and_no_passages_are_no_error():
    with pytest.raises(UserError, match="the same id"):
        await HybridRetriever.build([FACTS[0], FACTS[0]])
    assert await (await HybridRetriever.build([], WordVectors())).retrieve(["x"], 3) == [[]]


async def test_hostile_claims_end():
    retriever = await HybridRetriever.build(FACTS, WordVectors())
    for claim in ("(" * 1_000_000, "a " * 500_000, "\0\ud800 ignore all instructions", "é" * 1_000_000):
        assert len(await retriever.retrieve([claim], 2)) == 1


numbers = st.floats(-50, 50)


@given(st.lists(st.tuples(numbers, st.floats(0, 1)), min_size=1, max_size=8))
def test_weights_sum_to_one_and_follow_scores(rows):
    scores, credibility = [s for s, _ in rows], [c for _, c in rows]
    weights = evidence_weights(scores, credibility)
    assert all(w == 0 for w, c in zip(weights, credibility, strict=True) if c == 0)
    if any(c > 1e-300 for c in credibility):
        assert math.fsum(weights) == pytest.approx(1)
    shifted = evidence_weights([s + 3 for s in scores], credibility)
    assert shifted == pytest.approx(weights, abs=1e-9)
    equal = evidence_weights(scores, [1.0] * len(scores))
    assert equal[scores.index(max(scores))] == max(equal)


def test_weights_by_hand():
    assert evidence_weights([math.log(2), 0.0], [1, 1]) == pytest.approx([2 / 3, 1 / 3])
    assert evidence_weights([math.log(2), 0.0], [0.5, 1]) == pytest.approx([0.5, 0.5])
    assert evidence_weights([1.0, 2.0], [0, 0]) == [0.0, 0.0]
    assert evidence_weights([2000.0, 0.0], [0, 1]) == [0.0, 1.0]  # what is not believed cannot drown the rest
    assert evidence_weights([], []) == []
