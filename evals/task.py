"""`Task`: an opened dataset with its scorer."""

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
    """Scores the answers of a task."""

    async def score(self, item: Item, answer: Answer) -> Score:
        """The score of the answer to an item."""


@dataclass(frozen=True)
class Task:
    """An opened dataset.

    Attributes:
        info: The dataset.
        items: Its items by id, in order.
        open_scorer: Opens the scorer of the answers, as a context manager.
    """

    info: DatasetInfo
    items: dict[str, Item]
    open_scorer: Callable[[], AbstractAsyncContextManager[AnswerScorer]]


def make_task(dataset: Dataset, open_scorer: Callable[[], AbstractAsyncContextManager[AnswerScorer]]) -> Task:
    """A dataset with its scorer as a task."""
    info = DatasetInfo(
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
        DataError: A file or record is invalid; names file and line.
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
    """The source with an absolute path, so that a run can be resumed from another directory."""
    if source.data is not None:
        return source.model_copy(update={"data": source.data.absolute()})
    path = Path(source.dataset)
    return source.model_copy(update={"dataset": str(path.absolute())}) if path.is_file() else source
