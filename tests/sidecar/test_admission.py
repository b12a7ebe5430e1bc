"""The admission queue: the run limit, no lost slots, first in first out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import ServerBusy, ShuttingDown
from reason.sidecar.admission import AdmissionQueue


class Crowd:
    """Callers of one admission queue; each task holds its slot until the test finishes it."""

    def __init__(self, admission):
        self.admission = admission
        self.tasks, self.done, self.holding, self.refused, self.entered = {}, {}, [], {}, []
        self.most = 0

    def arrive(self, name, tenant, unlimited=False):
        self.done[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._call(name, tenant, unlimited))

    async def _call(self, name, tenant, unlimited):
        try:
            async with self.admission.slot(tenant, unlimited=unlimited):
                self.holding.append(name)
                self.entered.append(name)
                self.most = max(self.most, len(self.holding))
                try:
                    await self.done[name].wait()
                finally:
                    self.holding.remove(name)
        except (ServerBusy, ShuttingDown) as e:
            self.refused[name] = e

    async def arrive_and_settle(self, *names, **options):
        """One caller after the other, of the tenant that its name begins with."""
        for name in names:
            self.arrive(name, name[0], **options)
            await self.settle()

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    async def leave(self):
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


ACTS = st.lists(
    st.tuples(st.sampled_from(["arrive", "cancel", "finish", "wait"]), st.integers(0, 2), st.booleans()), max_size=60
)


@given(acts=ACTS, max_runs=st.integers(1, 3), max_queued=st.integers(0, 4))
def test_turns_are_never_lost_nor_too_many_and_in_order(acts, max_runs, max_queued):
    async def play():
        on_change = []
        admission = AdmissionQueue(max_runs, max_queued, on_change=lambda *now: on_change.append(now))
        crowd = Crowd(admission)
        tenants, cancelled = {}, set()
        for act, which, flag in acts:
            alive = [n for n, task in crowd.tasks.items() if not task.done()]
            if act == "arrive":
                name = len(tenants)
                tenants[name] = str(which)
                crowd.arrive(name, str(which), unlimited=flag)
            elif act == "cancel" and alive:
                name = alive[which % len(alive)]
                crowd.tasks[name].cancel()
                cancelled.add(name)
            elif act == "finish" and crowd.holding:
                crowd.done[crowd.holding[which % len(crowd.holding)]].set()
            if flag or act == "wait":  # else several actions happen before a waiter wakes
                await crowd.settle()
        await crowd.settle()
        waiting = [n for n, task in crowd.tasks.items() if not task.done() and n not in crowd.holding]
        assert admission.in_flight == len(crowd.holding) <= max_runs
        assert crowd.most <= max_runs
        assert admission.waiting == len(waiting)
        assert not waiting or len(crowd.holding) == max_runs  # no caller waits while a slot is free
        assert (on_change or [(0, 0)])[-1] == (admission.in_flight, admission.waiting)
        for tenant in set(tenants.values()):
            order = [n for n in crowd.entered if tenants[n] == tenant]
            assert order == sorted(order)  # first in, first out
        for name in list(crowd.tasks):  # every waiting caller gets a slot eventually
            crowd.done[name].set()
        await crowd.settle()
        for _ in waiting:
            await crowd.settle()
        assert set(waiting) - cancelled <= set(crowd.entered)
        assert (admission.in_flight, admission.waiting) == (0, 0)
        await crowd.leave()

    asyncio.run(play())


async def test_turns_go_round_the_tenants():
    crowd = Crowd(AdmissionQueue(1, 10))
    await crowd.arrive_and_settle("a0", "a1", "a2", "a3", "b1", "b2", "c1")
    for name in ("a0", "a1", "b1", "c1", "a2", "b2", "a3"):
        assert crowd.holding == [name]
        crowd.done[name].set()
        await crowd.settle()
    assert crowd.holding == []


async def test_a_full_queue_sends_away_whoever_has_most_in_it():
    crowd = Crowd(AdmissionQueue(1, 3))
    await crowd.arrive_and_settle("a0", "a1", "a2", "a3", "a4")
    assert set(crowd.refused) == {"a4"}
    await crowd.arrive_and_settle("b1")
    assert set(crowd.refused) == {"a4", "a3"}  # the last caller of the longest queue is evicted
    await crowd.arrive_and_settle("b2")
    assert set(crowd.refused) == {"a4", "a3", "b2"}  # two against one: the queue is not long enough to evict from
    assert all(1 <= e.retry_after_s <= 60 for e in crowd.refused.values())
    await crowd.leave()


async def test_patient_callers_neither_fill_the_queue_nor_are_sent_away():
    crowd = Crowd(AdmissionQueue(1, 1))
    await crowd.arrive_and_settle("a0")
    await crowd.arrive_and_settle("a1", "a2", unlimited=True)
    await crowd.arrive_and_settle("b", "c")
    assert set(crowd.refused) == {"c"}
    assert crowd.admission.waiting == 3
    await crowd.leave()
    assert (crowd.admission.in_flight, crowd.admission.waiting) == (0, 0)


async def test_who_waits_too_long_is_sent_away_and_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("reason.sidecar.admission.QUEUE_TIMEOUT_S", 0.001)
    admission = AdmissionQueue(1, 10)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admission.slot("a"))
        with pytest.raises(ServerBusy, match="no slot became free within"):
            async with admission.slot("a"):
                pass
        assert (admission.in_flight, admission.waiting) == (1, 0)
    assert admission.in_flight == 0


async def test_closing_sends_away_who_waits_and_keeps_who_runs():
    crowd = Crowd(AdmissionQueue(1, 10))
    await crowd.arrive_and_settle("runs", "waits", "gone")
    crowd.tasks["gone"].cancel()
    crowd.admission.close()
    await crowd.settle()
    assert isinstance(crowd.refused["waits"], ShuttingDown)
    assert crowd.holding == ["runs"]
    await crowd.arrive_and_settle("late")
    assert isinstance(crowd.refused["late"], ShuttingDown)
    crowd.done["runs"].set()
    await crowd.settle()
    assert crowd.admission.in_flight == 0


async def test_when_to_come_back_follows_from_how_long_runs_take(clock):
    admission = AdmissionQueue(2, 0)
    for _ in range(60):
        async with admission.slot("a"):
            await clock.advance(16)
    async with admission.slot("a"), admission.slot("a"):
        with pytest.raises(ServerBusy) as refused:
            await admission.slot("b").__aenter__()
    assert refused.value.retry_after_s == 8  # two slots of 16 s: one is free every 8 s
