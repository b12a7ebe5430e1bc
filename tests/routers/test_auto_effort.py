"""The effort "auto": chosen for the question from a trained file, and off without one."""

from __future__ import annotations

import math

import pytest
from reason.core.budget import Budget
from reason.core.errors import DataError, UserError
from reason.core.events import MemorySink
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.strategy import Models
from reason.routers.auto import choose_effort
from reason.routers.router_files import router_path, save_router_file
from reason.serving.metered.model import MeteredModel
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.trained_routers import arm, auto_file, line, trained_on

SHORT = Question(text="x" * 20)
LONG = Question(text="x" * round(math.e**4.9))
IDENTITY = ScriptedModel(replies(""), profile=THINKS).identity
# as likely right on a short question, and far more on a long one; for 20 times the tokens
LOW = arm("cot", line(2.0, -2.0), 100, effort="low", label="cot effort=low")
HIGH = arm("cot", line(2.0, 0.0), 2000, effort="high", label="cot effort=high")
TRAINED = trained_on(engines={"main": IDENTITY})


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture
async def store(tmp_path):
    sqlite = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield sqlite
    await sqlite.aclose()


def save(*arms, price=0.02, trained=TRAINED):
    path = router_path("scripted")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_router_file(auto_file(*arms, price=price, trained=trained), path)


async def choose(store, question, *, profile=THINKS, budget=None, strategy="cot", run_id="r"):
    config = RunConfig(
        question=question,
        strategy=strategy,
        parameters={},
        models={"main": "scripted"},
        budget=budget or Budget(),
        seed=1,
        effort="auto",
    )
    await store.create_run(run_id, {})
    run = Run(run_id, config, store, sinks=[sink := MemorySink()])
    model = MeteredModel(ScriptedModel(thinking("a", "The answer is 4."), profile=profile), "main", run)
    return await choose_effort(question, Models({"main": model}), run), run, sink


async def test_a_question_gets_the_effort_that_is_worth_most(store):
    save(LOW, HIGH)
    effort, run, sink = await choose(store, SHORT)
    assert (effort, run.degraded) == ("low", [])
    (note,) = sink.of_type("strategy.note")
    assert (note.name, note.data["arm"]) == ("effort.chosen", "cot effort=low")
    effort, _, _ = await choose(store, LONG, run_id="long")
    assert effort == "high"


async def test_an_effort_that_the_budget_does_not_cover_is_not_chosen(store):
    save(LOW, HIGH)
    effort, run, _ = await choose(store, LONG, budget=Budget(tokens=500))
    assert (effort, run.degraded) == ("low", [])
    effort, run, _ = await choose(store, LONG, budget=Budget(tokens=50), run_id="less")
    assert effort == "low"
    assert "the budget covers no arm" in run.degraded[0]


async def test_the_arms_of_the_runs_strategy_count_if_they_differ_in_effort(store):
    votes = [
        arm("self-consistency", line(9.0), 10, effort="low", label="votes low"),
        arm("self-consistency", line(9.0), 5, effort="medium", label="votes medium"),
    ]
    save(LOW, HIGH, *votes)
    assert (await choose(store, LONG))[0] == "high"
    assert (await choose(store, LONG, strategy="self-consistency", run_id="sc"))[0] == "medium"
    assert (await choose(store, LONG, strategy="rpc", run_id="rpc"))[0] == "medium"  # none of its own: all of them


async def test_the_models_default_may_be_the_choice(store):
    save(LOW, HIGH.model_copy(update={"effort": None, "label": "cot"}))
    assert (await choose(store, LONG))[0] is None


async def test_efforts_that_the_model_does_not_accept_are_left_out(store):
    save(LOW, HIGH, arm("cot", line(9.0), 10, effort="max", label="cot effort=max"))
    assert (await choose(store, LONG))[0] == "high"


async def test_it_is_off_until_it_is_trained(store):
    with pytest.raises(UserError, match="nothing was trained for model 'scripted'") as caught:
        await choose(store, SHORT)
    assert f"reason train auto RUN_LOW RUN_HIGH --out {router_path('scripted')}" in caught.value.hint
    assert caught.value.param == "effort"


async def test_files_that_cannot_decide_are_refused(store):
    save(LOW, LOW.model_copy(update={"label": "other"}))
    with pytest.raises(UserError, match="do not differ in an effort"):
        await choose(store, SHORT)
    save(LOW, HIGH, trained=trained_on(engines={"main": "other@2"}))
    with pytest.raises(UserError, match="was trained for another model: its main model is other@2"):
        await choose(store, SHORT, run_id="other")
    router_path("scripted").write_text("{")
    with pytest.raises(DataError):
        await choose(store, SHORT, run_id="damaged")


async def test_a_model_that_cannot_think_is_refused(store):
    save(LOW, HIGH)
    with pytest.raises(UserError, match="effort auto: model 'scripted' does not think"):
        await choose(store, SHORT, profile=None)


def test_a_models_file_has_its_name():
    assert router_path("openai/gpt-5.6").name == "openai-gpt-5.6.json"
    assert router_path("vllm/http://host:8000/v1?m=qwen").name == "vllm-http-host-8000-v1-m-qwen.json"
