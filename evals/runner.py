"""`EvalRunner`: asks every item under every seed, many at a time, and writes a row for each as it finishes.

Each item is a run of its own in the run store, under a name that follows from plan, item and seed. However an
evaluation ends, resuming with it finds those runs again: a finished one is read, one that was cut off continues, and no
response that was stored is requested again.

One evaluation from its plan to its finished directory, in this process; and the plan, from settings and a task.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..agents.planner import NO_MAP, calibration_map_for, models_of, uses_role
from ..agents.reasoner import Reasoner
from ..core.errors import (
    BackendUnavailable,
    CapabilityMissing,
    DataError,
    RateLimited,
    ReasonError,
    StoreError,
    UnknownName,
    UserError,
)
from ..core.events import Event
from ..core.messages import Failure
from ..core.settings import Settings, settings_of_roles
from ..core.store.protocol import RunRecord
from ..core.store.sqlite import SqliteStore
from ..core.types import Answer
from ..core.version import __version__
from ..reasoning.strategy import create_strategy
from ..serving.model_files.downloads import Progress
from .datasets.items import Item
from .plan import DatasetSource, EvalPlan, software_versions
from .results import ResultRow, prompt_hash, row_ledger, row_timing, sampling_settings
from .run_directory import STORE, RunDirectory, RunManifest
from .task import AnswerScorer, Task

FATAL_ERRORS = (UserError, CapabilityMissing, BackendUnavailable, RateLimited, StoreError)
"""What would befall the next item as well: the evaluation stops, and continues with --resume."""


class RunObserver(Protocol):
    """Receives an evaluation continues; must be quick."""

    def begin(self, total: int, rows: Sequence[ResultRow]) -> None:
        """The run begins: so many rows are requested, and these are there."""

    def row(self, row: ResultRow) -> None:
        """A row is finished."""

    def event(self, event: Event) -> None:
        """Something happened in an item's run."""


class Nobody:
    """A watcher that does not look."""

    def begin(self, total: int, rows: Sequence[ResultRow]) -> None:
        """Do nothing."""

    def row(self, row: ResultRow) -> None:
        """Do nothing."""

    def event(self, event: Event) -> None:
        """Do nothing."""


