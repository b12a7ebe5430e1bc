"""A saved index with the real MiniLM: built, added to, searched by meaning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.settings import load_settings
from reason.reasoning.retrieval.index.builder import build_index
from reason.reasoning.retrieval.index.saved_index import load_index
from reason.serving.encoders.factory import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel

pytestmark = pytest.mark.real

TEXT = """# Eiffel Tower

It was completed in 1889 by the company of Gustave Eiffel.

# Stock market

Shares dropped sharply at the start of the week.

# Dolphin

This animal lives in the sea and suckles its young.
"""


@pytest.fixture
async def minilm() -> AsyncIterator[EmbeddingModel]:
    """The default embedding model in the user's own cache; tests are skipped where it cannot be had."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("faiss")
    torch.set_num_threads(1)  # it is too small for two
    try:
        model = await load_embedding_model("local/all-minilm-l6-v2", load_settings())
    except BackendUnavailable as e:
        pytest.skip(f"local/all-minilm-l6-v2 cannot be had: {e}")
    yield model
    await model.aclose()


async def test_an_index_of_real_vectors(minilm: EmbeddingModel, tmp_path: Path) -> None:
    documents = tmp_path / "facts.md"
    documents.write_text(TEXT)
    built = await build_index(tmp_path / "i", [documents], minilm)
    assert built.manifest.num_passages == 3
    made_by = built.manifest.config.embedding
    assert made_by is not None
    assert (made_by.name, made_by.dimension) == ("local/all-minilm-l6-v2", 384)

    async def opener(name: str | None) -> EmbeddingModel:
        assert name == "local/all-minilm-l6-v2"
        return minilm

    retriever = await load_index(tmp_path / "i", opener, owned=False)
    claims = ["The cetacean feeds milk to babies.", "Equities fell on Monday.", "A French landmark was built."]
    found = await retriever.retrieve(claims, 1)
    assert [one[0].title for one in found] == ["Dolphin", "Stock market", "Eiffel Tower"]
    [passage] = found[0]
    assert passage.start is not None
    assert TEXT[passage.start : passage.start + len(passage.text)] == passage.text
    # none of the claims shares a word that tells with its passage: by words alone there is nothing
    alone = await load_index(tmp_path / "i", None)
    assert await alone.retrieve(claims[:2], 1) == [[], []]
    documents.write_text(TEXT + "\n# Whale\n\nA whale is a mammal too.\n")
    assert (await build_index(tmp_path / "i", [documents], minilm)).changes.changed == ["facts.md"]
    retriever = await load_index(tmp_path / "i", opener, owned=False)
    assert {p.title for p in (await retriever.retrieve(claims[:1], 2))[0]} == {"Dolphin", "Whale"}
