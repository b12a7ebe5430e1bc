"""A saved FAISS index as a source: written, opened, searched; damaged files and models that do not fit."""

import json

import pytest
from reason.core.errors import DataError, UserError
from reason.reasoning.knowledge import KnowledgeSource, Snippet
from reason.reasoning.retrieval.sources.client import KnowledgeClient
from reason.reasoning.retrieval.sources.faiss import FaissSource, save_faiss_source
from support.knowledge_sources import WordEmbedding

faiss = pytest.importorskip("faiss")
np = pytest.importorskip("numpy")

FACTS = [Snippet(text=t, source_id=f"f{i}") for i, t in enumerate(["the moon is far", "the sun is hot", "mars is red"])]


@pytest.fixture
async def saved(tmp_path):
    await save_faiss_source(tmp_path / "facts", FACTS, WordEmbedding())
    return tmp_path / "facts"


class Opener:
    def __init__(self, **how):
        self.how, self.asked, self.models = how, [], []

    async def __call__(self, name):
        self.asked.append(name)
        self.models.append(WordEmbedding(**self.how))
        return self.models[-1]


async def test_what_was_saved_is_found(saved):
    opener = Opener()
    source = await FaissSource.load(saved, opener)
    assert isinstance(source, KnowledgeSource)
    assert (source.kind, len(source), opener.asked) == ("faiss", 3, ["words"])
    found = await source.query("is the sun hot", 2)
    assert [(s.text, s.source_id) for s in found] == [("the sun is hot", "f1"), ("the moon is far", "f0")]
    assert [s.score for s in found] == pytest.approx([1.0, 0.5])
    assert len(await source.query("mars", 50)) == 3
    assert opener.models[0].embedded[-1] == ("mars", "query")
    await source.aclose()
    assert opener.models[0].closed


async def test_the_index_file_may_be_named_and_a_model_may_be_another_s(saved):
    opener = Opener()
    source = await FaissSource.load(saved / "index.faiss", opener, owned=False)
    assert (await source.query("mars", 1))[0].text == "mars is red"
    await source.aclose()
    assert not opener.models[0].closed


async def test_its_identity_follows_files_and_model(saved, tmp_path):
    first = (await FaissSource.load(saved, Opener())).identity
    assert (await FaissSource.load(saved, Opener(), name="x")).identity == first
    await save_faiss_source(tmp_path / "other", FACTS[:2], WordEmbedding())
    (saved / "source.json").write_text("{}")
    others = [await FaissSource.load(p, Opener()) for p in (tmp_path / "other", saved)]
    assert len({first, *(o.identity for o in others)}) == 3


async def test_saving_again_replaces_it(saved):
    await save_faiss_source(saved, FACTS[2:], WordEmbedding())
    source = await FaissSource.load(saved, Opener())
    assert [s.text for s in await source.query("the moon", 3)] == ["mars is red"]
    assert sorted(p.name for p in saved.iterdir()) == ["index.faiss", "source.json", "texts.jsonl"]


async def test_an_index_by_distance_of_somebody_else(tmp_path):
    index = faiss.IndexFlatL2(256)
    index.add(await WordEmbedding().embed([s.text for s in FACTS]))
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": s.text}) + "\n" for s in FACTS))
    opener = Opener()
    source = await FaissSource.load(tmp_path, opener)
    assert opener.asked == [None]
    best, second = await source.query("mars is red", 2)
    assert (best.text, best.source_id) == ("mars is red", f"{tmp_path.name}#3")
    assert best.score == pytest.approx(0.0, abs=1e-6)
    assert second.score < -0.5


async def test_a_run_is_charged_for_its_queries(saved, runs):
    run = await runs.run()
    ((found,),) = await KnowledgeClient([await FaissSource.load(saved, Opener())], run).query(["mars is red"], 1)
    assert (found.source_kind, found.source_id) == ("faiss", "f2")
    assert run.ledger.usage().by_role["embedding:words"].prompt_tokens == 3


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda p: (p / "index.faiss").unlink(), "index.faiss does not exist"),
        (lambda p: (p / "texts.jsonl").unlink(), "texts.jsonl does not exist"),
        (lambda p: (p / "index.faiss").write_bytes(b"garbage" * 99), "not a FAISS index"),
        (lambda p: (p / "index.faiss").write_bytes(b""), "not a FAISS index"),
        (lambda p: (p / "index.faiss").write_bytes((p / "index.faiss").read_bytes()[:-99]), "not a FAISS index"),
        (lambda p: (p / "texts.jsonl").write_text('{"text": "one"}\n'), "3 vectors.* has 1 texts"),
        (lambda p: (p / "texts.jsonl").write_text('{"text": 5}\n'), "line 1.*strings"),
        (lambda p: (p / "texts.jsonl").write_bytes(b'{"text": "\xff"}\n'), "not UTF-8"),
        (lambda p: (p / "texts.jsonl").write_text("nonsense\n"), "JSON"),
        (lambda p: (p / "source.json").write_text("{"), "JSON"),
        (lambda p: (p / "source.json").write_text("[" * 100_000), "JSON"),
        (lambda p: (p / "source.json").write_text("[]"), "not a JSON object"),
        (lambda p: (p / "source.json").write_text('{"embedding": 5}'), "is not a string"),
        (lambda p: (p / "source.json").write_text('{"embedding_identity": "older"}'), "another version"),
    ],
)
async def test_damaged_indices_are_refused(saved, break_it, says):
    break_it(saved)
    opener = Opener()
    with pytest.raises(DataError, match=says):
        await FaissSource.load(saved, opener)
    assert all(model.closed for model in opener.models)


async def test_a_model_of_another_size_is_refused(saved):
    opener = Opener(dimension=8)
    with pytest.raises(DataError, match="dimension 256.* has 8"):
        await FaissSource.load(saved, opener)
    assert opener.models[0].closed


async def test_nothing_cannot_be_saved_nor_anywhere(tmp_path):
    with pytest.raises(UserError, match="at least one text"):
        await save_faiss_source(tmp_path / "x", [], WordEmbedding())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        await save_faiss_source(tmp_path / "file" / "x", FACTS, WordEmbedding())
