"""`evaluate`: runs an evaluation from its plan to its finished directory.

Each item is a run of its own in the run store, whose id follows from plan, item and seed. However an evaluation ends,
resuming it finds those runs: a finished one is read, an interrupted one is resumed, and no stored response is requested
again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.planner import NO_MAP, calibration_map_for, models_of, uses_role
from ..agents.reasoner import Reasoner
from ..core.clock import monotonic
from ..core.concurrency import gather
from ..core.errors import (
    BackendUnavailable,
    CapabilityMissing,
    DataError,
    RateLimited,
    ReasonError,
    RunConflict,
    StoreError,
    UnknownName,
    UserError,
)
from ..core.events import Event
from ..core.files import Progress
from ..core.messages import Failure
from ..core.settings import Settings, settings_for_models
from ..core.store import open_store
from ..core.store.location import redacted_location
from ..core.store.records import RunRecord
from ..core.store.sql import RunStore
from ..core.store.sqlite import SqliteStore
from ..core.types import Answer
from ..core.version import __version__
from ..reasoning.strategy import create_strategy
from .datasets.items import Dataset, Item
from .plan import DatasetSource, EvalPlan, software_versions
from .results import ResultRow, prompt_hash, row_ledger, row_timing, sampling_settings
from .run_directory import STORE, RunDirectory, RunManifest, begun_store
from .scoring import Scorer

FATAL_ERRORS = (UserError, CapabilityMissing, BackendUnavailable, RateLimited, StoreError)
"""Errors that the next item would have as well: the evaluation stops, to be resumed with --resume."""
MAX_OWNED_S = 45.0
"""Maximum time for which an item waits for the owner of its run, in seconds: a lease in Postgres, and half of one."""
OWNED_POLL_S = 0.5


class RunObserver:
    """Receives the progress of an evaluation; its methods must be quick. This one ignores everything."""

    def begin(self, total: int, rows: Sequence[ResultRow]) -> None:
        """The run begins: the number of its rows, and those that are finished."""

    def row(self, row: ResultRow) -> None:
        """A row is finished."""

    def event(self, event: Event) -> None:
        """An event of an item's run."""


class EvalRunner:
    """Runs the items of one plan."""

    def __init__(
        self,
        plan: EvalPlan,
        dataset: Dataset,
        scorer: Scorer,
        reasoner: Reasoner,
        store: RunStore,
        *,
        concurrency: int,
        observer: RunObserver | None = None,
    ) -> None:
        self._plan = plan
        self._items = dataset.by_id
        self._scorer = scorer
        self._reasoner = reasoner
        self._store = store
        self._concurrency = concurrency
        self._observer = observer or RunObserver()

    async def run(
        self, keys: Sequence[tuple[str, int]], rows: Sequence[ResultRow], write: Callable[[ResultRow], None]
    ) -> list[ResultRow]:
        """Compute the missing rows.

        Cancelling stops every item in flight; the store keeps what each has paid for.

        Returns:
            A row for every key.

        Raises:
            ReasonError: An error that the next item would have as well.
        """
        done = {r.key: r for r in rows if r.error is None}
        failed = {r.key: r for r in rows if r.error is not None}
        missing = [key for key in keys if key not in done]
        self._observer.begin(len(keys), [done[key] for key in keys if key in done])

        async def work(waiting: Iterator[tuple[str, int]]) -> None:
            for key in waiting:
                before = failed.get(key)
                row = await self._run_item(key, attempts=1 if before is None else before.attempts + 1)
                write(row)
                done[key] = row
                self._observer.row(row)

        waiting = iter(missing)
        await gather(work(waiting) for _ in range(min(self._concurrency, len(missing))))
        return [done[key] for key in keys]

    async def _run_item(self, key: tuple[str, int], attempts: int) -> ResultRow:
        """Run one item, or read its stored answer."""
        name, seed = key
        item, run_id = self._items[name], self._plan.run_id(name, seed)
        error: ReasonError | None = None
        record = await self._find(run_id)
        if record is None or record.status != "finished":
            try:
                if record is None:
                    await self._reasoner.aask(
                        item.question,
                        seed=self._plan.item_seed(name, seed),
                        run_id=run_id,
                        sinks=(self._observer.event,),
                        **self._tool_options(item),
                    )
                else:
                    await self._resume(run_id)
            except FATAL_ERRORS:
                raise
            except ReasonError as e:
                error = e
            record = await self._find(run_id)
        if record is None:
            # an error before the run is recorded is not the item's, and the next item would have it as well
            raise error or StoreError(f"the run {run_id} of item {name!r} is not in the store")
        return await self._row(item, seed, record, error, attempts)

    def _tool_options(self, item: Item) -> dict[str, Any]:
        """What an item's tools add to its run."""
        if not item.tools:
            return {}
        plan = self._plan
        return {"tools": item.tools, "approve": "never", "trajectories": plan.trajectories, "select": plan.select}

    async def _resume(self, run_id: str) -> None:
        """Resume a run; if it has an owner, wait until the lease of a killed process must have expired."""
        end = monotonic() + MAX_OWNED_S
        while True:
            try:
                await self._reasoner.aresume(run_id, sinks=(self._observer.event,))
            except RunConflict:
                if monotonic() > end:
                    raise
                await asyncio.sleep(OWNED_POLL_S)
            else:
                return

    async def _find(self, run_id: str) -> RunRecord | None:
        try:
            return await self._store.get_run(run_id)
        except UnknownName:
            return None

    async def _row(
        self, item: Item, seed: int, record: RunRecord, error: ReasonError | None, attempts: int
    ) -> ResultRow:
        """The row from the store's content, so that interruptions do not matter."""
        stored = await self._store.list_calls(record.id)
        calls = [c for c in stored if "decision" not in c.request]  # decisions are no model calls
        # without reuse of other runs' responses, this run pays for all
        reused = self._plan.reuse == "store"
        paid_before = await self._store.copied_call_keys(record.id) if reused else frozenset[str]()
        answer = Answer.model_validate(record.answer)
        score = await self._scorer.score(item, answer)
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
"""Default number of items in flight: enough to fill the embedded engine's batch."""


