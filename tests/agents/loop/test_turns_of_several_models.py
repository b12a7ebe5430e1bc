"""Routers in runs that execute tools, over several turns and through the whole pipeline."""

from __future__ import annotations

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.events import MemorySink
from support.scripted_model import THINKS, replies, thinking
from support.scripted_tools import ToolModel, calling


def weather(city: str) -> str:
    """Tell the weather."""
    return f"24 degrees in {city}"


weather.effect = "read"


def agent_script(*turns):
    """Answers each turn with one of its texts; a turn is known by the number of results before it."""

    def script(text):
        return replies(*turns[min(text.count("degrees in"), len(turns) - 1)])(text)

    return script


def model(name, *turns):
    return ToolModel(agent_script(*turns), name=name)


@pytest.fixture
def reasoner(monkeypatch, settings):
    """Makes a reasoner over models by name, the first of which is the main one."""

    def make(*models, **options):
        by_name = {one.name: one for one in models}

        async def load_model(name, *_):
            return by_name[name]

        monkeypatch.setattr(reasoner_module, "load_model", load_model)
        return Reasoner(models[0].name, settings=settings, tools=[weather], **options)

    return make


def cities(answer):
    return [call.parsed_arguments["city"] for m in answer.messages for call in m.tool_calls]


ROME, OSLO, WARM = calling(city="Rome"), calling(city="Oslo"), "The answer is yes."


async def test_jurors_that_agree_make_a_turn_and_a_thinking_model_makes_the_others(reasoner):
    large = ToolModel(thinking("They differ.", OSLO), name="large", profile=THINKS)
    first, second = model("first", [ROME], [ROME], [WARM]), model("second", [ROME], [OSLO], [WARM])
    options = {"small_model": "first", "jurors": ["first", "second"]}
    parameters = {"first": "edgejury", "first_parameters": {"n": 2}}
    async with reasoner(large, first, second, strategy="cascade", parameters=parameters, **options) as made:
        sink = MemorySink()
        answer = await made.aask("Is it warm?", sinks=[sink])
        num_requests = [len(one.made) for one in (large, first, second)]
        replayed = await made.areplay(answer.run_id)
    assert (answer.answer, answer.stopped, answer.usage.turns, cities(answer)) == ("yes", "done", 3, ["Rome", "Oslo"])
    decided = [e.data for e in sink.of_type("strategy.note") if e.name == "cascade.decided"]
    assert [note["asked_large"] for note in decided] == [False, True, False]
    assert num_requests == [1, 3, 3]
    assert (replayed.messages, len(large.made)) == (answer.messages, 1)


async def test_glimprouter_routes_each_turn_of_a_run(reasoner):
    small = model("small", [ROME, "No."], [OSLO], [WARM, "So, no."])
    large = model("large", [ROME], [], [WARM])
    options = {"small_model": "small", "strategy": "glimprouter", "parameters": {"threshold": 0.5}}
    async with reasoner(large, small, **options) as made:
        sink = MemorySink()
        answer = await made.aask("Is it warm?", sinks=[sink])
        replayed = await made.areplay(answer.run_id)
    assert (answer.answer, answer.stopped, cities(answer)) == ("yes", "done", ["Rome", "Oslo"])
    routed = sink.of_type("step.routed")
    assert [(e.index, e.model) for e in routed] == [(0, "large"), (1, "small"), (2, "large")]
    assert (replayed.messages, len(large.made), len(small.made)) == (answer.messages, 2, 4)
