"""A harness in this process over a store of its own, with a scripted model that a test can hold."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from reason.agents.reasoner import Reasoner
from reason.core.errors import StoreError
from reason.core.settings import Settings
from reason.sidecar.admission import AdmissionQueue
from reason.sidecar.auth import Caller
from reason.sidecar.run_manager import RunManager

from support.scripted_model import Script, ScriptedModel, replies

ANNE = Caller(key_id="a", tenant="anne", scopes=frozenset({"ask", "read"}))
BEN = Caller(key_id="b", tenant="ben", scopes=frozenset({"ask", "read"}))


class Gate:
    """Holds a scripted model in the middle of its replies until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


@asynccontextmanager
async def running_manager(
    path: Path,
    models: dict[str, Any],
    *,
    script: Script | None = None,
    step: Callable[[], object] | None = None,
    model: Any = None,
    tools: Sequence[Any] = (),
    drain_timeout_s: float = 0.0,
    **serve: Any,
) -> AsyncIterator[Any]:
    """A harness over a store, with a scripted model of its own; calls of its tools need no approval."""
    models["scripted"] = model or ScriptedModel(script or replies("The answer is 42."), step=step)
    options = {"auth": False, "drain_timeout_s": drain_timeout_s, **serve}
    settings = Settings(model="scripted", store=path, cache_dir=path.parent / "cache", seed=5, serve=options)
    async with Reasoner(settings=settings, tools=tools, approve="never") as reasoner:
        bounds = settings.serve
        admission = AdmissionQueue(bounds.max_runs, bounds.max_queued)
        async with RunManager(reasoner, await reasoner.open_store(), bounds, admission) as run_manager:
            run_manager.reasoner = reasoner
            yield run_manager


def config_of(run_manager: Any, question: str = "What is six times seven?", **options: Any) -> Any:
    return run_manager.reasoner.plan(question, **options)


async def start(run_manager: Any, caller: Caller = ANNE, **options: Any) -> Any:
    """Start a run of a plain question."""
    return await run_manager.start(config_of(run_manager), caller, **options)


async def status_of(run_manager: Any, run: Any) -> str:
    """The stored status of a run of Anne's."""
    return str((await run_manager.record(run.id, ANNE)).status)


@asynccontextmanager
async def held_run(
    path: Path, models: dict[str, Any], *, background: bool = False, **options: Any
) -> AsyncIterator[Any]:
    """A harness with a run in the middle of its replies: the harness, the run, and the gate that holds it."""
    async with running_manager(path, models, step=(gate := Gate()), **options) as run_manager:
        run = await start(run_manager, background=background)
        await gate.reached.wait()
        yield run_manager, run, gate


async def abandoned_run(
    path: Path, run_manager: Any, run_id: str = "left", config: Any = None, adoptions: int = 0
) -> str:
    """A background run in the store whose process was killed, after so many had adopted it; not adopted meanwhile."""
    adopts_none, run_manager.draining = run_manager.draining, True
    config = config or config_of(run_manager).model_copy(update={"tenant": "anne"})
    await run_manager.store.create_run(run_id, config.model_dump(mode="json"), tenant="anne", background=True)
    forsake(path, run_id, adoptions)
    run_manager.draining = adopts_none
    return run_id


def forsake(path: Path, run_id: str, adoptions: int = 0) -> None:
    """Have the store believe that the process of a run was killed."""
    with sqlite3.connect(path) as db:
        (owner,) = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
        dead = f"{owner.split(':')[0]}:{2**22}:1"
        db.execute("UPDATE runs SET owner = ?, adoptions = ? WHERE id = ?", (dead, adoptions, run_id))


class FullStore:
    """Has a store refuse the ends of runs until there is space again."""

    def __init__(self, store: Any) -> None:
        self.has_space, self._save = False, store.save
        store.save = self.save

    async def save(self, run_id: str, writes: Any) -> None:
        if not self.has_space and writes.end is not None:
            raise StoreError("no space left")
        await self._save(run_id, writes)
