"""Answers as JSON: the strategy's own answer is free text, the JSON after it is held to the schema and validated."""

import json

import pytest
from reason.core.budget import Budget
from reason.core.errors import SchemaNotSatisfied, UserError
from reason.core.json_schema import OBJECT_SCHEMA
from reason.core.types import Question
from reason.reasoning.json_answers import JSON_INSTRUCTION, MAX_ATTEMPTS, unfenced, with_json_answer
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER, ToolModel, calling
from support.stored_runs import RunHarness

SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
CHAIN, JSON = "Six sevens. The answer is 42.", '{"answer": 42}'
QUESTION = Question(text="What is 6 * 7?", answer_schema=SCHEMA)


def writing(*texts):
    """A script that answers with the chain, and writes these texts as JSON: one after the other, the last again."""

    def script(text):
        if JSON_INSTRUCTION not in text:
            return replies(CHAIN)(text)
        return replies(texts[min(text.count("That is not valid"), len(texts) - 1)])(text)

    return script


async def solve(store, model, question=QUESTION, *, budget=None, max_tokens=64):
    harness = RunHarness(store, model)
    solution = await harness.solve("cot", question, budget=budget, seed=1, max_tokens=max_tokens)
    metered = MeteredModel(model, "main", harness.run)
    return await with_json_answer(solution, question, metered, harness.run, max_tokens=max_tokens)


async def test_the_answer_is_json_and_the_chain_is_free(store):
    model = ScriptedModel(writing(JSON), json_schema=True)
    solution = await solve(store, model)
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


async def test_a_budget_that_ends_with_the_chain_leaves_no_answer(store):
    model = ScriptedModel(writing(JSON), json_schema=True)
    solution = await solve(store, model, budget=Budget(tokens=len(CHAIN) + 1))
    assert (solution.best.text, solution.best.answer, solution.stopped) == ("", None, "budget")


async def test_json_that_is_cut_is_no_answer(store):
    model = ScriptedModel(writing(JSON), json_schema=True)
    solution = await solve(store, model, budget=Budget(tokens=len(CHAIN) + 6))
    assert (solution.best.text, solution.best.answer) == (JSON[:5], None)
    assert solution.stopped == "budget"


@pytest.mark.parametrize("written", [JSON, f"```json\n{JSON}\n```", f"  {JSON}\n"])
async def test_a_model_without_schemas_is_prompted_for_the_form(store, written):
    model = ScriptedModel(writing(written))
    solution = await solve(store, model)
    assert (solution.best.text, solution.best.answer) == (JSON, JSON)
    prompted = model.generate_calls[-1][0]
    assert prompted.sampling.json_schema is None
    assert prompted.prompt.messages[-1].content.endswith(json.dumps(SCHEMA))


async def test_any_object_needs_no_schema_in_the_prompt(store):
    model = ScriptedModel(writing('{"x": [1]}'))
    solution = await solve(store, model, QUESTION.model_copy(update={"answer_schema": OBJECT_SCHEMA}))
    assert solution.best.answer == '{"x": [1]}'
    assert model.generate_calls[-1][0].prompt.messages[-1].content == JSON_INSTRUCTION


@pytest.mark.parametrize("invalid", ["It is 42.", '{"answer": "42"}', "[42]", '{"answer": NaN}'])
async def test_invalid_json_is_corrected(store, invalid):
    model = ScriptedModel(writing(invalid, JSON))
    solution = await solve(store, model)
    assert solution.best.answer == JSON
    assert len(model.generate_calls) == 3
    assert [m.content for m in model.generate_calls[-1][0].prompt.messages[-2:-1]] == [invalid]


async def test_json_that_stays_invalid_is_an_error(store):
    model = ScriptedModel(writing('{"answer": "42"}'))
    with pytest.raises(SchemaNotSatisfied, match=r"no JSON of the requested form .*\['answer'\]: '42' is not of type"):
        await solve(store, model)
    assert len(model.generate_calls) == 1 + MAX_ATTEMPTS


async def test_a_schema_that_refers_to_an_address_is_refused(store):
    schema = {"type": "object", "properties": {"answer": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    with pytest.raises(UserError, match="which it does not contain"):
        await solve(store, ScriptedModel(writing(JSON)), QUESTION.model_copy(update={"answer_schema": schema}))


async def test_calls_are_not_written_as_json(store):
    model = ToolModel(replies(calling(city="Rome")), json_schema=True)
    solution = await solve(store, model, QUESTION.model_copy(update={"tools": (WEATHER,)}), max_tokens=200)
    assert solution.best.tool_calls[0].name == "weather"
    assert len(model.generate_calls) == 1


def test_only_a_complete_fence_is_removed():
    assert unfenced("```\n{}\n```") == "{}"
    assert unfenced("```json\n{}") == "```json\n{}"
    assert unfenced("``````") == "``````"
