"""The engine never stays paused, whenever a caller that paused it is cancelled."""

import asyncio

import pytest
from reason.serving.vllm.lockstep import LockstepAdmission


class Engine:
    """Stands in for vLLM's engine: both calls need a few turns of the event loop, and take effect in the middle."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.paused = False
        self.pauses = 0

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        assert (mode, clear_cache) == ("keep", False)
        await self._turns()
        self.paused = True
        self.pauses += 1
        await self._turns()

    async def resume_generation(self) -> None:
        await self._turns()
        self.paused = False
        await self._turns()

    async def _turns(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("after", range(24))
async def test_cancelling_at_any_moment_resumes_the_engine(after: int, times: int) -> None:
    engine = Engine(turns=3)
    admission = LockstepAdmission(lambda: engine)
    started: list[str] = []

    async def start(name: str) -> None:
        assert engine.paused
        await asyncio.sleep(0)
        started.append(name)

    first = asyncio.ensure_future(admission.admit(lambda: start("first")))
    second = asyncio.ensure_future(admission.admit(lambda: start("second")))
    for _ in range(after):
        await asyncio.sleep(0)
    for _ in range(times):
        first.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(first, return_exceptions=True)
    await second
    assert not engine.paused
    assert "second" in started
    await admission.admit(lambda: start("third"))
    assert started[-1] == "third"
    assert not engine.paused


async def test_a_failed_pause_is_raised_to_the_caller() -> None:
    engine = Engine(turns=1)

    async def refuse(**_: object) -> None:
        raise RuntimeError("dead")

    engine.pause_generation = refuse  # type: ignore[method-assign]
    admission = LockstepAdmission(lambda: engine)

    async def start() -> None:
        raise AssertionError("not paused")

    with pytest.raises(RuntimeError, match="dead"):
        await admission.admit(start)
