"""Evaluations in batches: the same rows at half the price, killed and resumed without a request paid twice."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reason.serving.litellm.batches as batches_module
from reason.agents.reasoner import Reasoner
from reason.core.errors import DataError, UserError
from reason.core.settings import Settings
from reason.core.store.sqlite import SqliteStore
from reason.evals.batches import cancel_run_batches
from reason.evals.run_directory import read_rows
from reason.evals.runner import RunObserver, SharedResources, evaluate, make_plan
from support.batch_server import BatchServer, last_text
from support.eval_tasks import SOURCE, sums_task

TESTS = Path(__file__).resolve().parents[1]
MODELS = {"openai": "openai/gpt-4o-mini"}
TIMING = batches_module.BatchTiming(quiet_s=0.1, first_poll_s=0.01, max_poll_s=0.05)


def answer(params: dict[str, Any], position: int) -> str:
    """Right but for every fourth sample."""
    found = re.search(r"What is (\d+) \+ (\d+)", last_text(params))
    assert found is not None
    total = int(found[1]) + int(found[2])
    return f"The answer is {total + (position == 3)}."


class Notes(RunObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def batch(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(params=MODELS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[BatchServer, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setattr(batches_module, "batched", partial(batches_module.batched, timing=TIMING))
    server = BatchServer(answer)
    async with server.run() as base:
        yield server, base


@pytest.fixture
def settings_of(served: tuple[BatchServer, str], tmp_path: Path) -> Callable[..., Settings]:
    def settings(provider: str, **changes: Any) -> Settings:
        address = served[1] + ("/v1" if provider == "openai" else "")
        prices = {"usd_per_prompt_token": 2e-6, "usd_per_completion_token": 4e-6}
        return Settings(
            model=MODELS[provider],
            providers={provider: {"api_base": address, "probe": False, "timeout_s": 10, **prices}},
            **{"strategy": "self-consistency", "store": tmp_path / "unused", "reuse": "store", **changes},
        )

    return settings


def plan(settings: Settings, items: int = 6, **parameters: Any) -> Any:
    chosen = {"n": 3, "max_tokens": 40, **parameters} if settings.strategy == "self-consistency" else parameters
    return make_plan(sums_task(items), settings, parameters=chosen, seeds=(0,))


async def test_all_items_are_one_batch_and_cost_half(served, settings_of, provider, tmp_path) -> None:
    server, _ = served
    settings, observer = settings_of(provider), Notes()
    decided = plan(settings)
    rows = await evaluate(decided, sums_task(6), SOURCE, tmp_path / "run", settings, batch=True, observer=observer)
    assert all(row.correct for row in rows)
    [batch] = server.batches
    assert len(batch.requests) == 6
    assert server.direct == []
    tokens = sum(row.ledger.completion_tokens for row in rows)
    usd = sum(row.timing.cost_usd or 0.0 for row in rows)
    assert usd == pytest.approx((6 * 100 * 2e-6 + tokens * 4e-6) / 2)
    assert all(row.timing.waited_s > 0 for row in rows)
    assert observer.notes[0].startswith(f"batch {batch.id}: 6 requests submitted")


async def test_a_strategy_of_several_rounds_goes_on_round_by_round(served, settings_of, tmp_path) -> None:
    server, _ = served
    settings = settings_of("openai", strategy="best-of-n")
    decided = plan(settings, items=4, n=3, max_tokens=40, score="judge")
    rows = await evaluate(decided, sums_task(4), SOURCE, tmp_path / "run", settings, batch=True)
    assert len(rows) == 4
    assert server.direct == []
    samples, marks = server.batches
    assert len(samples.requests) == 4
    assert len(marks.requests) >= 4


async def test_an_interrupted_run_needs_its_batches_and_submits_nothing_twice(
    served, settings_of, provider, tmp_path
) -> None:
    server, _ = served
    server.num_polls = None
    settings, out = settings_of(provider), tmp_path / "run"
    decided = plan(settings)
    work = asyncio.ensure_future(evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True))
    await server.interrupt(work)
    with pytest.raises(UserError, match="1 batches of this run are in flight"):
        await evaluate(decided, sums_task(6), SOURCE, out, settings, resume=True)
    server.end_all()
    rows = await evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True, resume=True)
    assert all(row.correct for row in rows)
    assert len(server.batches) == 1
    assert not server.batches[0].is_cancelled


async def test_batches_are_cancelled_on_request(served, settings_of, tmp_path) -> None:
    server, _ = served
    server.num_polls = None
    settings, out = settings_of("openai"), tmp_path / "run"
    decided = plan(settings)
    work = asyncio.ensure_future(evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True))
    await server.interrupt(work)
    assert await cancel_run_batches(out, settings) == 1
    assert server.batches[0].is_cancelled
    assert await cancel_run_batches(out, settings) == 0
    server.end_all()
    rows = await evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True, resume=True)
    assert all(row.correct for row in rows)
    assert [len(batch.requests) for batch in server.batches] == [6, 5]  # one was done before


async def test_items_whose_requests_fail_are_reported_and_requested_again_on_resumption(
    served, settings_of, tmp_path
) -> None:
    server, _ = served
    server.fault = lambda params, before: "400" if "3 + 4" in last_text(params) and before == 0 else None
    settings, out = settings_of("openai"), tmp_path / "run"
    decided = plan(settings)
    rows = await evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True)
    assert [row.id for row in rows if row.error is not None] == ["sum-003"]
    rows = await evaluate(decided, sums_task(6), SOURCE, out, settings, batch=True, resume=True)
    assert all(row.correct for row in rows)
    assert [len(batch.requests) for batch in server.batches] == [6, 1]


async def test_a_model_without_batches_and_a_time_limit_are_refused(served, settings_of, tmp_path) -> None:
    settings = settings_of("openai", budget={"seconds": 60})
    with pytest.raises(UserError, match="--budget seconds=60 cannot be combined with --batch"):
        await evaluate(plan(settings), sums_task(6), SOURCE, tmp_path / "a", settings, batch=True)
    other = Settings(**{**settings.model_dump(), "model": "hosted_vllm/small", "budget": {}})
    vllm = {"hosted_vllm": {"api_base": served[1] + "/v1", "probe": False}}
    other = Settings.model_validate({**other.model_dump(), "providers": vllm})
    with pytest.raises(UserError, match="model 'hosted_vllm/small' has no batch API"):
        await evaluate(plan(other), sums_task(6), SOURCE, tmp_path / "b", other, batch=True)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


async def test_shared_models_and_a_store_that_is_not_there_are_refused(served, settings_of, tmp_path) -> None:
    settings = settings_of("openai")
    async with Reasoner(settings=settings) as reasoner:
        shared = SharedResources(reasoner, tmp_path / "shared.sqlite3")
        with pytest.raises(UserError, match="batch mode cannot be combined with models that a sweep shares"):
            await evaluate(plan(settings), sums_task(6), SOURCE, tmp_path / "a", settings, batch=True, shared=shared)
    await evaluate(plan(settings), sums_task(6), SOURCE, tmp_path / "b", settings, batch=True)
    store = (tmp_path / "b" / "store.sqlite3").rename(tmp_path / "moved.sqlite3")
    with pytest.raises(DataError, match="there is no run store"):
        await cancel_run_batches(tmp_path / "b", settings)
    assert store.exists()
    assert not (tmp_path / "b" / "store.sqlite3").exists()


SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from functools import partial
    from pathlib import Path
    import reason.serving.litellm.batches as batches
    from reason.core.settings import Settings
    from reason.evals.runner import evaluate, make_plan
    from support.eval_tasks import SOURCE, sums_task

    out, base, provider, name = Path(sys.argv[1]), *sys.argv[2:]
    batches.batched = partial(batches.batched, timing=batches.BatchTiming(0.2, 0.02, 0.05))
    settings = Settings(
        model=name, strategy="self-consistency", store=out / "x", reuse="store",
        providers={provider: {"api_base": base, "probe": False, "timeout_s": 10}},
    )
    task = sums_task(8)
    plan = make_plan(task, settings, parameters={"n": 2, "max_tokens": 40}, seeds=(0,))
    asyncio.run(evaluate(plan, task, SOURCE, out, settings, resume=True, batch=True))
    """
)


