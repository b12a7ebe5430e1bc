"""`Task`: what a runner needs of a dataset: which questions there are, and how an answer to one is judged.

From what a user states to a `Task`: the dataset read and its scorer ready.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..core.types import Answer
from .datasets.items import Dataset, Item, Score
from .datasets.loading import load_dataset
from .plan import DatasetInfo, DatasetSource
from .scoring import Scorer


class AnswerScorer(Protocol):
    """Scores answers."""

    async def score(self, item: Item, answer: Answer) -> Score:
        """What the answer to an item is worth."""


@dataclass(frozen=True)
class Task:
    """A dataset, opened.

    Attributes:
        use: Which it is.
        items: Its items by name, in order.
        open_scorer: Opens who scores the answers; what it holds is given back when it is left.
    """

    use: DatasetInfo
    items: dict[str, Item]
    open_scorer: Callable[[], AbstractAsyncContextManager[AnswerScorer]]


def make_task(dataset: Dataset, open_scorer: Callable[[], AbstractAsyncContextManager[AnswerScorer]]) -> Task:
    """A dataset with its scorer, as a runner takes it."""
    use = DatasetInfo(
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
    return Task(info, dataset.by_id, open_scorer)


def open_task(source: DatasetSource) -> Task:
    """Open a dataset.

    Raises:
        UnknownName: There is no such dataset, variant or option.
        DataError: A file or record is not what it should be; names file and line.
        BackendUnavailable: The hub cannot be reached.
    """
    dataset = load_dataset(
        source.dataset,
        data=source.data,
        mapping=source.map or None,
        variant=source.variant,
        seed=source.choice_seed,
        split=source.split,
        revision=source.revision,
        options=source.options or None,
    )
    return make_task(dataset, Scorer)


def with_absolute_path(source: DatasetSource) -> DatasetSource:
    """The same with an absolute path, so that a run can continue from another directory."""
    if source.data is not None:
        return source.model_copy(update={"data": source.data.absolute()})
    path = Path(source.dataset)
    return source.model_copy(update={"dataset": str(path.absolute())}) if path.is_file() else source
