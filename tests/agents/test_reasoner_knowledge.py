"""Brains and memories through the SDK: opened once, recorded, replayed without them, and carried over between runs."""

import asyncio

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.reasoning.memory.named_memory import load_memory
from support.encoder_cache import cache_with_encoders
from support.scripted_model import ScriptedModel
from support.thought_model import World

FACT = "The Wibble Tower stands in Quax."
QUESTION = "In which city is the Wibble Tower?"
SMALL = {"k": 2, "expansions": 4, "max_depth": 3}


@pytest.fixture(autouse=True)
def _long_associations(monkeypatch):
    """The scripted model's tokens are single characters."""
    monkeypatch.setattr("reason.reasoning.coat.association.MAX_NOTE_TOKENS", 200)


class Towers(World):
    """Knows where the tower is only where the notes, or what was found, say so."""

    def steps(self, path, text):
        if not path and "<snippets>" not in text:
            return {f"Look at the tower {c}.": 1.0 for c in "pqr"}
        return {f"The answer is {'Quax [1]' if FACT in text else 'Zed'}.": 1.0}

    def items(self, path, last):
        return [(FACT, 1)] if FACT in last else []


@pytest.fixture
def world(monkeypatch):
    made = Towers()
    made.model = ScriptedModel(made.script)

    async def load_model(name, settings, *_):
        return made.model

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return made


@pytest.fixture
def settings(tmp_path):
    return Settings(
        model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=cache_with_encoders(tmp_path / "cache"), seed=5
    )


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "towers"
    place.mkdir()
    (place / "towers.md").write_text(f"# Towers\n\n{FACT}\n")
    (place / "fish.txt").write_text("Fish swim in the sea.")
    return place


def coat(settings, **more):
    return Reasoner(strategy="coat", parameters=SMALL, settings=settings, **more)


@pytest.mark.nightly
@pytest.mark.real
async def test_a_directory_is_searched_and_cited(world, settings, folder):
    async with coat(settings, context=[str(folder)]) as reasoner:
        answer = await reasoner.aask(QUESTION)
    assert answer.answer.startswith("Quax")
    (cited,) = answer.citations
    assert (cited.text, "towers.md" in cited.source) == (FACT, True)
    assert answer.degraded == ()


@pytest.mark.real
async def test_a_run_replays_without_model_directory_or_embedding(world, settings, folder):
    async with coat(settings, context=[str(folder)]) as reasoner:
        answer = await reasoner.aask(QUESTION)
    for file in folder.iterdir():
        file.unlink()
    calls, sink = len(world.model.generate_calls), MemorySink()
    async with Reasoner(settings=settings.model_copy(update={"embedding_model": "local/nowhere"})) as reasoner:
        again = await reasoner.areplay(answer.run_id, sinks=[sink])
    assert len(world.model.generate_calls) == calls
    assert (again.text, again.citations) == (answer.text, answer.citations)
    assert [e.items for e in sink.of_type("memory.associated")]


async def test_a_replay_quotes_the_same_without_a_tokenizer(world, settings, folder):
    world.model.count_tokens = lambda prompt: 10_000  # a run that asked it would quote nothing
    filler = " Nothing is known of the tower." * 20
    (folder / "long.md").write_text(f"# More\n\n{filler}\n\nThe Wibble Tower was begun in 1402.{filler}\n")
    async with Reasoner(
        strategy="coat", parameters={**SMALL, "association": "quoted"}, settings=settings, context=[str(folder)]
    ) as reasoner:
        answer, ran = await reasoner.aask(QUESTION, sinks=[sink := MemorySink()]), sink
        again = await reasoner.areplay(answer.run_id, sinks=[shown := MemorySink()])
    quoted = [e.items for e in ran.of_type("memory.associated")]
    assert any(quoted)
    assert [e.items for e in shown.of_type("memory.associated")] == quoted
    assert again.text == answer.text


