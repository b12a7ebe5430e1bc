"""`question-router` on two scripted models."""

from __future__ import annotations

import math

import pytest
from reason.core.budget import Budget
from reason.core.errors import DataError, UserError
from reason.core.events import MemorySink
from reason.core.run import Run, RunConfig
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.strategy import STRATEGIES, Models, create_strategy
from reason.routers.question_router import QuestionRouter
from reason.routers.router_files import save_router_file
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.replay import ReplayModel
from support.scripted_model import ScriptedModel, replies
from support.trained_routers import SPACE, line, question_file, trained_on

SHORT = Question(text="What is 2 + 2?", kind="number")
LONG = Question(text="What is 2 + 2? " + "Think of everything. " * 20, kind="number")


def large():
    return ScriptedModel(replies("The answer is 4."), name="large")


def small():
    return ScriptedModel(replies("The answer is 5."), name="small")


class Harness:
    def __init__(self, store, folder):
        self.store, self.folder = store, folder

    def write(self, file):
        path = self.folder / "router.json"
        save_router_file(file, path)
        return str(path)

    async def solve(self, question, parameters, *, main=None, little=None, name="r", budget=None, **kept):
        strategy, complete = create_strategy("question-router", parameters)
        config = RunConfig(
            question=question,
            strategy="question-router",
            parameters=complete,
            models={"main": "large"},
            budget=Budget(**(budget or {})),
            seed=7,
        )
        if kept.get("recording", True):
            await self.store.create_run(name, {})
        self.sink = MemorySink()
        self.run = Run(name, config, self.store, sinks=[self.sink], **kept)
        main, little = main or large(), small() if little is None else little
        by_role = {"main": MeteredModel(main, "main", self.run)}
        if little:
            by_role["small"] = MeteredModel(little, "small", self.run)
        return await strategy.solve(question, Models(by_role), self.run)


@pytest.fixture
async def harness(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield Harness(store, tmp_path)
    await store.aclose()


async def test_question_is_routed_by_its_probability(harness):
    file = harness.write(question_file(line(0.0, 1.0)))
    easy = await harness.solve(SHORT, {"router": file})
    assert (easy.best.answer, easy.notes["selected_strategy"]) == ("5", "cot max_tokens=30, small")
    assert list(harness.run.ledger.usage().by_role) == ["small:small"]
    found = await harness.solve(LONG, {"router": file}, name="long")
    assert (found.best.answer, found.notes["selected_strategy"]) == ("4", "cot max_tokens=40")
    assert list(harness.run.ledger.usage().by_role) == ["main:large"]
    note_data = found.notes["question_router"]
    assert note_data["answered"] == "large"
    assert note_data["needed"] == pytest.approx(1 / (1 + math.exp(-4)), abs=1e-6)  # more than 4 deviations longer: cut
    (note,) = [e for e in harness.sink.of_type("strategy.note") if e.name == "question.routed"]
    assert note.data == note_data
    assert "threshold 0.500; length +" in note_data["why"]


async def test_rate_and_threshold_change_the_decision(harness):
    file = harness.write(question_file(line(0.0, 0.0)))  # every question: 0.5, exactly
    assert (await harness.solve(SHORT, {"router": file})).notes["question_router"]["answered"] == "large"
    for i, (parameters, who) in enumerate(
        [
            ({"threshold": 0.5}, "large"),
            ({"threshold": math.nextafter(0.5, 1)}, "small"),
            ({"rate": 0.5}, "large"),
            ({"rate": 0.49}, "small"),
            ({"rate": 0.0}, "small"),
            ({"rate": 1.0}, "large"),
        ]
    ):
        found = await harness.solve(SHORT, {"router": file, **parameters}, name=f"r{i}")
        assert found.notes["question_router"]["answered"] == who, parameters


async def test_first_token_of_the_small_model_is_a_feature(harness):
    file = harness.write(question_file(line(0.0, 0.0, 4.0), space=SPACE))
    sure = await harness.solve(SHORT, {"router": file})
    assert sure.notes["question_router"]["answered"] == "small"
    assert harness.run.ledger.usage().by_role["small:small"].model_calls == 2
    unsure = ScriptedModel(replies(*(f"{letter}. The answer is 5." for letter in "abcdefgh")), name="small")
    found = await harness.solve(SHORT, {"router": file}, little=unsure, name="unsure")
    assert found.notes["question_router"]["answered"] == "large"


async def test_missing_file_names_the_command(harness):
    file = harness.write(question_file(line(0.0, 1.0)))
    with pytest.raises(UserError, match=r"needs a trained router.*reason train question-router"):
        await harness.solve(SHORT, {})
    with pytest.raises(DataError, match="there is no question-router file"):
        await harness.solve(SHORT, {"router": "nowhere.json"}, name="a")
    with pytest.raises(UserError, match=r"needs a small model.*--small-model"):
        await harness.solve(SHORT, {"router": file}, little=False, name="b")
    with pytest.raises(UserError, match="its main model is large@1, and this one is small@1"):
        await harness.solve(SHORT, {"router": file}, main=small(), name="c")
    with pytest.raises(UserError, match="rate or threshold, not both"):
        create_strategy("question-router", {"rate": 0.1, "threshold": 0.2})


@pytest.mark.parametrize("limit", [{"tokens": n} for n in (1, 5, 17, 30)] + [{"calls": n} for n in (1, 2)])
async def test_limits_hold_and_replay_is_identical(harness, limit):
    file = harness.write(question_file(line(0.0, 1.0, 1.0), space=SPACE))
    found = await harness.solve(LONG, {"router": file}, budget=limit)
    usage = harness.run.ledger.usage()
    assert usage.completion_tokens <= limit.get("tokens", math.inf)
    assert usage.model_calls <= limit.get("calls", math.inf)
    main, little = (ReplayModel(m.name, m.identity, m.capabilities) for m in (large(), small()))
    again = await harness.solve(LONG, {"router": file}, main=main, little=little, budget=limit, recording=False)
    assert again == found


async def test_training_question_is_reported(harness):
    trained = trained_on(
        SHORT.text, models={"main": "large", "small": "small"}, engines={"main": "large@1", "small": "small@1"}
    )
    await harness.solve(SHORT, {"router": harness.write(question_file(line(0.0, 1.0), trained=trained))})
    assert harness.run.degraded == ["the router was trained on this question: its answer shows nothing about others"]


def test_it_is_registered():
    assert STRATEGIES.load("question-router") is QuestionRouter
