"""Execution of a turn's calls: order, concurrency, approvals, faults of tools, unknown outcomes."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from reason.agents.loop.executor import ToolExecutor, Waiting
from reason.agents.loop.records import Decision, ToolCallStore
from reason.agents.loop.tool import OutcomeUnknown, schema_tool, tool_of
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.messages import ToolCall
from reason.core.run import Run
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from support.stored_runs import run_config

X = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    yield store
    await store.aclose()


@pytest.fixture
def executor(store):
    """Makes an executor of the run, as a new process would; its run has a sink."""

    def make(tools, *, budget=None, question=None, **options):
        config = run_config(question=question or Question(text="?"), budget=Budget(**(budget or {})), tools=("t",))
        sink = MemorySink()
        made = ToolExecutor(Run("r", config, store, sinks=[sink]), tools, **{"approve": "never", **options})
        made.sink = sink
        return made

    return make


def calls(*names, **arguments):
    return [ToolCall(name=name, arguments=json.dumps({"x": i, **arguments}), id="same") for i, name in enumerate(names)]


def simple(name, function, **options):
    return {name: schema_tool(name, "", X, function, **options)}


async def texts(executor, turn):
    return [m.content for m in await executor.execute(0, "h", turn)]


async def test_reads_run_at_once_and_writes_in_order(executor):
    log, both = [], asyncio.Event()
    running = 0

    async def read(x: int) -> str:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await both.wait()
        log.append(f"read {x}")
        return f"r{x}"

    async def write(x: int) -> str:
        log.append(f"write {x}")
        return f"w{x}"

    tools = {"read": tool_of(read, effect="read"), "write": tool_of(write)}
    assert await texts(executor(tools), calls("read", "read", "write", "read")) == ["r0", "r1", "w2", "r3"]
    assert set(log[:2]) == {"read 0", "read 1"}
    assert log[2:] == ["write 2", "read 3"]


async def test_results_are_taken_from_the_store(executor):
    made = []
    tools = simple("write", lambda x: made.append(x) or f"w{x}")
    for _ in range(2):
        assert await texts(executor(tools), calls("write")) == ["w0"]
    assert made == [0]


async def test_the_intent_is_in_the_transaction_of_the_samples_that_precede_it(executor, store):
    transactions = store.commits.transactions
    one = executor(simple("write", lambda x: "w"))
    one._run.degrade("an event that waits to be written")
    await texts(one, calls("write"))
    assert store.commits.transactions - transactions == 2  # intent with the event, and result
    assert len(await store.list_events("r")) > 0


async def test_a_waiting_turn_executes_nothing_and_continues_after_the_decision(executor, store):
    made = []
    tools = simple("write", lambda x: made.append(x) or "w") | simple(
        "read", lambda x: made.append(-x) or "r", effect="read"
    )
    with pytest.raises(Waiting) as waiting:
        await executor(tools, approve="writes").execute(0, "h", calls("read", "write"))
    assert [(p.tool, p.question) for p in waiting.value.pending] == [("write", "approval")]
    assert made == []
    decision = Decision(kind="edit", arguments='{"x": 9}')
    await store.release_run("r", "waiting")
    await ToolCallStore(store).decide("r", {waiting.value.pending[0].id: decision}, owned=False)
    await store.claim_run("r")
    assert await texts(executor(tools, approve="writes"), calls("read", "write")) == ["r", "w"]
    assert made == [0, 9]


async def test_edited_arguments_must_follow_the_schema(executor):
    async def approver(pending):
        return Decision(kind="edit", arguments='{"x": "nine"}')

    one = executor(simple("write", lambda x: 1 / 0), approve="writes", approver=approver)
    assert await texts(one, calls("write")) == ["Error: invalid arguments: ['x']: 'nine' is not of type 'integer'"]


async def test_an_approver_is_asked_once(executor):
    asked = []

    async def approver(pending):
        asked.append(pending.arguments)
        return Decision(kind="reject", reason="no")

    for _ in range(2):
        one = executor(simple("write", lambda x: 1 / 0), approve="writes", approver=approver)
        assert await texts(one, calls("write")) == ["Error: the call was rejected: no"]
    assert asked == ['{"x": 0}']


async def test_a_decision_that_does_not_fit_its_question_is_refused(executor):
    async def approver(pending):
        return Decision(kind="done")

    with pytest.raises(UserError, match="the approver decided 'done' about the approval of write"):
        await texts(executor(simple("write", lambda x: ""), approve="writes", approver=approver), calls("write"))


async def test_faults_of_tools_and_calls_are_results(executor, store):
    async def hang(x: int) -> str:
        await asyncio.Event().wait()

    async def cancels(x: int) -> str:
        raise asyncio.CancelledError

    tools = {
        **simple("raises", lambda x: {}["missing"], effect="read"),
        "hangs": tool_of(hang, name="hangs", effect="read", seconds=0.01),
        "cancels": tool_of(cancels, effect="read"),
        **simple("exits", lambda x: sys.exit(3), effect="read"),
        **simple("bytes", lambda x: b"12", effect="read"),
        **simple("large", lambda x: "y" * 50_000_000, effect="read", result_chars=100),
    }
    unusable = [
        ToolCall(name="nothing"),
        ToolCall(name="raises", arguments='{"x": "a"}'),
        ToolCall(name="raises", arguments="{"),
    ]
    results = await texts(executor(tools), [*calls(*tools), *unusable])
    assert results[:5] == [
        "Error: 'missing'",
        "Error: no result within 0.01 seconds",
        "Error: CancelledError",
        "Error: the tool exited with 3",
        "Error: the tool returned 2 bytes, not text",
    ]
    assert len(results[5]) < 300
    assert (
        results[6] == "Error: there is no tool 'nothing'; available tools: bytes, cancels, exits, hangs, large, raises"
    )
    assert results[7] == "Error: invalid arguments: ['x']: 'a' is not of type 'integer'"
    assert results[8].startswith("Error: invalid arguments: it is no JSON")
    statuses = [row.status for row in await ToolCallStore(store).list("r")]
    assert statuses == ["failed"] * 5 + ["done"] + ["failed"] * 3


async def test_progress_is_an_event_under_its_call_and_not_stored(executor, store):
    async def read(arguments, context):
        context.progress("half")
        await asyncio.sleep(0)
        return "whole"

    tool = schema_tool("read", "", X, lambda x: "", effect="read")
    one = executor({"read": type(tool)(declaration=tool.declaration, call=read, effect="read")})
    await texts(one, calls("read"))
    await one._run.save()
    (started,), (progress,) = one.sink.of_type("tool.started"), one.sink.of_type("tool.progress")
    assert (progress.text, progress.parent) == ("half", started.number)
    assert {e.type for e in await store.list_events("r")} == {"tool.started", "tool.finished"}


# -- writes whose outcome is unknown


@pytest.mark.parametrize("how", ["times out", "loses its connection"])
async def test_a_write_without_a_result_is_asked_about(executor, how):
    async def write(x: int) -> str:
        if how == "times out":
            await asyncio.Event().wait()
        raise OutcomeUnknown("the server is gone")

    tools = {"write": tool_of(write, seconds=0.01)}
    with pytest.raises(Waiting) as waiting:
        await texts(executor(tools), calls("write"))
    assert [p.question for p in waiting.value.pending] == ["outcome"]
    failed = "Error: the call had no effect: it was interrupted before it was executed"
    assert await texts(executor(tools, assume="failed"), calls("write")) == [failed]


class Died(BaseException):
    """As if the process ended here."""


@pytest.mark.parametrize("took_effect", [True, False])
async def test_status_of_a_tool_settles_an_unknown_outcome(executor, took_effect):
    effects = []

    async def status(context):
        return "it was done" if took_effect else None

    async def write(x: int) -> str:
        effects.append(x)
        if len(effects) == 1:
            raise Died
        return "done now"

    tools = {"write": tool_of(write, status=status, concurrency=1)}
    with pytest.raises(Died):
        await texts(executor(tools), calls("write"))
    assert await texts(executor(tools), calls("write")) == ["it was done" if took_effect else "done now"]
    assert effects == ([0] if took_effect else [0, 0])


async def test_a_write_in_flight_gets_time_when_the_budget_is_spent(executor, clock):
    begun, end = asyncio.Event(), asyncio.Event()

    async def write(x: int) -> str:
        begun.set()
        await end.wait()
        return "written"

    one = executor({"write": tool_of(write)}, budget={"seconds": 5})
    task = asyncio.ensure_future(texts(one, calls("write", "write")))
    await begun.wait()
    await clock.advance(12)
    end.set()
    assert await task == ["written", "Error: not executed: the time limit is reached"]