@pytest.mark.parametrize("strategy", ["coat", "rag"])
async def test_a_function_is_a_knowledge_source(world, settings, strategy):
    asked = []

    def towers(text, k):
        asked.append((text, k))
        return [(FACT, "towers")]

    parameters = SMALL if strategy == "coat" else {}
    async with Reasoner(strategy=strategy, parameters=parameters, settings=settings, context=[towers]) as reasoner:
        answer = await reasoner.aask(QUESTION)
    assert answer.answer.startswith("Quax")
    assert [c.source for c in answer.citations] == ["towers"]
    assert asked
    assert all(QUESTION in text for text, _ in asked)


async def test_rag_queries_once_and_needs_a_knowledge_source(world, settings):
    asked = []

    def nothing(text, k):
        asked.append(text)
        return []

    async with Reasoner(strategy="rag", settings=settings, context=[nothing]) as reasoner:
        answer = await reasoner.aask(QUESTION)
    assert asked == [QUESTION]
    assert "answered without" in " ".join(answer.degraded)
    async with Reasoner(strategy="rag", settings=settings) as reasoner:
        with pytest.raises(UserError, match="rag has no knowledge source"):
            await reasoner.aask(QUESTION)


def test_a_strategy_without_knowledge_refuses_sources(settings):
    with pytest.raises(UserError, match="cot uses no knowledge sources"):
        Reasoner(strategy="cot", settings=settings, context=["somewhere"])
    with pytest.raises(UserError, match="the memory 'mine'"):
        Reasoner(strategy="beam", settings=settings, memory="mine")


def test_sources_of_the_same_name_are_refused(settings, folder):
    functions = [lambda text, k: [FACT], lambda text, k: ["Fish swim."]]
    with pytest.raises(UserError, match=r"<lambda>' twice") as refused:
        coat(settings, context=functions)
    assert "a name of its own" in refused.value.hint
    with pytest.raises(UserError, match="twice") as refused:
        coat(settings, context=[str(folder), str(folder)])
    assert refused.value.hint == "give it once"

    def towers(text, k):
        return [FACT]

    coat(settings, context=[towers, functions[0], str(folder)])


async def test_knowledge_in_the_settings_is_ignored_by_other_strategies(world, settings):
    elsewhere = settings.model_copy(update={"context": ("nowhere-at-all",), "strategy": "cot"})
    async with Reasoner(settings=elsewhere) as reasoner:
        assert (await reasoner.aask(QUESTION)).stopped == "done"


async def test_a_source_that_cannot_be_opened_is_an_error_before_the_run(world, settings, tmp_path):
    for source, error in (("nowhere-at-all", DataError), ("abc:def", UnknownName)):
        async with coat(settings, context=[source]) as reasoner:
            with pytest.raises(error):
                await reasoner.aask(QUESTION)
    assert world.model.generate_calls == []


@pytest.mark.real
async def test_a_memory_carries_over_from_run_to_run(world, settings):
    async with coat(settings, context=[lambda text, k: [(FACT, "towers")]], memory="mine") as reasoner:
        first = await reasoner.aask(QUESTION)
    memory = await load_memory("mine", settings)
    (kept,) = await memory.items()
    await memory.aclose()
    assert (kept.item.text, kept.item.source_id) == (FACT, "towers")
    async with coat(settings, memory="mine") as reasoner:
        second = await reasoner.aask(QUESTION)
        third = await reasoner.areplay(second.run_id)
    assert first.answer == second.answer == third.answer
    assert "memory:mine#" in second.citations[0].source
    assert "towers" in second.citations[0].source
    memory = await load_memory("mine", settings)
    assert len(await memory.items()) == 1  # what it recalled is not kept again
    await memory.aclose()


@pytest.mark.real
async def test_a_resumed_run_reports_a_changed_directory(world, settings, folder):
    thinking = asyncio.Event()

    async def wait_for_ever():
        if len(world.model.generate_calls) > 2:
            thinking.set()
            await asyncio.Event().wait()

    world.model._step = wait_for_ever
    async with coat(settings, context=[str(folder)]) as reasoner:
        task = asyncio.create_task(reasoner.aask(QUESTION, run_id="cut"))
        await thinking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    world.model._step = None
    (folder / "towers.md").write_text(f"{FACT} And more.")
    async with coat(settings, context=[str(folder)]) as reasoner:
        again = await reasoner.aresume("cut")
    assert "has changed since the run began" in " ".join(again.degraded)
    assert again.answer.startswith("Quax")
