"""Ray: two workers give the rows of one process, also when one of them is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reason.core.errors import UserError
from reason.core.settings import LocalSettings, Settings
from reason.evals.plan import DatasetSource
from reason.evals.ray_executor import evaluate_on_ray
from reason.evals.run_directory import SHARDS, STORE, read_manifest
from reason.evals.runner import evaluate, make_plan
from reason.evals.task import open_task, with_absolute_path
from support.tiny_llama import write_tiny_llama

ray = pytest.importorskip("ray")
ITEMS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    model = tmp_path / "tiny"
    write_tiny_llama(model)
    return Settings(
        model=f"local/{model}",
        strategy="self-consistency",
        cache_dir=tmp_path / "cache",
        store=tmp_path / "unused",
        local=LocalSettings(weight_format="fp32", threads=1),
        reuse="store",
    )


@pytest.fixture
def source(tmp_path: Path) -> DatasetSource:
    path = tmp_path / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(ITEMS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return with_absolute_path(DatasetSource(dataset=str(path)))


async def killed_worker(out: Path) -> int:
    """Kill the process that works on the first shard once it has a row."""
    shard = out / SHARDS / "0"
    for _ in range(1200):
        await asyncio.sleep(0.05)
        if not (shard / "items.jsonl").exists() or b"\n" not in (shard / "items.jsonl").read_bytes():
            continue
        with sqlite3.connect(shard / STORE) as db:
            owners = db.execute("SELECT owner FROM runs WHERE owner IS NOT NULL").fetchall()
        if owners:
            pid = int(owners[0][0].rsplit(":", 2)[1])
            os.kill(pid, signal.SIGKILL)
            return pid
    raise AssertionError("the first shard never began")


@pytest.fixture
async def cluster() -> AsyncIterator[None]:
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


async def test_two_workers_one_killed(cluster, settings, source, tmp_path) -> None:
    task = open_task(source)
    plan = make_plan(task, settings, parameters={"n": 2, "max_tokens": 160, "temperature": 1.0}, seeds=[0])
    alone = await evaluate(plan, task, source, tmp_path / "alone", settings)
    assert len({c.text for r in alone for c in r.candidates}) > ITEMS

    spread = await evaluate_on_ray(plan, task, source, tmp_path / "two", settings, workers=2)
    assert [r.without_times() for r in spread] == [r.without_times() for r in alone]
    assert read_manifest(tmp_path / "two").merged == 2

    out = tmp_path / "killed"
    work = asyncio.ensure_future(evaluate_on_ray(plan, task, source, out, settings, workers=2, concurrency=1))
    killer = asyncio.ensure_future(killed_worker(out))
    rows = await work
    assert killer.done()
    assert killer.result() not in (0, os.getpid())
    assert [r.without_times() for r in rows] == [r.without_times() for r in alone]
    again = await evaluate_on_ray(plan, task, source, out, settings, workers=2, resume=True)
    assert [r.without_times() for r in again] == [r.without_times() for r in rows]
    with pytest.raises(UserError, match="holds a run already"):
        await evaluate_on_ray(plan, task, source, out, settings, workers=2)


async def test_an_engine_has_no_endpoint(cluster, settings, source, tmp_path) -> None:
    task = open_task(source)
    plan = make_plan(task, settings)
    with pytest.raises(UserError, match="no server"):
        await evaluate_on_ray(plan, task, source, tmp_path / "out", settings, endpoints=("http://127.0.0.1:1/v1",))
