"""Synchronous callers of asynchronous work: interrupted, they are told so, once the work has cleaned up."""

import asyncio
import signal
import threading

import pytest
from reason.core.sync_bridge import SyncBridge


@pytest.fixture
def portal():
    made = SyncBridge()
    yield made
    made.close()


async def answer():
    return 42


async def wrong():
    raise ValueError("wrong")


def test_results_and_errors_are_returned_inside_a_running_loop(portal):
    assert portal.call(answer) == 42
    with pytest.raises(ValueError, match="wrong"):
        portal.call(wrong)

    async def in_a_loop():
        return portal.call(answer)

    assert asyncio.run(in_a_loop()) == 42


def test_an_interrupt_waits_for_the_clean_up_of_the_work(portal):
    seen = []
    begun = threading.Event()

    async def work():
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            for _ in range(1000):  # others could run
                await asyncio.sleep(0)
            seen.append("clean")

    def interrupt():
        begun.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def in_the_main_thread(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, in_the_main_thread)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            portal.call(work)
    finally:
        signal.signal(signal.SIGINT, before)
        helper.join()
    assert seen == ["cancelled", "clean"]
    assert portal.call(answer) == 42


@pytest.mark.parametrize("is_submitted", [True, False])
def test_an_interrupt_while_submitting_leaves_nothing_running(portal, monkeypatch, is_submitted):
    portal.call(answer)  # the loop runs
    seen = []

    async def work():
        seen.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("clean")

    submit = asyncio.run_coroutine_threadsafe

    def interrupted(work, loop):
        if work.__name__ != "tracked":
            return submit(work, loop)
        if is_submitted:
            submit(work, loop)
        else:
            work.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(work)
    assert seen == (["begun", "clean"] if is_submitted else [])
    monkeypatch.undo()
    assert portal.call(answer) == 42
