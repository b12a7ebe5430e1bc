"""Runs with a write in flight, in a process that is drained or killed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from reason.agents.loop.records import Decision, ToolCallStore
from reason.agents.loop.tool import tool_of
from support.agent_model import AgentModel, call
from support.run_manager import ANNE, forsake, running_manager, start, status_of
from support.waiting import wait_until

TURNS = [[call("write", x=1)]]


class Writer:
    """A tool that changes something at once, and returns when a test lets it."""

    def __init__(self):
        self.begun, self.end, self.made = asyncio.Event(), asyncio.Event(), []

    async def write(self, x: int) -> str:
        self.made.append(x)
        self.begun.set()
        await self.end.wait()
        return f"wrote {x}"


@asynccontextmanager
async def writing(path, models, *, background=True):
    """A process with a run whose write is in flight, the run, and the writer."""
    writer = Writer()
    async with process(path, models, writer) as run_manager:
        run = await start(run_manager, background=background)
        await writer.begun.wait()
        yield run_manager, run, writer


def process(path, models, writer):
    return running_manager(path, models, model=AgentModel(TURNS), tools=[tool_of(writer.write)])


async def decided(run_manager, run, writer):
    """The statuses of the run's calls once its pending outcome has been decided about and it has finished."""
    await wait_until(lambda: waits(run_manager, run))
    (pending,) = await run_manager.pending(run.id)
    assert (pending.tool, pending.question) == ("write", "outcome")
    await run_manager.decide(run.id, ANNE, {pending.id: Decision(kind="done")})
    answer = await (await run_manager.attach(run.id, ANNE)).result()
    assert (answer.text, writer.made) == ("The answer is done.", [1])
    return [row.status for row in await ToolCallStore(run_manager.store).list(run.id)]


async def waits(run_manager, run):
    return await status_of(run_manager, run) == "waiting"


async def test_a_drain_lets_a_write_end(path, models):
    async with writing(path, models) as (run_manager, run, writer):
        run_manager.begin_drain()
        writer.end.set()
        await run_manager.drain(1e6)
        answer = await run.result()
        (row,) = await ToolCallStore(run_manager.store).list(run.id)
    assert (answer.text, row.status, row.result.text, writer.made) == ("The answer is done.", "done", "wrote 1", [1])


@pytest.mark.parametrize(("background", "status"), [(True, "queued"), (False, "interrupted")])
async def test_a_write_that_a_drain_cuts_is_asked_about_by_the_next_process(path, models, background, status):
    async with writing(path, models, background=background) as (run_manager, run, writer):
        await run_manager.drain(0.0)
        assert await status_of(run_manager, run) == status
    async with process(path, models, writer) as run_manager:
        if not background:
            await run_manager.resume(run.id, ANNE)
        assert await decided(run_manager, run, writer) == ["assumed"]


async def test_a_write_of_a_killed_process_is_asked_about_by_the_process_that_adopts_its_run(path, models):
    async with writing(path, models) as (_, run, writer), process(path, models, writer) as other:
        forsake(path, run.id)
        assert await decided(other, run, writer) == ["assumed"]
        writer.end.set()  # the process was alive after all: its result comes too late
        await run.wait_ended()
        (row,) = await ToolCallStore(other.store).list(run.id)
        assert (row.status, await status_of(other, run)) == ("assumed", "finished")
