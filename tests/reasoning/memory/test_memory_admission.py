"""What may enter memory: each rule by itself, and property 6 over random searches."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from reason.core.errors import BackendError
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory import admission as admission_module
from reason.reasoning.memory.admission import AdmissionFilter, AdmissionResult, NodeProposals, Proposal, Similarity
from reason.reasoning.retrieval.deduplication import text_hash
from support.word_vectors import WordVectors

CAPITAL = "Paris is the capital of France."


def words(text: str) -> int:
    return len(text.split())


def thought(*texts: str, about: str = "capital of France", visible: Sequence[str] = (), node: int = 1) -> NodeProposals:
    return NodeProposals(node, about, tuple(visible), tuple(Proposal(text) for text in texts))


async def admitted(one: NodeProposals, similarity: Similarity | None = None, **rules: float) -> AdmissionResult:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in rules.items():
            patch.setattr(admission_module, name, value)
        [result] = await AdmissionFilter(words, similarity).admit([one])
    return result


async def test_an_item_says_where_it_comes_from():
    proposal = Proposal(f"  {CAPITAL}\n", "docs/a.md:0-31", "folder", "capital France?", 0.75)
    result = await admitted(NodeProposals(7, "capital of France", (), (proposal,)))
    assert result.items == (
        MemoryItem(
            text=CAPITAL,
            source_id="docs/a.md:0-31",
            source_kind="folder",
            query="capital France?",
            node_id=7,
            hash=text_hash(CAPITAL),
            score=0.75,
            tokens=6,
        ),
    )
    assert result.dropped == {}


async def test_every_proposal_is_accounted_for():
    long = "capital " * 7
    result = await admitted(
        thought(
            "",
            "…!",
            long,
            "Cheese is tasty.",
            CAPITAL,
            "PARIS is the capital of france",
            "Paris is the capital of France, a city",
            "The capital lies on a river.",
            visible=["The capital lies on a river."],
        ),
        MAX_ITEM_TOKENS=6,
    )
    assert [item.text for item in result.items] == [CAPITAL]
    # seven words are too many; of six with one more sentence, level 1 finds what is seen
    assert result.dropped == {"empty": 2, "too_long": 2, "irrelevant": 1, "duplicate": 2}


async def test_without_embeddings_a_common_content_word_makes_relevant():
    result = await admitted(thought("Capitals have parliaments.", "The of is what it was.", "Cheese"))
    assert [(item.text, item.score) for item in result.items] == [("Capitals have parliaments.", 0.5)]
    assert result.dropped == {"irrelevant": 2}
    # where nothing is asked nothing can be off the point
    assert len((await admitted(thought("Cheese", about="What is it?"))).items) == 1


async def test_with_embeddings_the_cosine_does():
    similarity = Similarity(WordVectors())
    texts = ("capital x y z", "capital c d e f g h i j k l m")
    result = await admitted(thought(*texts, about="capital of France Europe"), similarity, MIN_RELEVANCE=0.2)
    assert [item.text for item in result.items] == ["capital x y z"]
    assert result.items[0].score == pytest.approx(1 / 4)
    assert result.dropped == {"irrelevant": 1}
    result = await admitted(thought(*texts, about="capital of France Europe"), similarity, MIN_RELEVANCE=0.1)
    assert len(result.items) == 2
    assert len((await admitted(thought("cheese", about=" "), similarity)).items) == 1


@pytest.mark.parametrize(("given_score", "kept"), [(0.4, 0.4), (12.0, 1.0), (-3.0, 0.0), (float("nan"), 0.5)])
async def test_a_given_score_wins_and_lies_between_0_and_1(given_score, kept):
    one = NodeProposals(1, "capital of France", (), (Proposal("capital cheese", score=given_score),))
    assert (await admitted(one)).items[0].score == kept


async def test_the_third_level_finds_other_words_with_the_same_meaning():
    similarity = Similarity(WordVectors({"automobile": "car", "quick": "fast"}))
    seen = "the car is fast"
    same, other = "the automobile is quick", "the car has wheels"
    result = await admitted(thought(same, other, about="car", visible=[seen]), similarity)
    assert [item.text for item in result.items] == [other]
    assert result.dropped == {"duplicate": 1}
    result = await admitted(thought(seen, same, about="car"), similarity)  # and among the new ones
    assert [item.text for item in result.items] == [seen]
    assert result.dropped == {"duplicate": 1}
    result = await admitted(thought(same, about="automobile", visible=[seen]))  # without embeddings it cannot be seen
    assert len(result.items) == 1


async def test_what_was_not_admitted_makes_no_duplicate():
    similarity = Similarity(WordVectors())
    result = await admitted(thought("cheese", "Cheese."), similarity)
    assert result.dropped == {"irrelevant": 2}


async def test_all_thoughts_share_one_batch_and_do_not_see_each_other():
    embedding = WordVectors()
    admission = AdmissionFilter(words, Similarity(embedding))
    thoughts = [
        thought(CAPITAL, "France has one capital.", node=node, visible=["France is big."]) for node in (1, 2, 3)
    ]
    together = await admission.admit(thoughts)
    [asked] = embedding.asked
    assert len(asked) == len(set(asked))
    assert [item.node_id for result in together for item in result.items] == [1, 1, 2, 2, 3, 3]
    assert [await admission.admit([one]) for one in thoughts] == [[result] for result in together]


async def test_many_proposals_are_compared_in_batches(monkeypatch):
    monkeypatch.setattr(admission_module, "MAX_COMPARED", 4)
    embedding = WordVectors()
    thoughts = [
        thought(CAPITAL, "France has one capital.", node=node, visible=["France is big."]) for node in range(1, 6)
    ]
    results = await AdmissionFilter(words, Similarity(embedding)).admit(thoughts)
    assert [len(result.items) for result in results] == [2] * 5
    assert len(embedding.asked) == 3


async def test_nothing_is_embedded_for_nothing():
    embedding = WordVectors()
    admission = AdmissionFilter(words, Similarity(embedding))
    assert await admission.admit([]) == []
    await admission.admit([thought(), thought("", CAPITAL, visible=[CAPITAL])])
    assert embedding.asked == []


async def test_text_that_cannot_be_written_down_is_repaired():
    result = await admitted(thought("capital \ud800\0 x"))
    assert [item.text for item in result.items] == ["capital ?  x"]


async def test_what_embeddings_say_is_not_swallowed():
    class Broken:
        async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
            raise BackendError("no embeddings today")

    with pytest.raises(BackendError, match="no embeddings"):
        await admitted(thought(CAPITAL), Broken())


# -- property 6: over random searches

VOCABULARY = ("Élan", "beta", "Gamma", "straße", "РЕКА", "δέλτα", "seven", "7", "of", "x")
SENTENCES = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=7).map(tuple)
MARKS = (".", ",", "!", " — ", "…", "«", '"', " (", "\t", "\u00a0", "\n")


@st.composite
def disguises(draw: st.DrawFn, sentence: tuple[str, ...]) -> str:
    """The sentence with other case, spacing and punctuation."""
    text = ""
    for word in sentence:
        case = draw(st.sampled_from((str, str.upper, str.lower, str.title)))
        form = draw(st.sampled_from(("NFC", "NFD", "NFKC")))
        text += draw(st.sampled_from(("", *MARKS))) + " " + unicodedata.normalize(form, case(word))
    return text + draw(st.sampled_from(("", *MARKS)))


@st.composite
def searches(draw: st.DrawFn) -> tuple[str, list[tuple[int, str, list[str]]]]:
    """A question, and nodes: parent, step, and what is proposed for it."""
    pool = draw(st.lists(SENTENCES, min_size=1, max_size=5))
    sentence = st.sampled_from(pool).flatmap(disguises)
    nodes = [
        (draw(st.integers(0, i)), draw(sentence), draw(st.lists(sentence, max_size=4)))
        for i in range(draw(st.integers(1, 6)))
    ]
    return draw(sentence), nodes
