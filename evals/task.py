"""`Task`: what a runner needs of a dataset: which questions there are, and how an answer to one is judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from ..core.answer import Answer
from ..core.question import Question
from .plan import DatasetUse


@dataclass(frozen=True)
class Asked:
    """One item as it is asked.

    Attributes:
        id: Its name.
        question: What is asked; holds nothing of the right answer.
        gold: The right answer as its scorer takes it.
        group: What it is clustered under; empty if it stands alone.
        subject: Its subject, for the breakdown.
    """

    id: str
    question: Question
    gold: JsonValue
    group: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Judged:
    """What a scorer says of one answer.

    Attributes:
        value: The main score, in [0, 1].
        parsed: Whether an answer was found in the text.
        metrics: Scores by name.
        detail: What the scorer says, as it says it.
    """

    value: float
    parsed: bool
    metrics: dict[str, float]
    detail: JsonValue


Judge = Callable[[str, Answer], Awaitable[Judged]]
"""Judges the answer to the item of that name."""


@dataclass(frozen=True)
class Task:
    """A dataset, opened.

    Attributes:
        use: Which it is.
        items: Its items by name, in order.
        judge: How an answer is judged.
    """

    use: DatasetUse
    items: dict[str, Asked]
    judge: Judge