async def test_a_run_killed_at_any_request_pays_for_nothing_twice(served, provider, tmp_path) -> None:
    server, base = served
    server.num_polls = 3
    address = base + ("/v1" if provider == "openai" else "")
    out = tmp_path / "run"

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, str(out), address, provider, MODELS[provider]),
            cwd=TESTS,
            env={
                "PYTHONPATH": str(TESTS),
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "OMP_NUM_THREADS": "1",
                "OPENAI_API_KEY": "key",
            },
            stderr=asyncio.subprocess.PIPE,
        )

    for calls in (1, 1, 2):  # after the file or the batch, after the batch or a poll, after some polls
        before = server.num_calls
        process = await start()
        async with asyncio.timeout(120):
            while server.num_calls < before + calls and process.returncode is None:
                await asyncio.sleep(0.001)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    process = await start()
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    rows = read_rows(out)
    assert len(rows) == 8
    assert all(row.correct for row in rows)
    paid = Counter(json.dumps(params, sort_keys=True) for batch in server.batches for _, params in batch.requests)
    assert set(paid.values()) == ({1} if provider == "openai" else {2})  # Anthropic: two samples of the same request
    store = await SqliteStore.open(out / "store.sqlite3")
    assert {batch.status for batch in await store.list_batches("eval-")} == {"ended"}
    await store.aclose()
