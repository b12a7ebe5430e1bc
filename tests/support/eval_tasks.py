"""Sums as a dataset, and a scripted model that answers them now right, now wrong."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from reason.core.types import Answer, Question, RunUsage
from reason.evals.datasets.items import Dataset, Item, MathGold, fingerprint
from reason.evals.plan import DatasetSource

from support.scripted_model import END, Distribution

SOURCE = DatasetSource(dataset="sums")


def sums(n: int) -> Dataset:
    """Sums of two numbers."""
    items = tuple(
        Item(
            id=f"sum-{i:03}",
            question=Question(text=f"What is {i} + {i + 1}?", kind="number"),
            gold=MathGold(answer=str(2 * i + 1), kind="number"),
            subject="even" if i % 2 == 0 else "odd",
        )
        for i in range(n)
    )
    return Dataset(
        name="sums",
        source="made up",
        licence="none",
        warning="known to everyone",
        scorer="math",
        items=items,
        size=n,
        fingerprint=fingerprint(items),
    )


def write_sums(path: Path, n: int, answer: str = "answer") -> Path:
    """The sums as lines of a file, with their questions in the field `q`."""
    rows = [{"id": f"s{i}", "q": f"What is {i} + {i + 1}?", answer: str(2 * i + 1)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answered(answer: str | None, text: str = "", **fields: object) -> Answer:
    """An answer of a run of a strategy, whose text is the answer unless another is given."""
    return Answer.model_validate(
        {"answer": answer, "text": text or answer or "", "strategy": "s", "model": "m", "confidence": None}
        | {"stopped": "done", "candidates": (), "verification": None, "usage": RunUsage(), "run_id": "r", "seed": 0}
        | fields
    )


def adder(text: str) -> Distribution:
    """Script of a model that adds right with a chance of two in three, and sometimes says nothing of use."""
    question, _, written = text.rpartition("assistant: ")
    a, b = map(int, re.findall(r"What is (\d+) \+ (\d+)", question)[-1])
    luck = random.Random(a)
    replies = [(f"The answer is {a + b}.", 2.0), (f"The answer is {a + b + 1}.", 1.0), ("Who knows.", luck.random())]
    left = [(r + END, w) for r, w in replies if (r + END).startswith(written)]
    total = sum(w for _, w in left)
    chances: dict[str, float] = {}
    for reply, weight in left:
        chances[reply[len(written)]] = chances.get(reply[len(written)], 0.0) + weight / total
    return chances or {END: 1.0}
