"""Memory with the real MiniLM: the third level, relevance, and recall."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.settings import Settings, load_settings
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.admission import AdmissionFilter, NodeProposals, Proposal, Similarity
from reason.reasoning.memory.named_memory import load_memory
from reason.reasoning.retrieval.deduplication import TextFingerprint, is_duplicate, text_hash
from reason.serving.encoders.factory import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel

pytestmark = pytest.mark.real

FACTS = (
    "The Eiffel Tower was finished in 1889.",
    "Photosynthesis turns light into chemical energy.",
    "The stock market fell sharply on Monday.",
    "Marie Curie won the Nobel Prize in physics in 1903.",
    "A dolphin is a mammal that lives in the sea.",
)
AGAIN = ("The Eiffel Tower was completed in 1889.", "In 1889 the Eiffel Tower was finally finished.")


@pytest.fixture
async def minilm() -> AsyncIterator[EmbeddingModel]:
    """The default embedding model in the user's own cache; tests are skipped where it cannot be had."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    torch.set_num_threads(1)  # it is too small for two
    try:
        model = await load_embedding_model("local/all-minilm-l6-v2", load_settings())
    except BackendUnavailable as e:
        pytest.skip(f"local/all-minilm-l6-v2 cannot be had: {e}")
    yield model
    await model.aclose()


def item(text: str) -> MemoryItem:
    return MemoryItem(text=text, hash=text_hash(text))


def test_the_examples_are_beyond_the_first_two_levels() -> None:
    assert not any(is_duplicate(TextFingerprint.of(text), [TextFingerprint.of(FACTS[0])]) for text in AGAIN)


async def test_admission(minilm: EmbeddingModel) -> None:
    admission = AdmissionFilter(lambda text: len(text.split()), Similarity(minilm))
    proposals = ("Gustave Eiffel's company built the tower.", *AGAIN, FACTS[2])
    [result] = await admission.admit(
        [
            NodeProposals(
                1,
                "When was the Eiffel Tower built? First I find out who built it.",
                (FACTS[0],),
                tuple(Proposal(text) for text in proposals),
            )
        ]
    )
    assert [one.text for one in result.items] == [proposals[0]]
    assert 0.2 <= result.items[0].score <= 1
    assert result.dropped == {"duplicate": 2, "irrelevant": 1}
    assert result.dropped["duplicate"] == 2


async def test_named_memory(minilm: EmbeddingModel, tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "runs.sqlite3")
    memory = await load_memory("facts", settings, minilm)
    kept = await memory.add([item(text) for text in (*FACTS, *AGAIN)])
    assert kept == (1, 2, 3, 4, 5)
    await memory.aclose()
    memory = await load_memory("facts", settings, minilm)
    for question, answer in (
        ("In which year did they complete the famous iron lattice in Paris?", 0),
        ("How do plants get energy from the sun?", 1),
        ("Shares dropped at the start of the week.", 2),
        ("Who discovered radioactivity and was honoured for it?", 3),
        ("Are whales fish?", 4),
    ):
        found = await memory.recall(question, 2)
        assert found[0].stored.item.text == FACTS[answer]
        assert found[0].similarity == max(hit.similarity for hit in found)
    [snippet] = await memory.query("Which animals of the ocean nurse their young?", 1)
    assert snippet.source_id == "memory:facts#5"
    await memory.aclose()
