"""The numbers of a question that is to be routed: its signals as far as they can be had, and what could not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.question import Question
from ..core.run import Run
from ..reasoning.strategy import Models
from ..serving.metered import MeteredModel
from .feature_space import Space
from .question_features import ENTROPY, signals_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


async def question_row(
    question: Question, models: Models, run: Run, space: Space, model: MeteredModel
) -> NDArray[np.float64]:
    """The numbers of a question in a router's space; what is not known counts as average, and that is told.

    The model is asked for its first token only if the budget holds another call behind it.

    Args:
        question: The question.
        models: Has the embedding model.
        run: Who pays.
        space: The router's.
        model: Whose first token is looked at.

    Raises:
        LimitExceeded: The budget is spent.
        BackendError: The model failed.
    """
    looks = ENTROPY in space.names and run.ledger.left("calls") >= 2
    embedding = models.knowledge.embedding
    fits = space.axes and embedding is not None and embedding.identity == space.embedding_identity
    signals = await signals_of(question, run, model=model if looks else None, embedding=embedding if fits else None)
    for name in space.unknown(signals):
        what = f"the {name} of {space.embedding}" if name == "embedding" else f"the {name}"
        run.degrade(f"{what} could not be had for this question, and counts as average")
    return space.row(signals)
