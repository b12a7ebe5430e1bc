"""`Runner`: asks every item under every seed, many at a time, and writes a row for each as it finishes.

Each item is a run of its own in the run store, under a name that follows from plan, item and seed. However an
evaluation ends, going on with it finds those runs again: a finished one is read, one that was cut off goes on, and no
reply that was stored is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..agents.reasoner import Reasoner
from ..core.answer import Answer
from ..core.errors import (
    BackendUnavailable,
    CapabilityMissing,
    RateLimited,
    ReasonError,
    StoreError,
    UnknownName,
    UserError,
)
from ..core.events import EventFields
from ..core.messages import Failure
from ..core.sqlite_store import SqliteStore
from ..core.store import RunRecord
from ..core.version import __version__
from .items import Item
from .plan import EvalPlan
from .rows import Row, ledger_of, prompt_hash, sampling_of, timing_of
from .task import Judge, Task

ENDS_THE_RUN = (UserError, CapabilityMissing, BackendUnavailable, RateLimited, StoreError)
"""What would befall the next item as well: the evaluation stops, and goes on with --resume."""


class Watcher(Protocol):
    """Hears how an evaluation goes on; must be quick."""

    def begin(self, total: int, rows: Sequence[Row]) -> None:
        """The run begins: so many rows are wanted, and these are there."""

    def row(self, row: Row) -> None:
        """A row is finished."""

    def event(self, event: EventFields) -> None:
        """Something happened in an item's run."""


class Nobody:
    """A watcher that does not look."""

    def begin(self, total: int, rows: Sequence[Row]) -> None:
        """Do nothing."""

    def row(self, row: Row) -> None:
        """Do nothing."""

    def event(self, event: EventFields) -> None:
        """Do nothing."""


class Runner:
    """Asks the items of one plan.

    Args:
        plan: What was decided.
        task: The items.
        judge: Scores their answers.
        reasoner: Answers; its strategy, parameters and limits are the plan's.
        store: The run store that the reasoner uses.
        concurrency: Most items under way at a time.
        watcher: Hears how it goes on.
    """

    def __init__(
        self,
        plan: EvalPlan,
        task: Task,
        judge: Judge,
        reasoner: Reasoner,
        store: SqliteStore,
        *,
        concurrency: int,
        watcher: Watcher | None = None,
    ) -> None:
        self._plan = plan
        self._task = task
        self._judge = judge
        self._reasoner = reasoner
        self._store = store
        self._concurrency = concurrency
        self._watcher: Watcher = watcher or Nobody()

    async def run(
        self, keys: Sequence[tuple[str, int]], rows: Sequence[Row], write: Callable[[Row], None]
    ) -> list[Row]:
        """Make the rows that are missing.

        Cancelling stops every item under way; each keeps what it has paid for.

        Args:
            keys: (item, seed) of every row wanted.
            rows: Rows that are there; those with an error are made again.
            write: Takes each new row.

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

    async def _ask(self, key: tuple[str, int], attempts: int) -> Row:
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
            except ENDS_THE_RUN:
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

    async def _row(self, item: Item, seed: int, record: RunRecord, error: ReasonError | None, attempts: int) -> Row:
        """The row, made of what the store holds, so that it does not matter when the run was interrupted."""
        calls = [c for c in await self._store.calls(record.id) if "decision" not in c.request]  # that is no reply
        # Where no other run's replies are reused, whatever another had paid is paid again.
        again = self._plan.reuse != "store"
        paid_before = frozenset[str]() if again else await self._store.keys_paid_before(record.id)
        answer = Answer.model_validate(record.answer)
        score = await self._judge.score(item, answer)
        return Row(
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
            sampling=sampling_of(calls),
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
            ledger=ledger_of(answer, calls, paid_before),
            timing=timing_of(answer),
        )
