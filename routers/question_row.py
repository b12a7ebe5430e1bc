"""The numbers of a question that is to be routed: its signals as far as they can be had, and what could not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.question import Question
from ..core.run import Run
from ..reasoning.strategy import Models
from ..serving.metered import MeteredModel
from .auto_file import AutoFile
from .question_features import ENTROPY, signals_of
from .question_file import QuestionFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


async def question_row(
    question: Question, models: Models, run: Run, file: AutoFile | QuestionFile, model: MeteredModel
) -> NDArray[np.float64]:
    """The numbers of a question in a router's space; what is not known counts as average, and that is told.

    The model is asked for its first token only if the budget holds another call behind it.

    Args:
        question: The question.
        models: Has the embedding model.
        run: Who pays.
        file: The router; it is told if the question is one of those that it was trained on.
        model: Whose first token is looked at.

    Raises:
        LimitExceeded: The budget is spent.
        BackendError: The model failed.
    """
    space = file.space
    if file.trained.knows(question.text):
        run.degrade("the router was trained on this very question: the answer shows nothing of others")
    looks = ENTROPY in space.names and run.ledger.left("calls") >= 2
    embedding = models.knowledge.embedding
    fits = space.axes and embedding is not None and embedding.identity == space.embedding_identity
    signals = await signals_of(question, run, model=model if looks else None, embedding=embedding if fits else None)
    for name in space.unknown(signals):
        what = f"the {name} of {space.embedding}" if name == "embedding" else f"the {name}"
        run.degrade(f"{what} could not be had for this question, and counts as average")
    return space.row(signals)