class EvalRunner:
    """Asks the items of one plan."""

    def __init__(
        self,
        plan: EvalPlan,
        task: Task,
        judge: AnswerScorer,
        reasoner: Reasoner,
        store: SqliteStore,
        *,
        concurrency: int,
        watcher: RunObserver | None = None,
    ) -> None:
        self._plan = plan
        self._task = task
        self._judge = judge
        self._reasoner = reasoner
        self._store = store
        self._concurrency = concurrency
        self._watcher: RunObserver = watcher or Nobody()

    async def run(
        self, keys: Sequence[tuple[str, int]], rows: Sequence[ResultRow], write: Callable[[ResultRow], None]
    ) -> list[ResultRow]:
        """Make the rows that are missing.

        Cancelling stops every item in flight; each keeps what it has paid for.

        Returns:
            A row for every key.

        Raises:
            ReasonError: Something that would befall the next item as well.
        """
        done = {r.key: r for r in rows if r.error is None}
        failed = {r.key: r for r in rows if r.error is not None}
        missing = [key for key in keys if key not in done]
        self._watcher.begin(len(keys), [done[key] for key in keys if key in done])

        async def work(waiting: Iterator[tuple[str, int]]) -> None:
            for key in waiting:
                before = failed.get(key)
                row = await self._ask(key, attempts=1 if before is None else before.attempts + 1)
                write(row)
                done[key] = row
                self._watcher.row(row)

        waiting = iter(missing)
        tasks = [asyncio.ensure_future(work(waiting)) for _ in range(min(self._concurrency, len(missing)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [done[key] for key in keys]

    async def _ask(self, key: tuple[str, int], attempts: int) -> ResultRow:
        """Ask one item, or read what was answered before."""
        name, seed = key
        item, run_id = self._task.items[name], self._plan.run_id(name, seed)
        error: ReasonError | None = None
        record = await self._find(run_id)
        if record is None or record.status != "finished":
            try:
                if record is None:
                    await self._reasoner.aask(
                        item.question,
                        seed=self._plan.item_seed(name, seed),
                        run_id=run_id,
                        sinks=(self._watcher.event,),
                    )
                else:
                    await self._reasoner.aresume(run_id, sinks=(self._watcher.event,))
            except FATAL_ERRORS:
                raise
            except ReasonError as e:
                error = e
            record = await self._find(run_id)
        if record is None:
            # What stops a run before it is recorded is not the item's fault, and stops the next one as well.
            raise error or StoreError(f"the run {run_id} of item {name!r} is not in the store")
        return await self._row(item, seed, record, error, attempts)

    async def _find(self, run_id: str) -> RunRecord | None:
        try:
            return await self._store.get_run(run_id)
        except UnknownName:
            return None

    async def _row(
        self, item: Item, seed: int, record: RunRecord, error: ReasonError | None, attempts: int
    ) -> ResultRow:
        """The row, made of what the store holds, so that it does not matter when the run was interrupted."""
        calls = [
            c for c in await self._store.list_calls(record.id) if "decision" not in c.request
        ]  # that is no response
        # Where no other run's responses are reused, whatever another had paid is paid again.
        again = self._plan.reuse != "store"
        paid_before = frozenset[str]() if again else await self._store.copied_call_keys(record.id)
        answer = Answer.model_validate(record.answer)
        score = await self._judge.score(item, answer)
        return ResultRow(
            id=item.id,
            seed=seed,
            item_seed=answer.seed,
            run_id=record.id,
            group=item.group,
            subject=item.subject,
            level=item.level,
            question=item.question.text,
            choices=item.question.choices,
            gold=item.gold.model_dump(mode="json"),
            prompt_hash=prompt_hash(calls),
            sampling=sampling_settings(calls),
            strategy=answer.strategy,
            models=self._plan.models,
            engines={r: str(i["identity"]) for r, i in record.identities.items() if isinstance(i, dict)},
            version=__version__,
            text=answer.text,
            answer=answer.answer,
            candidates=answer.candidates,
            confidence=score.confidence if answer.confidence is None else answer.confidence,
            calibrated_confidence=answer.calibrated_confidence,
            stopped=answer.stopped,
            degraded=answer.degraded,
            score=score.model_dump(mode="json", exclude={"metrics"}),
            value=0.0 if error is not None else score.value,
            correct=False if error is not None else score.correct,
            label=score.label,
            prediction=score.prediction,
            metrics=score.metrics,
            parsed=error is None and score.parsed,
            error=None if error is None else Failure(code=error.code, message=str(error)),
            attempts=attempts,
            ledger=row_ledger(answer, calls, paid_before),
            timing=row_timing(answer),
        )


DEFAULT_CONCURRENCY = 16
"""Items in flight at a time unless set otherwise: enough rows to fill the embedded engine's batch."""


def make_plan(
    task: Task,
    settings: Settings,
    *,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seeds: Sequence[int] = (0,),
) -> EvalPlan:
    """What is decided, from settings and a task.

    Raises:
        UserError: A parameter is not allowed, the calibration map is for another strategy, or there is nothing to ask.
        DataError: The settings' calibration map cannot be read.
    """
    if not task.items:
        raise UserError(f"the dataset {task.info.name} is empty")
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed was named twice")
    chosen = {**settings.strategies.get(settings.strategy, {}), **(parameters or {})}
    _, complete = create_strategy(settings.strategy, chosen)
    return EvalPlan(
        dataset=task.info,
        limit=limit,
        strategy=settings.strategy,
        parameters=complete,
        models=models_of(settings),
        verify=settings.verify,
        budget=settings.budget,
        local=settings.local,
        seeds=tuple(seeds),
        reuse=settings.reuse,
        calibration=calibration_map_for(settings),
        context=settings.context if uses_role(settings.strategy, "knowledge") else (),
    )


def settings_for(plan: EvalPlan, settings: Settings, store: Path) -> Settings:
    """The settings under which the items of a plan are answered: the plan's, and of the rest those given."""
    return settings.model_copy(
        update={
            **settings_of_roles(plan.models),
            "strategy": plan.strategy,
            "strategies": {},  # the plan's parameters are complete
            "verify": plan.verify,
            "budget": plan.budget,
            "local": plan.local,
            "reuse": plan.reuse,
            "context": plan.context,
            "memory": "",  # what one item leaves after must not answer another
            "seed": None,
            "store": store,
        }
    )


def run_keys(plan: EvalPlan, task: Task, shard: tuple[int, int] | None = None) -> tuple[tuple[str, int], ...]:
    """(item, seed) of every row, seed by seed; of one shard of n, every n-th item.

    Raises:
        UserError: The shard is none.
    """
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise UserError(f"shard {shard[0]} of {shard[1]} is none", hint="shards are numbered from 0")
    names = list(task.items)[: plan.limit]
    if shard is not None:
        names = names[shard[0] :: shard[1]]
    return tuple((name, seed) for seed in plan.seeds for name in names)


def default_label(plan: EvalPlan) -> str:
    """What reports call a run that was given no name: the strategy, with what makes its samples and its budget."""
    parts = [plan.strategy]
    for name in ("n", "max_rounds", "branches", "depth"):
        if plan.parameters.get(name) is not None:
            parts.append(f"{name}={plan.parameters[name]}")
    parts += [f"+ {name}" for name in plan.verify]
    if plan.budget.tokens is not None:
        parts.append(f"≤{plan.budget.tokens} tokens")
    return " ".join(parts)


def run_directory_name(plan: EvalPlan) -> str:
    """Name of a run's directory: readable, and another for another plan."""
    data = plan.dataset.name + (f"-{plan.dataset.variant}" if plan.dataset.variant else "")
    text = f"{data}-{plan.models['main'].rpartition('/')[2]}-{default_label(plan)}"
    return f"{re.sub(r'[^A-Za-z0-9.=]+', '-', text).strip('-').lower()[:80]}-{plan.digest[:6]}"


@dataclass(frozen=True)
class SharedResources:
    """What several evaluations of a sweep share.

    Attributes:
        reasoner: Holds the opened models and the store.
        store: The run store's file.
    """

    reasoner: Reasoner
    store: Path


async def evaluate(
    plan: EvalPlan,
    task: Task,
    source: DatasetSource,
    out: Path,
    settings: Settings,
    *,
    label: str = "",
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    store: Path | None = None,
    sharing: SharedResources | None = None,
    watcher: RunObserver | None = None,
    progress: Progress | None = None,
) -> list[ResultRow]:
    """Run an evaluation, or resume it.

    Cancelling saves what there is: the rows so far are in the directory and every response is in the run store.

    Args:
        store: The run store; None is one in the directory.

    Returns:
        A row for every item and seed.

    Raises:
        UserError: The directory holds another run, or something of the plan cannot be.
        DataError: The directory is damaged, or the dataset is not the plan's.
        BackendError: The model failed altogether; what there is is saved.
    """
    if task.info.fingerprint != plan.dataset.fingerprint:
        raise DataError(
            f"the rows of {task.info.source} are not those that the run began with", hint="give the same data"
        )
    path = sharing.store if sharing is not None else store or out / STORE
    keys = run_keys(plan, task, shard)
    manifest = RunManifest(
        plan=plan,
        task=source,
        label=label or default_label(plan),
        keys=keys,
        shard=shard,
        environment=software_versions(),
        store=STORE if path == out / STORE else str(path),
    )
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(RunDirectory(out))
        rows = directory.begin(manifest, resume=resume)
        if sharing is None:
            reasoner = Reasoner(
                parameters=plan.parameters,
                calibration=plan.calibration or NO_MAP,
                settings=settings_for(plan, settings, path),
                progress=progress,
            )
            await stack.enter_async_context(reasoner)
        else:
            reasoner = await sharing.reasoner.variant(
                plan.strategy,
                parameters=plan.parameters,
                budget=plan.budget,
                calibration=plan.calibration or NO_MAP,
                verify=plan.verify,
                context=plan.context,
            )
        reading = await SqliteStore.open(path)
        stack.push_async_callback(reading.aclose)
        judge = await stack.enter_async_context(task.open_scorer())
        runner = EvalRunner(plan, task, judge, reasoner, reading, concurrency=concurrency, watcher=watcher or Nobody())
        made = await runner.run(keys, rows, directory.add)
        directory.finish(manifest, made)
    return made
