"""What a run repeats and what it does not: strategies, calls, and the stages before a checkpoint."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents import pipeline
from reason.agents.loop import state
from reason.agents.reasoner import Reasoner
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


async def test_a_strategy_is_made_once_a_run(model, settings, monkeypatch):
    made = []
    init = ChainOfThought.__init__
    monkeypatch.setattr(ChainOfThought, "__init__", lambda self, config: (made.append(config), init(self, config))[1])
    async with Reasoner(settings=settings) as reasoner:
        await reasoner.aask("Where?")
    assert len(made) == 1


@pytest.mark.parametrize("died_in", ["verify", "finish"])
async def test_a_verified_run_resumes_from_its_last_checkpoint(model, settings, facts, monkeypatch, died_in):
    def die(*_):
        raise RuntimeError("power cut")

    judged = {"davinci": {"judge": "lexical", "verdicts": "none"}}
    options = {
        "settings": settings,
        "verify": ["davinci"],
        "verify_parameters": judged,
        "evidence": [facts],
        "repairs": 0,
    }
    with monkeypatch.context() as before:
        before.setitem(state.NODES, "verify", die) if died_in == "verify" else before.setattr(pipeline, "finish", die)
        async with Reasoner(**options) as reasoner:
            with pytest.raises(RuntimeError, match="power cut"):
                await reasoner.aask("Where?", run_id="kept")
    monkeypatch.setitem(state.NODES, "model", die)  # it is solved
    async with Reasoner(**options) as reasoner:
        answer = await reasoner.aresume("kept")
    assert (answer.answer, answer.verification.verifiers) == ("Paris", ("davinci",))


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
