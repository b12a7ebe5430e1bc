"""simonw's `llm` as a client: its command line and its Python interface, with the plug-in of the strategies."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel
from reason.reasoning.json_answers import JSON_INSTRUCTION
from support.held_model import Held, cancel_while_it_writes
from support.injected_models import loaded_models
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.scripted_tools import ToolModel, calling

llm = pytest.importorskip("llm", reason="llm is not installed: it and treequest need different packages named `ulid`")
llm_cli = pytest.importorskip("llm.cli")
click_testing = pytest.importorskip("click.testing")

SAID, THOUGHTS = "The answer is 42.", "Six sevens."


def formed(text):
    return replies('{"answer": 42}' if JSON_INSTRUCTION in text else SAID)(text)


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("REASON_MODEL", "plain")
    monkeypatch.setenv("REASON_STORE", str(tmp_path / "runs.sqlite3"))
    models = {
        "plain": ScriptedModel(replies(SAID), name="plain"),
        "thinking": ScriptedModel(thinking(THOUGHTS, SAID), name="thinking", profile=THINKS),
        "caller": ToolModel(replies(f"I look it up.\n{calling(city='Rome')}"), name="caller"),
        "formed": ScriptedModel(formed, name="formed", json_schema=True),
        "held": Held(replies(SAID), name="held"),
    }
    with loaded_models(models):
        yield models


def run(*arguments):
    return click_testing.CliRunner().invoke(llm_cli.cli, list(arguments))


def test_the_strategies_are_models(models):
    listed = run("models", "list").output
    assert "reason/cot" in listed
    assert "reason/self-consistency" in listed


def test_an_answer(models):
    made = run("-m", "reason/cot", "What is 6 * 7?")
    assert (made.exit_code, made.output) == (0, f"{SAID}\n")
    made = run("-m", "reason/self-consistency", "-o", "parameters", '{"n": 3}', "-o", "seed", "5", "What is 6 * 7?")
    assert (made.exit_code, made.stdout) == (0, f"{SAID}\n")
    assert models["plain"].generate_calls[-1][0].sampling.n == 3


def test_a_conversation_goes_on(models):
    run("-m", "reason/cot", "-s", "Be brief.", "What is 6 * 7?")
    assert run("-c", "Are you sure?").exit_code == 0
    turns = models["plain"].generate_calls[-1][0].prompt.messages
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert (turns[0].content, turns[2].content) == ("Be brief.", SAID)


def test_text_is_streamed_and_thoughts_are_reasoning(models):
    response = llm.get_model("reason/cot").prompt("What is 6 * 7?", options={"model": "thinking"})
    pieces = list(response)
    assert len(pieces) > 5
    assert "".join(pieces) == SAID
    (message,) = response.messages()
    assert [(type(part).__name__, part.text.strip()) for part in message.parts] == [
        ("ReasoningPart", THOUGHTS),
        ("TextPart", SAID),
    ]
    assert response.usage().input > 0
    assert response.json()["run_id"]


async def test_the_asynchronous_model(models):
    response = llm.get_async_model("reason/cot").prompt("What is 6 * 7?")
    assert await response.text() == SAID


class Number(BaseModel):
    """What is asked for."""

    answer: int


def test_structured_output(models):
    response = llm.get_model("reason/cot").prompt("What is 6 * 7?", schema=Number, options={"model": "formed"})
    assert json.loads(response.text()) == {"answer": 42}


def test_tools(models):
    asked = []

    def weather(city: str) -> str:
        """What the weather is like."""
        asked.append(city)
        models["caller"]._script = replies("It is warm.")
        return "24 degrees"

    chain = llm.get_model("reason/cot").chain("Is it warm in Rome?", tools=[weather], options={"model": "caller"})
    assert chain.text().endswith("It is warm.")
    assert asked == ["Rome"]
    *_, called, told = models["caller"].generate_calls[-1][0].prompt.messages
    assert (called.tool_calls[0].name, told.role, told.content) == ("weather", "tool", "24 degrees")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "reason/cot", "-o", "effort", "high", "?"), "does not think"),
        (("-m", "reason/cot", "-o", "parameters", '{"nn": 3}', "?"), "nn"),
        (("-m", "reason/cot", "-o", "verify", "none", "?"), "unknown verifier"),
        (("-m", "reason/cot", "-o", "temperature", "-1", "?"), "temperature"),
    ],
)
def test_errors_are_told(models, arguments, message):
    made = run(*arguments)
    assert made.exit_code == 1
    assert message in made.output


def test_leaving_early_cancels_the_run(models):
    chunks = iter(llm.get_model("reason/cot").prompt("?", options={"model": "held"}))
    assert next(chunks) == "T"
    assert models["held"].running
    chunks.close()
    assert not models["held"].running


async def test_cancelling_the_asynchronous_model_cancels_the_run(models):
    async def read():
        await llm.get_async_model("reason/cot").prompt("?", options={"model": "held"}).text()

    await cancel_while_it_writes(read(), models["held"])