DEFAULT_SEEDS = 3
"""Seeds of a strategy that samples, where none are named: one seed says nothing of what another would give."""
_GREEDY = ("cot", "logprob", "rlot")
"""Strategies that do not sample unless a temperature is named; `rlot` also does for several votes."""


def default_seeds(strategy: str, parameters: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds of an evaluation where none are named: one for a strategy that does not sample, else three."""
    temperature = parameters.get("temperature")
    is_greedy = strategy in _GREEDY and parameters.get("n_votes", 1) == 1
    samples = temperature != 0 and (temperature is not None or not is_greedy)
    return tuple(range(DEFAULT_SEEDS if samples else 1))


def make_plan(
    dataset: Dataset,
    settings: Settings,
    *,
    parameters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seeds: Sequence[int] | None = None,
) -> EvalPlan:
    """A plan from settings and a dataset.

    Args:
        parameters: Parameters of the strategy that differ from the settings.
        seeds: Its seeds; None is those of `default_seeds`.

    Raises:
        UserError: A parameter is not allowed, the calibration map is for another strategy, or there is no item.
        DataError: The settings' calibration map cannot be read.
    """
    chosen = {**settings.strategies.get(settings.strategy, {}), **(parameters or {})}
    _, complete = create_strategy(settings.strategy, chosen)
    if seeds is None:
        seeds = default_seeds(settings.strategy, complete)
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed is named twice")
    has_tools = any(item.tools for item in dataset.items)
    return EvalPlan(
        dataset=dataset.info,
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
        effort=settings.effort,
        thinking_tokens=settings.thinking_tokens,
        trajectories=settings.tools.trajectories if has_tools else 1,
        select=settings.tools.select if has_tools else "",
    )


def settings_for(plan: EvalPlan, settings: Settings, store: Path | str) -> Settings:
    """The settings under which a plan's items run: those of the plan, and otherwise `settings`."""
    return settings.model_copy(
        update={
            **settings_for_models(plan.models),
            "strategy": plan.strategy,
            "strategies": {},  # the plan's parameters are complete
            "verify": plan.verify,
            "budget": plan.budget,
            "local": plan.local,
            "reuse": plan.reuse,
            "context": plan.context,
            "effort": plan.effort,
            "thinking_tokens": plan.thinking_tokens,
            "memory": "",  # one item's memory must not answer another
            "seed": None,
            "store": store,
        }
    )


def run_keys(plan: EvalPlan, dataset: Dataset) -> tuple[tuple[str, int], ...]:
    """(item, seed) of every row, seed by seed."""
    names = list(dataset.by_id)[: plan.limit]
    return tuple((name, seed) for seed in plan.seeds for name in names)


def default_label(plan: EvalPlan) -> str:
    """Label of a run without a name: the strategy with the parameters of its effort and its budget."""
    parts = [plan.strategy]
    for name in ("n", "max_rounds", "branches", "depth"):
        if plan.parameters.get(name) is not None:
            parts.append(f"{name}={plan.parameters[name]}")
    if plan.trajectories > 1:
        parts.append(f"trajectories={plan.trajectories} {plan.select}".rstrip())
    if plan.effort is not None:
        parts.append(f"effort={plan.effort}")
    if plan.thinking_tokens is not None:
        parts.append(f"thinking_tokens={plan.thinking_tokens}")
    parts += [f"+ {name}" for name in plan.verify]
    if plan.budget.tokens is not None:
        parts.append(f"≤{plan.budget.tokens} tokens")
    if plan.budget.thinking_tokens is not None:
        parts.append(f"≤{plan.budget.thinking_tokens} thinking tokens")
    if plan.budget.prompt_tokens is not None:
        parts.append(f"≤{plan.budget.prompt_tokens} prompt tokens")
    return " ".join(parts)


def run_directory_name(plan: EvalPlan) -> str:
    """Name of a run's directory: readable, and unique to its plan."""
    data = plan.dataset.name + (f"-{plan.dataset.variant}" if plan.dataset.variant else "")
    text = f"{data}-{plan.models['main'].rpartition('/')[2]}-{default_label(plan)}"
    return f"{re.sub(r'[^A-Za-z0-9.=]+', '-', text).strip('-').lower()[:80]}-{plan.digest[:6]}"


@dataclass(frozen=True)
class SharedResources:
    """What the evaluations of a sweep share.

    Attributes:
        reasoner: With opened models and store.
        store: The run store's file.
    """

    reasoner: Reasoner
    store: Path


def stored_location(store: Path | str) -> str:
    """The run store as a manifest names it: without a password, which then comes from PGPASSWORD."""
    return redacted_location(store).replace(":***@", "@")


async def evaluate(
    plan: EvalPlan,
    dataset: Dataset,
    source: DatasetSource,
    out: Path,
    settings: Settings,
    *,
    label: str = "",
    resume: bool = False,
    concurrency: int | None = None,
    store: Path | str | None = None,
    shared: SharedResources | None = None,
    observer: RunObserver | None = None,
    progress: Progress | None = None,
) -> list[ResultRow]:
    """Run an evaluation, or resume it.

    Cancelling keeps the rows so far in the directory and every response in the run store.

    Args:
        concurrency: Maximum number of items in flight; None is `DEFAULT_CONCURRENCY`.
        store: The run store, a file or the URL of a Postgres database; None is that of a resumed run, or a file in the
            directory.
        shared: Opened models and store of a sweep.
        progress: Reports the download of model files.

    Returns:
        A row for every item and seed.

    Raises:
        UserError: The directory holds another run, the plan is invalid or its model is unknown.
        DataError: The directory is damaged, or the dataset is not the plan's.
        BackendError: The model failed; finished rows are saved.
    """
    if dataset.fingerprint != plan.dataset.fingerprint:
        raise DataError(f"{dataset.source} no longer has the rows with which the run began", hint="use the same data")
    if store is None and resume:
        store = begun_store(out)
    path: Path | str = shared.store if shared is not None else store or out / STORE
    keys = run_keys(plan, dataset)
    manifest = RunManifest(
        plan=plan,
        source=source,
        label=label or default_label(plan),
        keys=keys,
        environment=software_versions(),
        store=STORE if path == out / STORE else stored_location(path),
    )
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(RunDirectory(out))
        rows = directory.begin(manifest, resume=resume)
        reader = await open_store(path)
        stack.push_async_callback(reader.aclose)
        if isinstance(reader, SqliteStore) and path == out / STORE:
            await reader.disown_runs()  # whoever locks the directory is alone in it, also after the end of its host
        if shared is None:
            reasoner = Reasoner(
                parameters=plan.parameters,
                calibration=plan.calibration or NO_MAP,
                settings=settings_for(plan, settings, path),
                progress=progress,
            )
            await stack.enter_async_context(reasoner)
        else:
            reasoner = await shared.reasoner.variant(
                plan.strategy,
                parameters=plan.parameters,
                budget=plan.budget,
                calibration=plan.calibration or NO_MAP,
                verify=plan.verify,
                context=plan.context,
                effort=plan.effort,
                thinking_tokens=plan.thinking_tokens,
            )
        scorer = await stack.enter_async_context(Scorer())
        in_flight = concurrency or DEFAULT_CONCURRENCY
        runner = EvalRunner(plan, dataset, scorer, reasoner, reader, concurrency=in_flight, observer=observer)
        rows = await runner.run(keys, rows, directory.add)
        directory.finish(manifest, rows)
    return rows
