"""One run of a strategy by itself: on a model that counts, with a ledger, a store and every event kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from ...core.answer import Solution
from ...core.budget import Budget
from ...core.events import EventFields
from ...core.question import Question
from ...core.run import Run, RunConfig
from ...core.store import RunStore
from ...serving.metered import MeteredModel
from ..strategy import Models, Strategy, checked_parameters
from .plain_model import PlainModel

PATIENCE_S = 20.0
"""How long a strategy may take that was cancelled, or that waits for nothing."""


@dataclass
class Trial:
    """What came of a run.

    Attributes:
        run: The run, with its ledger.
        model: The model.
        solution: What the strategy returned; None if it raised.
        error: What it raised.
        events: Every event, in order.
        left: Names of tasks that still ran when it had ended.
        late: Whether it had not ended within `PATIENCE_S` seconds.
    """

    run: Run
    model: PlainModel
    solution: Solution | None = None
    error: BaseException | None = None
    events: list[EventFields] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    late: bool = False


class Trials:
    """Runs a strategy again and again, under names of its own in one store.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.
        store: Where runs are kept.
    """

    def __init__(
        self, kind: type[Strategy], parameters: Mapping[str, JsonValue], question: Question, store: RunStore
    ) -> None:
        self.kind = kind
        self._config = checked_parameters(kind.Config, kind.name, parameters)
        self._question = question
        self._store = store

    async def run(
        self,
        name: str,
        *,
        seed: int = 1,
        budget: Budget | None = None,
        hold_after: int | None = None,
        silent: bool = False,
        again: bool = False,
    ) -> Trial:
        """Run it once.

        Args:
            name: The run's name in the store.
            seed: Its seed.
            budget: Its limits.
            hold_after: The model holds after so many tokens and measurements, and the run is cancelled then.
            silent: The model refuses to write.
            again: The run was there before, and goes on.
        """
        config = RunConfig(
            question=self._question,
            strategy=self.kind.name,
            parameters=self._config.model_dump(mode="json"),
            models={"main": "conformance/plain"},
            budget=budget or Budget(),
            seed=seed,
        )
        events: list[EventFields] = []
        model = PlainModel(hold_after=hold_after, silent=silent)
        run = Run(name, config, self._store, sinks=[events.append], begun=again)
        if not again:
            await self._store.create_run(run.id, config.model_dump(mode="json"))
        trial = Trial(run, model, events=events)
        before = asyncio.all_tasks()
        models = Models({"main": MeteredModel(model, "main", run)})
        task = asyncio.create_task(self.kind(self._config).solve(self._question, models, run))
        if hold_after is not None:
            held = asyncio.create_task(model.holding.wait())
            await asyncio.wait({task, held}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            held.cancel()
            with suppress(asyncio.CancelledError):
                await held
            task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        trial.late = not task.done()
        if task.done():
            trial.error = asyncio.CancelledError() if task.cancelled() else task.exception()
            trial.solution = None if trial.error is not None else task.result()
        trial.left = sorted(_name(t) for t in asyncio.all_tasks() - before - {task})
        for left in asyncio.all_tasks() - before:
            left.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wait({left}, timeout=1.0)
        return trial


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", repr(task))
