"""Runs that are made by several loops, of which one is chosen."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from reason.agents.loop.records import Decision, ToolCallStore
from reason.agents.loop.tool import tool_of
from reason.agents.reasoner import Reasoner
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.messages import Tool
from reason.core.settings import ToolSettings
from reason.core.types import Question
from support.agent_model import call
from support.injected_models import loaded_models
from support.trajectory_model import TrajectoryModel

DONE = "The answer is 5."


@pytest.fixture
def agent(settings):
    """Makes a reasoner over a model that makes the given turns in each trajectory; the model is its `model`."""

    @asynccontextmanager
    async def make(scripts, *, gates=None, **options):
        model = TrajectoryModel(scripts, gates=gates)
        with loaded_models({"scripted": model}):
            async with Reasoner(settings=settings, trajectories=len(scripts), **options) as reasoner:
                reasoner.model = model
                yield reasoner

    return make


@pytest.fixture
def made():
    """Executed calls."""
    return []


@pytest.fixture
def tools(made):
    """A tool that reads, and one that writes."""

    async def read(x: int, deep: bool = False) -> str:
        made.append(("read", x))
        return f"read {x}"

    async def write(x: int) -> str:
        made.append(("write", x))
        return f"wrote {x}"

    return [tool_of(read, effect="read"), tool_of(write)]


def notes(sink):
    """The choices in a trace."""
    return [e.data["choice"] for e in sink.of_type("strategy.note") if e.name == "trajectories.chosen"]


async def test_equal_reads_of_all_trajectories_are_one_call(agent, tools, made):
    scripts = [
        [[call("read", x=1)], DONE],
        [[call("read", x=1, deep=False)], DONE],
        [[call("read", x=1.0), call("read", x=2)], DONE],
    ]
    sink = MemorySink()
    async with agent(scripts, tools=tools[:1], select="agreement") as reasoner:
        answer = await reasoner.aask("Read.", sinks=[sink])
        replayed = await reasoner.areplay(answer.run_id)
        rows = await ToolCallStore(await reasoner.open_store()).list(answer.run_id)
    assert sorted(made) == [("read", 1), ("read", 2)]
    assert (answer.answer, answer.stopped, answer.degraded) == ("5", "done", ())
    assert [m.content for m in answer.messages] == ["", "read 1", DONE]
    assert (answer.usage.turns, answer.usage.tool_calls, answer.usage.model_calls) == (6, 2, 6)
    assert [row.status for row in rows] == ["done", "done"]
    assert notes(sink) == ["trajectory 1 was chosen: 3 of 3 agree on its answer"]
    stages = {e.stage for e in sink.of_type("stage.started")}
    stage_of = {e.number: e.stage for e in sink.of_type("stage.started")}
    calls_in = Counter(stage_of[e.parent] for e in sink.of_type("call.started"))
    assert calls_in == dict.fromkeys(stages - {"turn 1"}, 1)
    assert stages == {"turn 1", *(f"trajectory {i} · turn {k}" for i in (1, 2, 3) for k in (1, 2))}
    assert (replayed.messages, replayed.usage.model_calls, replayed.usage.turns) == (answer.messages, 6, 6)
    assert len(reasoner.model.requests) == 6


async def test_a_read_is_repeated_after_the_chosen_write(agent, tools, made):
    turns = [[call("read", x=1)], [call("write", x=7)], [call("read", x=1)], DONE]
    async with agent([turns, turns, turns], tools=tools, approve="never") as reasoner:
        answer = await reasoner.aask("Write.")
        replayed = await reasoner.areplay(answer.run_id)
    assert made == [("read", 1), ("write", 7), ("read", 1)]
    assert answer.usage.tool_calls == 3
    assert replayed.messages == answer.messages


async def test_only_the_agreed_write_is_executed_after_its_approval(agent, tools, made):
    scripts = [
        [[call("write", x=1)], DONE],
        [[call("read", x=3)], [call("write", x=2)], DONE],
        [[call("read", x=3)], [call("write", x=2.0)], DONE],
    ]
    async with agent(scripts, tools=tools, approve="writes") as reasoner:
        waiting = await reasoner.aask("Write.", run_id="r")
        assert (waiting.stopped, made) == ("waiting", [("read", 3)])
        (pending,) = waiting.pending
        assert pending.arguments == '{"x": 2}'
        answer = await reasoner.aresume("r", decisions={pending.id: Decision(kind="approve")})
    assert made == [("read", 3), ("write", 2)]
    assert (answer.answer, answer.stopped) == ("5", "done")


async def test_changes_without_a_majority_are_a_question_to_the_user(agent, tools, made):
    async with agent([[[call("write", x=i)], DONE] for i in range(3)], tools=tools, approve="never") as reasoner:
        answer = await reasoner.aask("Write.")
        replayed = await reasoner.areplay(answer.run_id)
    assert (answer.stopped, made) == ("abstained", [])
    assert "1 of 3: write(x=0)" in answer.text
    assert replayed.text == answer.text


async def test_the_first_of_a_race_wins_and_the_others_are_cancelled(agent, made, settings):
    started, cancelled = asyncio.Event(), []

    async def sleep() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("sleep")

    gates = {(1, 0): started, (2, 1): asyncio.Event()}
    scripts = [[[call("sleep")], DONE], [DONE], [[call("read", x=1)], DONE]]

    async def read(x: int) -> str:
        return "1"

    sink = MemorySink()
    tools = [tool_of(sleep, effect="read"), tool_of(read, effect="read")]
    async with agent(scripts, tools=tools, gates=gates, budget={"tokens": 10_000}) as reasoner:
        answer = await reasoner.aask("Race.", sinks=[sink])
        replayed = await reasoner.areplay(answer.run_id)
    assert (answer.answer, answer.messages[0].content, cancelled) == ("5", DONE, ["sleep"])
    assert answer.degraded == ()
    assert notes(sink) == ["trajectory 2 was chosen: it ended first of 3"]
    charged = sum(e.tokens for e in sink.of_type("budget.charged"))
    assert answer.usage.completion_tokens == charged
    assert (replayed.answer, replayed.messages) == (answer.answer, answer.messages)
    assert replayed.usage.completion_tokens == charged


async def test_the_fewest_calls_are_chosen_of_those_that_ended(agent, tools):
    scripts = [
        [[call("read", x=1), call("read", x=2)], DONE],
        [[call("read", x=1)], "The answer is 7."],
        [[call("read", x=i)] for i in range(5)],
    ]
    options = {"tools": tools[:1], "select": "ended-fewest-calls", "budget": {"turns": 7}}
    async with agent(scripts, **options) as reasoner:
        answer = await reasoner.aask("Read.")
    assert answer.answer == "7"
    assert answer.usage.turns == 7
    assert answer.degraded == ("1 of 3 trajectories did not end by themselves: the limit of turns is reached",)


@pytest.mark.parametrize(("has_read", "verdict"), [(True, "supported"), (False, "refuted")])
async def test_only_the_chosen_trajectory_s_results_are_evidence(agent, has_read, verdict):
    async def look(city: str) -> str:
        return f"{city} is the capital of Spain."

    own, other = ("Madrid", "Paris") if has_read else ("Paris", "Madrid")
    answer = "Madrid is the capital of Spain."
    scripts = [[[call("look", city=own)], answer], [[call("look", city=other)], [call("look", city="Rome")], answer]]
    judged = {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}}
    options = {"select": "ended-fewest-calls", "verify": ["davinci"], "verify_parameters": judged, "repairs": 0}
    async with agent(scripts, tools=[tool_of(look, effect="read")], **options) as reasoner:
        answer = await reasoner.aask("What is the capital of Spain?")
        replayed = await reasoner.areplay(answer.run_id)
    (claim,) = answer.verification.claims
    assert claim.verdict == verdict
    assert all(own in evidence.text for evidence in claim.evidence)
    assert replayed.verification == answer.verification


async def test_a_run_none_of_whose_trajectories_ends_is_concluded_once(agent, tools):
    scripts = [[[call("read", x=10 * k + i)] for i in range(9)] for k in range(2)]
    async with agent(scripts, tools=tools[:1], budget={"turns": 5}) as reasoner:
        answer = await reasoner.aask("Read.")
    assert (answer.stopped, answer.stopped_by, answer.answer) == ("budget", "turns", "concluded")
    assert answer.usage.model_calls == 6
    assert answer.usage.turns == 5


async def test_an_answer_that_is_wanted_now_ends_all_trajectories(agent, tools):
    gates = {(0, 1): asyncio.Event(), (1, 0): asyncio.Event()}
    scripts = [[[call("read", x=1)], DONE], [DONE]]
    async with agent(scripts, tools=tools[:1], gates=gates) as reasoner:
        task = asyncio.create_task(reasoner.aask("Read.", run_id="r"))
        while reasoner.model.requests[-1:] != [(0, 1)]:
            await asyncio.sleep(0)
        reasoner.conclude("r")
        answer = await task
    assert (answer.stopped, answer.answer) == ("user", "concluded")
    assert answer.usage.model_calls == 4  # three turns, of which two were cut, and one conclusion


async def test_a_resumed_run_keeps_the_stored_choice(agent, tools, made):
    scripts = [[[call("write", x=1)], DONE], [[call("write", x=2)], DONE]]
    gates = {(0, 0): asyncio.Event()}
    async with agent(scripts, tools=tools, approve="writes", select="race", gates=gates) as reasoner:
        waiting = await reasoner.aask("Write.", run_id="r")
    (pending,) = waiting.pending
    assert pending.arguments == '{"x": 2}'
    async with agent(scripts, tools=tools, approve="writes") as reasoner:
        await reasoner.aresume("r", decisions={pending.id: Decision(kind="approve")})
        replayed = await reasoner.areplay("r")
    assert made == [("write", 2)]
    assert replayed.messages[0].tool_calls[0].arguments == '{"x": 2}'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best"}, "there is no rule 'best' to choose a trajectory"),
        ({"trajectories": 33}, "trajectories must be 1 to 32, got 33"),
        (
            {"trajectories": 1, "select": "race"},
            "the rule 'race' chooses one of several trajectories, and there is one",
        ),
        ({"tools": []}, "several trajectories need tools"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, tools, options, message):
    options = {"trajectories": 2, **options}
    with pytest.raises(UserError, match=message):
        Reasoner(settings=settings, **{"tools": tools[:1], **options})
    with pytest.raises(UserError, match=message):
        Reasoner(settings=settings, tools=options.pop("tools", ["python"])).plan("Read.", **options)


async def test_tools_of_a_client_are_refused(settings, tools):
    question = Question(text="Read.", tools=(Tool(name="mine", description="", parameters={}),))
    async with Reasoner(settings=settings, trajectories=2, tools=tools) as reasoner:
        with pytest.raises(UserError, match="a client that executes its tools itself has one world"):
            reasoner.plan(question)


async def test_the_setting_concerns_runs_with_tools_only(settings):
    several = settings.model_copy(update={"tools": ToolSettings(trajectories=3)})
    async with Reasoner(settings=several) as reasoner:
        assert reasoner.plan("Read.").trajectories == 1
        assert reasoner.plan("Read.", tools=["python"]).trajectories == 3
