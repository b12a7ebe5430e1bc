"""`ask`, `aask` and `astream`: one question, without keeping a `Reasoner`.

Each opens the model and closes it again. For several questions keep a `Reasoner`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from ..core.answer import Answer
from ..core.events import EventFields
from ..core.question import Document, Question
from .reasoner import Reasoner


async def aask(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> Answer:
    """Answer one question.

    Args:
        question: The question, or its text.
        choices: Options of a multiple-choice question.
        documents: Texts that the answer may rest on.
        options: As `Reasoner` takes them.

    Raises:
        ReasonError: As `Reasoner` and `Reasoner.aask`.
    """
    async with Reasoner(**options) as reasoner:
        return await reasoner.aask(question, choices=choices, documents=documents)


async def astream(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> AsyncIterator[EventFields]:
    """Answer one question and tell everything that happens; the last event carries the answer. Otherwise as `aask`."""
    async with (
        Reasoner(**options) as reasoner,
        aclosing(reasoner.astream(question, choices=choices, documents=documents)) as events,
    ):
        async for event in events:
            yield event


def ask(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> Answer:
    """`aask` for callers that are not asynchronous; works inside a running event loop (notebooks) too."""
    with Reasoner(**options) as reasoner:
        return reasoner.ask(question, choices=choices, documents=documents)
