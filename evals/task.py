"""`Task`: what a runner needs of a dataset: which questions there are, and how an answer to one is judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..core.answer import Answer
from .items import Dataset, Item, Score
from .plan import DatasetUse

Judge = Callable[[Item, Answer], Awaitable[Score]]
"""Scores the answer to an item."""


@dataclass(frozen=True)
class Task:
    """A dataset, opened.

    Attributes:
        use: Which it is.
        items: Its items by name, in order.
        judge: How an answer is scored.
    """

    use: DatasetUse
    items: dict[str, Item]
    judge: Judge


def task_of(dataset: Dataset, judge: Judge) -> Task:
    """A dataset with its scorer, as a runner takes it."""
    use = DatasetUse(
        name=dataset.name,
        variant=dataset.variant,
        source=dataset.source,
        fingerprint=dataset.fingerprint,
        size=dataset.size,
        options=dataset.options,
        scorer=dataset.scorer,
        licence=dataset.licence,
        warning=dataset.warning,
        sha256=dataset.sha256,
        revision=dataset.revision,
    )
    return Task(use, dataset.by_id, judge)
