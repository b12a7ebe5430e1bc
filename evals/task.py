"""`Task`: what a runner needs of a dataset: which questions there are, and how an answer to one is judged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ..core.answer import Answer
from .items import Dataset, Item, Score
from .plan import DatasetUse


class Judge(Protocol):
    """Scores answers."""

    async def score(self, item: Item, answer: Answer) -> Score:
        """What the answer to an item is worth."""


@dataclass(frozen=True)
class Task:
    """A dataset, opened.

    Attributes:
        use: Which it is.
        items: Its items by name, in order.
        open_judge: Opens who scores the answers; what it holds is given back when it is left.
    """

    use: DatasetUse
    items: dict[str, Item]
    open_judge: Callable[[], AbstractAsyncContextManager[Judge]]


def task_of(dataset: Dataset, open_judge: Callable[[], AbstractAsyncContextManager[Judge]]) -> Task:
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
    return Task(use, dataset.by_id, open_judge)
