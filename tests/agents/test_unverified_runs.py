"""Runs without verifiers run their stages without the graph, with the same events and answer."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents import pipeline
from reason.agents.pipeline import PipelineRun
from reason.agents.reasoner import Reasoner
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.reasoning.cot import ChainOfThought
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies


@pytest.fixture
def model(monkeypatch):
    model = ScriptedModel(replies("It is in France. The answer is Paris."))

    async def load_model(name, settings, *_):
        return model

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return model


@pytest.fixture
def settings(tmp_path):
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


async def through_graph(run, context):
    """The way of a run with verifiers."""
    return await run._through_graph({"question": run._run.question.model_dump(mode="json")}, context)


def told(sink):
    """What was told, but for names and times."""
    return [e.model_dump(exclude={"run_id", "at_s", "seconds", "answer"}) for e in sink.events]


async def test_both_ways_emit_the_same_events_and_answer(model, settings, monkeypatch):
    brief, whole = MemorySink(), MemorySink()
    async with Reasoner(settings=settings) as reasoner:
        one = await reasoner.aask("Where?", sinks=[brief])
        store = await reasoner.open_store()
        assert await store.get_checkpoint(one.run_id) is None
        monkeypatch.setattr(PipelineRun, "_from_start", through_graph)
        other = await reasoner.aask("Where?", sinks=[whole])
        assert await store.get_checkpoint(other.run_id) is not None
    assert told(brief) == told(whole)
    assert [e.stage for e in brief.of_type("stage.started")] == ["solve"]  # the others have no work
    assert one.model_copy(update={"run_id": "", "usage": other.usage}) == other.model_copy(update={"run_id": ""})


async def test_a_strategy_is_made_once_a_run(model, settings, monkeypatch):
    made = []
    init = ChainOfThought.__init__
    monkeypatch.setattr(ChainOfThought, "__init__", lambda self, config: (made.append(config), init(self, config))[1])
    async with Reasoner(settings=settings) as reasoner:
        await reasoner.aask("Where?")
    assert len(made) == 1


async def test_a_run_with_checkpoints_resumes_from_them(model, settings, monkeypatch):
    def die(*_):
        raise RuntimeError("power cut")

    with monkeypatch.context() as before:
        before.setattr(PipelineRun, "_from_start", through_graph)
        before.setitem(pipeline.STAGES, "finish", die)
        async with Reasoner(settings=settings) as reasoner:
            with pytest.raises(RuntimeError, match="power cut"):
                await reasoner.aask("Where?", run_id="kept")
    monkeypatch.setitem(pipeline.STAGES, "solve", die)  # it is solved
    async with Reasoner(settings=settings) as reasoner:
        assert (await reasoner.aresume("kept")).answer == "Paris"


async def test_a_new_run_does_not_look_up_calls_it_cannot_have(model, settings, monkeypatch):
    asked = []
    async with Reasoner(settings=settings) as reasoner:
        store = await reasoner.open_store()
        find = store.find_calls

        async def watched(run_id, keys, **how):
            asked.append(list(keys))
            return await find(run_id, keys, **how)

        monkeypatch.setattr(store, "find_calls", watched)
        generate = MeteredModel.generate

        async def twice(self, requests, *args, **how):
            first = await generate(self, requests, *args, **how)
            assert await generate(self, requests, *args, **how) == first
            return first

        monkeypatch.setattr(MeteredModel, "generate", twice)
        answer = await reasoner.aask("Where?")
        calls = len(model.generate_calls)
        assert len(asked) == calls == 1  # what was asked for before is looked for, and found
        assert (answer.usage.model_calls, answer.usage.replayed_calls) == (2, 1)
        again = await reasoner.areplay(answer.run_id)
        assert again.answer == "Paris"
        assert len(model.generate_calls) == calls
