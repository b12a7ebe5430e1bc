"""Documents of verifiers are embedded once; of changed ones, only what is new."""

from __future__ import annotations

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.errors import DataError
from reason.reasoning.retrieval.sources.directory import load_retriever
from support.knowledge_sources import WordEmbedding
from support.scripted_model import ScriptedModel, replies


@pytest.fixture
def embeddings(monkeypatch):
    """The embedding models that were loaded, one for each retriever."""
    loaded: list[WordEmbedding] = []

    async def load_embedding_model(name, *_):
        loaded.append(WordEmbedding())
        return loaded[-1]

    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", load_embedding_model)
    return loaded


async def test_only_new_passages_are_embedded_when_documents_are_opened_again(tmp_path, settings, embeddings):
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("a", "b", "c"):
        (docs / f"{name}.txt").write_text(f"The {name} is a letter.")
    told = []
    for change in (None, "b", None):
        if change is not None:
            (docs / f"{change}.txt").write_text("The moon is far.")
        retriever = await load_retriever([str(docs)], settings, lambda *report: told.append(report))
        (found,) = await retriever.retrieve(["Where is the letter c?"], 1)
        assert [passage.text for passage in found] == ["The c is a letter."]
        await retriever.aclose()
    documents = [[text for text, kind in model.embedded if kind == "document"] for model in embeddings]
    assert [len(texts) for texts in documents] == [3, 1, 0]
    assert "The moon is far." in documents[1][0]
    assert told == 3 * [("reading", 0, None), ("embedding", 3, 3)]
    assert (settings.cache_dir / "vectors.sqlite3").is_file()


async def test_missing_evidence_is_told_before_a_model_is_loaded(settings, monkeypatch):
    loaded = []

    async def load_model(name, *_):
        loaded.append(name)
        return ScriptedModel(replies("The answer is 42."))

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    async with Reasoner(settings=settings, verify=["davinci"], evidence=["/no/such/directory"]) as reasoner:
        with pytest.raises(DataError, match="/no/such/directory does not exist"):
            await reasoner.aask("What is 6 times 7?")
    assert loaded == []


async def test_a_provider_s_model_is_opened_before_weights_are_loaded(settings, monkeypatch):
    loaded = []

    async def load_model(name, *_):
        loaded.append(name)
        return ScriptedModel(replies("The answer is 42."), name=name)

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    async with Reasoner("local/large", "cascade", small_model="openai/small", settings=settings) as reasoner:
        await reasoner.load()
    assert loaded == ["openai/small", "local/large"]
