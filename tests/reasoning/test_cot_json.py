"""`cot` with a schema: the chain is free text, the answer after it is JSON."""

from __future__ import annotations

import json

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.reasoning.cot import JSON_INSTRUCTION
from reason.reasoning.strategy import Models, create_strategy
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER, ToolModel, calling
from support.stored_runs import RunHarness

SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
CHAIN, JSON = "Six sevens. The answer is 42.", '{"answer": 42}'
QUESTION = Question(text="What is 6 * 7?")


def script(text):
    return replies(JSON if JSON_INSTRUCTION in text else CHAIN)(text)


async def solve(folder, model, question=QUESTION, *, budget=None, **parameters):
    store = await SqliteStore.open(folder / "runs.sqlite3")
    harness = RunHarness(store, model)
    metered = await harness.begin("r", strategy="cot", question=question, budget=budget, seed=1)
    strategy, _ = create_strategy("cot", {"json_schema": SCHEMA, **parameters})
    try:
        return await strategy.solve(question, Models({"main": metered}), harness.run)
    finally:
        await store.aclose()


async def test_the_answer_is_json_and_the_chain_is_free(tmp_path):
    model = ScriptedModel(script, json_schema=True)
    solution = await solve(tmp_path, model, max_tokens=64)
    best = solution.best
    assert (best.text, best.answer, best.tokens, solution.stopped) == (JSON, JSON, len(JSON) + 1, "done")
    assert json.loads(best.answer) == {"answer": 42}
    assert " ".join(step.text for step in best.steps).startswith("Six sevens.")
    free, constrained = (call[0] for call in model.generate_calls)
    assert (free.sampling.json_schema, constrained.sampling.json_schema) == (None, SCHEMA)
    assert (constrained.sampling.default_temperature, constrained.sampling.max_tokens) == (0.0, 64)
    assert [(m.role, m.content) for m in constrained.prompt.messages[-2:]] == [
        ("assistant", CHAIN),
        ("user", JSON_INSTRUCTION),
    ]


async def test_a_budget_that_ends_with_the_chain_leaves_no_answer(tmp_path):
    model = ScriptedModel(script, json_schema=True)
    solution = await solve(tmp_path, model, budget=Budget(tokens=len(CHAIN) + 1))
    assert (solution.best.text, solution.best.answer, solution.stopped) == ("", None, "budget")


async def test_json_that_is_cut_is_no_answer(tmp_path):
    solution = await solve(tmp_path, ScriptedModel(script, json_schema=True), budget=Budget(tokens=len(CHAIN) + 6))
    assert (solution.best.text, solution.best.answer) == (JSON[:5], None)
    assert solution.stopped == "budget"


async def test_a_model_without_schemas_is_refused_before_any_call(tmp_path):
    model = ScriptedModel(script)
    with pytest.raises(CapabilityMissing, match="json_schema"):
        await solve(tmp_path, model)
    assert model.generate_calls == []


async def test_calls_are_not_written_as_json(tmp_path):
    model = ToolModel(replies(calling(city="Rome")), json_schema=True)
    solution = await solve(tmp_path, model, QUESTION.model_copy(update={"tools": (WEATHER,)}))
    assert solution.best.tool_calls[0].name == "weather"
    assert len(model.generate_calls) == 1
