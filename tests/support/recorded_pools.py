"""Small hand-made pools of recorded samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reason.serving.recorded.model import RecordedModel, load_recorded
from reason.serving.recorded.pool import PoolSample, write_pool


def sample(question_id: str = "q1", number: int = 0, answer: str | None = "4", **fields: Any) -> PoolSample:
    """A sample of the model "m" on the dataset "sums"."""
    known: dict[str, Any] = {"model": "m", "dataset": "sums", "completion_tokens": 10, "gold": "4"}
    return PoolSample(**{**known, **fields}, question_id=question_id, sample=number, answer=answer)


def samples(
    answers: Sequence[str | None], tokens: Sequence[int] | None = None, question_id: str = "q1", **fields: Any
) -> list[PoolSample]:
    """The samples of one question, with their answers and lengths."""
    lengths = tokens or [10] * len(answers)
    return [
        sample(question_id, i, answer, completion_tokens=length, **fields)
        for i, (answer, length) in enumerate(zip(answers, lengths, strict=True))
    ]


def write(directory: Path, rows: Iterable[PoolSample], name: str = "pool.jsonl") -> Path:
    """The file of a pool."""
    path = directory / name
    write_pool(path, rows)
    return path


def model_of(directory: Path, rows: Iterable[PoolSample], name: str = "pool.jsonl") -> RecordedModel:
    """The model of a pool of one model."""
    return load_recorded(f"recorded/{write(directory, rows, name)}")
