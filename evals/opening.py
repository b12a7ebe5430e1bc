"""From what a user says to a `Task`: the dataset read and its scorer ready."""

from __future__ import annotations

from pathlib import Path

from .datasets.loading import load_dataset
from .plan import TaskSource
from .scoring.scorer import Scorer
from .task import Task, task_of


def open_task(source: TaskSource) -> Task:
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
    return task_of(dataset, Scorer)


def absolute(source: TaskSource) -> TaskSource:
    """The same with an absolute path, so that a run can go on from another folder."""
    if source.data is not None:
        return source.model_copy(update={"data": source.data.absolute()})
    path = Path(source.dataset)
    return source.model_copy(update={"dataset": str(path.absolute())}) if path.is_file() else source
