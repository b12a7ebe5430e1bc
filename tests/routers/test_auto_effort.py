"""`auto` on arms that differ in effort."""

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.routers.router_files import router_path, save_router_file
from support.injected_models import loaded_models
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.trained_routers import arm, auto_file, line, trained_on

QUESTION = "What is 2 + 2?"


def votes(n, **changed):
    parameters = {"n": n, "max_tokens": 30}
    return arm("self-consistency", line(9.0), 20, parameters=parameters, label=f"votes {n}", **changed)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return Settings(
        model="scripted", embedding_model="none", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5
    )


def save(*arms, identity="scripted@1", model="scripted", **trained):
    path = router_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_router_file(auto_file(*arms, trained=trained_on(engines={"main": identity, **trained})), path)
    return path


async def answered(settings, model, *, strategy="auto", small=None, **options):
    sink = MemorySink()
    models = {"scripted": model} | ({} if small is None else {small.name: small})
    named = {} if small is None else {"small_model": small.name}
    with loaded_models(models):
        async with Reasoner(settings=settings, strategy=strategy, **named) as reasoner:
            answer = await reasoner.aask(QUESTION, sinks=[sink], run_id="r", **options)
    notes = {event.name: event.data for event in sink.of_type("strategy.note")}
    return answer, notes


WORSE = arm("cot", line(-9.0), 20, parameters={"max_tokens": 30})


async def test_a_run_with_an_effort_of_its_own_takes_only_arms_of_it(settings):
    model = ScriptedModel(thinking("a", "The answer is 4."), profile=THINKS)
    high = arm("cot", line(-1.0), 20, parameters={"max_tokens": 40}, effort="high", label="high")
    save(votes(2, effort="low"), high, identity=model.identity)
    _, notes = await answered(settings, model, effort="high")
    assert notes["auto.chosen"]["selected_strategy"] == "high"
    assert "evaluated with effort=low, and this run has high" in notes["auto.chosen"]["arms"][0]["refused"]


async def test_an_effort_that_the_model_does_not_accept_is_no_arm(settings):
    model = ScriptedModel(replies("The answer is 4."))
    save(votes(2, effort="low"), WORSE)
    _, notes = await answered(settings, model)
    assert notes["auto.chosen"]["selected_strategy"] == WORSE.label
    assert "does not think" in notes["auto.chosen"]["arms"][0]["refused"]


async def test_the_default_file_is_that_of_the_model_and_may_not_change_in_a_run(settings):
    model = ScriptedModel(replies("The answer is 4."))
    save(votes(2), WORSE)
    with loaded_models({"scripted": model}):
        async with Reasoner(settings=settings, strategy="auto") as reasoner:
            answer = await reasoner.aask(QUESTION, run_id="r")
            assert answer.selected_strategy == "votes 2"
            assert (await reasoner.areplay("r")).selected_strategy == "votes 2"
            save(votes(3), WORSE)
            with pytest.raises(UserError, match="has changed since the run started"):
                await reasoner.areplay("r")
