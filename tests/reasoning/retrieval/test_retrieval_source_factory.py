"""Creating knowledge sources from strings and objects: which source, its models, who closes it, and errors."""

import asyncio

import pytest
from reason.core.errors import DataError, ReasonError, UnknownName, UserError
from reason.core.settings import Settings
from reason.reasoning.knowledge import KnowledgeSource
from reason.reasoning.retrieval.sources.directory import DirectorySource
from reason.reasoning.retrieval.sources.factory import FunctionSource, create_knowledge_source
from support.knowledge_sources import ScriptedKnowledgeSource, WordEmbedding

pytest.importorskip("bm25s")


@pytest.fixture
def settings(tmp_path):
    return Settings(store=tmp_path / "home" / "runs.sqlite3", cache_dir=tmp_path / "cache")


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("The Moon is far.")
    return tmp_path / "docs"


@pytest.fixture
def models(monkeypatch):
    """Stands for the models that the settings name; what was opened."""
    made = []

    async def embedding(name, settings, progress):
        made.append(WordEmbedding(name=name))
        return made[-1]

    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", embedding)
    return made


@pytest.mark.parametrize("asked", ["docs/", "directory:docs", "path"])
async def test_directorys(docs, settings, models, asked):
    told = []
    knowledge = await create_knowledge_source(
        docs if asked == "path" else asked,
        settings,
        progress=lambda *at: told.append(at),
    )
    assert isinstance(knowledge, DirectorySource)
    assert knowledge.name == (str(docs) if asked == "path" else asked)
    ((text, source),) = [(s.text, s.source_id) for s in await knowledge.query("moon", 3)]
    assert (text, source) == ("The Moon is far.", "docs/a.txt:0-16")
    assert told == [("reading", 0, None), ("embedding", 1, 1)]
    assert (settings.cache_dir / "vectors.sqlite3").is_file()
    await knowledge.aclose()
    assert [m.closed for m in models] == [True]
    again = await create_knowledge_source(asked if asked != "path" else docs, settings)
    assert again.identity == knowledge.identity
    assert models[1].embedded == []  # vectors were kept
    await again.aclose()


async def test_an_embedding_opener_of_somebody_elses_keeps_its_model(docs, settings):
    model = WordEmbedding()

    async def opener(name):
        assert name is None
        return model

    knowledge = await create_knowledge_source("docs", settings, load_embedding=opener)
    await knowledge.aclose()
    assert not model.closed


async def test_without_embeddings_a_folder_is_searched_by_words_and_says_so(docs, settings):
    async def opener(name):
        raise UserError("an extra is missing")

    knowledge = await create_knowledge_source("docs", settings, load_embedding=opener)
    assert knowledge.degraded == ("passages are retrieved by their words only: an extra is missing",)
    assert [s.text for s in await knowledge.query("moon", 1)] == ["The Moon is far."]


async def test_sources_and_callables(settings):
    own = ScriptedKnowledgeSource({})
    assert await create_knowledge_source(own, settings) is own
    knowledge = await create_knowledge_source(lambda text, k: ["x"], settings)
    assert isinstance(knowledge, FunctionSource)
    assert isinstance(knowledge, KnowledgeSource)
    with pytest.raises(UserError):
        await create_knowledge_source(7, settings)


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ("", UserError, "empty string.*give a directory"),
        ("nowhere", DataError, r"'nowhere' is not a directory.*directory:…, mcp:…"),
        ("docs/a.txt", DataError, "is a file, not a directory"),
        ("directory:", UserError, "lacks a value.*directory:…"),
        ("mpc:docs", UnknownName, "kind of knowledge source 'mpc'.*did you mean 'mcp'"),
        ("xyz:docs", UnknownName, "kinds are directory, mcp"),
        ("mcp:http://", UserError, "is not an HTTP URL"),
        ("mcp:http://me:pw@host", UserError, "password"),
        ("mcp:", UserError, "lacks a value"),
        ("~nobody-of-that-name", DataError, "is not a directory"),
        ("\0", DataError, "is not a directory"),
    ],
)
async def test_wrong_strings_name_the_input_and_the_remedy(docs, settings, models, asked, error, says):
    with pytest.raises(error, match=says) as raised:
        await create_knowledge_source(asked, settings)
    assert isinstance(raised.value, ReasonError)
    assert raised.value.hint
    assert "pw" not in str(raised.value)


async def test_a_directory_with_a_colon_in_its_name_is_a_directory(tmp_path, settings, models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "x.txt").write_text("text")
    knowledge = await create_knowledge_source("a:b", settings)
    assert isinstance(knowledge, DirectorySource)
    await knowledge.aclose()


async def test_opening_can_be_cancelled_and_closes_what_it_opened(docs, settings, monkeypatch):
    begun = asyncio.Event()

    async def never():
        begun.set()
        await asyncio.Event().wait()

    model = WordEmbedding(step=never)

    async def opener(*_):
        return model

    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", opener)
    task = asyncio.create_task(create_knowledge_source("docs", settings))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.closed
