"""Workers with budget, run store and trace around them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from reason.core.errors import BudgetExceeded, CapabilityMissing, StoreError, UserError
from reason.core.events import BudgetCharged, CallFinished, CallStarted, TextDelta
from reason.core.messages import Prompt
from reason.core.run import Conclusion
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.hogwild.metered_workers import STEPS_PER_RECORD, MeteredWorkers, open_workers
from reason.serving.metered.replay import ReplayModel
from reason.serving.worker_group import GroupStep, WorkerGroupConfig, WorkerInput, WorkerToken
from support.scripted_model import ScriptedModel, replies
from support.scripted_workers import ScriptedWorkers
from support.stored_runs import RunHarness

OPENING = WorkerGroupConfig(prompt=Prompt(text="go"), others_header="|o|", own_header="|m|", seed=3)
LETTERS = dict.fromkeys("abcd", 1 / 4)


@pytest.fixture
def harness(store: SqliteStore) -> RunHarness:
    return RunHarness(store, ScriptedWorkers(lambda worker, view: LETTERS))


A, B, Z = (WorkerInput(text=text) for text in "abz")


async def start(harness: RunHarness, name: str = "r", **options: Any) -> MeteredWorkers:
    """The workers of a run that is begun or resumed."""
    return open_workers(await harness.begin(name, strategy="hogwild", **options), OPENING)


async def write(group: MeteredWorkers, passes: int) -> str:
    """What the first worker writes; the other one stands still in every third pass."""
    feeds: list[WorkerInput | None] = [WorkerInput(text="x"), WorkerInput(text="y")]
    written, last = "", [0, 0]
    for number in range(passes):
        step = GroupStep(inputs=tuple(feeds), moves=(0,) if number == 9 else ())
        drawn: list[WorkerToken | None] = await group.advance(step)
        for worker, token in enumerate(drawn):
            last[worker] = token.token if token else last[worker]
        assert drawn[0] is not None
        written += drawn[0].text
        feeds = [WorkerInput(token=last[0]), None if number % 3 == 1 else WorkerInput(token=last[1])]
    return written


async def run_of(harness: RunHarness, passes: int, name: str = "r") -> tuple[str, MeteredWorkers]:
    """What is written in a run that is begun or resumed and then ended."""
    group = await start(harness, name)
    written = await write(group, passes)
    await group.aclose()
    return written, group


async def test_sampled_tokens_are_charged_emitted_and_returned(harness):
    group = await start(harness)
    harness.run.stream_text = True
    written = await write(group, 12)
    await group.aclose()
    (spent,) = harness.spent.by_role.values()
    assert (spent.model_calls, spent.replayed_calls) == (1, 0)
    assert spent.completion_tokens == group.usage.completion_tokens == 12 + 8
    assert spent.prompt_tokens == len("go") + 2  # the others' feeds are tokens that were drawn before
    events = harness.sink.events
    assert [type(e) for e in events if isinstance(e, CallStarted | CallFinished)] == [CallStarted, CallFinished]
    charges = [(e.tokens, e.calls) for e in events if isinstance(e, BudgetCharged)]
    assert [sum(amounts) for amounts in zip(*charges, strict=True)] == [20, 1]
    assert "".join(e.text for e in events if isinstance(e, TextDelta) and e.request == 0) == written
    assert harness.model.groups[0].closed


async def test_interrupted_run_resumes_and_pays_once(harness):
    _, group = await run_of(harness, 2 * STEPS_PER_RECORD + 5)
    expected, _ = await run_of(harness, 3 * STEPS_PER_RECORD, "other")
    tokens = harness.spent.completion_tokens

    assert (await run_of(harness, 3 * STEPS_PER_RECORD))[0] == expected
    (spent,) = harness.spent.by_role.values()
    assert (spent.completion_tokens, spent.replayed_tokens) == (tokens, group.usage.completion_tokens)
    assert (spent.model_calls, spent.replayed_calls, spent.prompt_tokens) == (1, 0, len("go") + 2)
    assert len(harness.model.groups[-1].passes) == 3 * STEPS_PER_RECORD  # led through all that was before

    opened = len(harness.model.groups)
    assert (await run_of(harness, 3 * STEPS_PER_RECORD))[0] == expected
    (spent,) = harness.spent.by_role.values()
    assert (spent.replayed_tokens, spent.replayed_calls, spent.prompt_tokens) == (tokens, 1, len("go") + 2)
    assert len(harness.model.groups) == opened


async def test_a_killed_run_repeats_less_than_a_record(harness):
    killed = await start(harness)
    written = await write(killed, 2 * STEPS_PER_RECORD + 5)  # and is not closed
    harness.model = ReplayModel("scripted", "scripted@1", harness.model.capabilities)
    resumed = await start(harness)
    assert await write(resumed, 2 * STEPS_PER_RECORD) == written[: 2 * STEPS_PER_RECORD]
    await resumed.aclose()


async def test_run_replays_without_its_model_as_far_as_recorded(harness):
    expected, _ = await run_of(harness, STEPS_PER_RECORD + 7)
    can = harness.model.capabilities
    harness.model = ReplayModel("scripted", "scripted@1", can)
    shown = await start(harness)
    assert await write(shown, STEPS_PER_RECORD + 7) == expected
    with pytest.raises(StoreError, match="no recorded response of scripted for a pass"):
        await shown.advance(GroupStep(inputs=(WorkerInput(token=97), None)))
    await shown.aclose()
    harness.model = ReplayModel("scripted", "scripted@1", can, limit="seconds")
    late = await start(harness)
    with pytest.raises(BudgetExceeded):
        await write(late, STEPS_PER_RECORD + 8)
    await late.aclose()


async def test_stored_passes_do_not_answer_other_passes(harness):
    async def advance(*steps: tuple[WorkerInput | None, ...]) -> None:
        group = await start(harness)
        for inputs in steps:
            await group.advance(GroupStep(inputs=inputs))
        await group.aclose()

    others = [(A, B)] * 3 + [(Z, None)] * 37
    await advance(*[(A, B)] * 5)
    await advance(*others)
    assert [p.inputs for p in harness.model.groups[-1].passes] == others
    (spent,) = harness.spent.by_role.values()
    assert (spent.replayed_tokens, spent.completion_tokens) == (6, 6 + 37)
    groups = len(harness.model.groups)
    await advance(*others)
    assert len(harness.model.groups) == groups
    await advance((Z, None))
    assert len(harness.model.groups) == groups + 1


async def test_pass_beyond_the_budget_is_not_run(harness):
    group = await start(harness, budget={"tokens": 7})
    for _ in range(3):
        await group.advance(GroupStep(inputs=(A, B)))
    with pytest.raises(BudgetExceeded):
        await group.advance(GroupStep(inputs=(A, B)))
    await group.advance(GroupStep(inputs=(None, B)))
    assert len(harness.model.groups[0].passes) == 4
    await group.aclose()
    with pytest.raises(UserError, match="closed"):
        await group.advance(GroupStep(inputs=(A, None)))


async def test_time_limit_ends_a_pass(harness, clock):
    class Slow(ScriptedWorkers):
        async def start_workers(self, config: WorkerGroupConfig):
            await asyncio.sleep(30)

    harness.model = Slow(lambda worker, view: LETTERS)
    group = await start(harness, budget={"seconds": 0.05})
    with pytest.raises(BudgetExceeded):
        await clock.run(group.advance(GroupStep(inputs=(A, None))))
    assert harness.run.ledger.exhausted == "seconds"
    await group.aclose()


async def test_tokens_before_a_cancellation_are_kept(harness):
    group = await start(harness)

    async def work() -> None:
        try:
            await write(group, 10_000)
        finally:
            await group.aclose()

    task = asyncio.ensure_future(work())
    while group.usage.completion_tokens < 50:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = group.usage.completion_tokens
    harness.model = ReplayModel("scripted", "scripted@1", harness.model.capabilities)
    shown = await start(harness)
    with pytest.raises(StoreError):
        await write(shown, 10_000)
    assert shown.usage.completion_tokens == kept


async def test_a_model_without_a_shared_cache_has_no_workers(harness):
    harness.model = ScriptedModel(replies("x"))
    with pytest.raises(CapabilityMissing, match="kv_sharing"):
        await start(harness)


async def test_a_step_in_flight_ends_when_the_user_wants_the_answer_and_its_repetition_there(
    harness,
):
    group = await start(harness)
    expected = await write(group, 3)
    held = asyncio.Event()

    async def hang(step: GroupStep) -> list[WorkerToken | None]:
        held.set()
        await asyncio.Event().wait()
        return []

    harness.model.groups[0].advance = hang
    step = GroupStep(inputs=(WorkerInput(token=97), None))
    task = asyncio.create_task(group.advance(step))
    await held.wait()
    harness.run.conclude()
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await task
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await group.advance(step)
    await group.aclose()
    assert harness.spent.completion_tokens == group.usage.completion_tokens == 3 + 2
    assert harness.run.ledger.used("tokens") == 5  # nothing stays reserved

    again = await start(harness, conclusion=Conclusion("solve", 0))
    assert await write(again, 3) == expected
    with pytest.raises(BudgetExceeded, match="the user wants the answer now"):
        await again.advance(step)
    await again.aclose()
    assert len(harness.model.groups) == 1
