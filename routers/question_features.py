"""What can be told of a question before it is answered, cheaply and by name: for routers that are trained on it.

The named signals are counts in the question's text, its kind of answer, and how unsure the model is of the first token
of a chain of thought. Beside them stands the question's embedding.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from pydantic import JsonValue

from ..core.errors import BackendError, CapabilityMissing
from ..core.messages import Prompt
from ..core.question import Question
from ..core.run import Run
from ..core.store import StoredCall, call_key
from ..reasoning.answer_kind import ResolvedKind, answer_kind
from ..reasoning.prompts import ask, step_by_step
from ..serving.embeddings import EmbeddingModel
from ..serving.metered import MeteredModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

Support = Literal["full", "top_k"]
ENTROPY: Final = "first-token entropy"
"""The name of the one signal that costs a call of a model."""
TOP: Final = 20
"""Alternatives asked for where a backend shows no more than the likeliest ones."""

_NUMERAL = re.compile(r"\d+(?:[.,]\d+)*")
_OPERATOR = re.compile(r"[+*=<>^\u00d7\u00f7]|(?<=[\d)])\s?[-/%]|\s[-/]\s")
_LATEX = re.compile(r"\\[A-Za-z]+|\$")
_CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+[:({]|\breturn\b.*[;)]|#include\b|[;{][ \t]*$", re.M)


@dataclass(frozen=True)
class Signals:
    """What is known of one question.

    Attributes:
        named: The named signals; `ENTROPY` is among them if the model showed one.
        support: What that entropy is over: the whole vocabulary, or the likeliest tokens, which is another scale; None
            without one.
        vector: The question's embedding, unit length, rounded to six digits; empty if there is none.
    """

    named: Mapping[str, float]
    support: Support | None = None
    vector: tuple[float, ...] = ()


def named_signals(question: Question) -> dict[str, float]:
    """The signals that cost nothing, by name; counts as ln(1 + count), so that a long question is not all that counts.

    Args:
        question: The question, with its choices and documents.
    """
    text, kind = question.text, answer_kind(question)
    counts = {
        "length": len(text),
        "documents": sum(len(document.text) for document in question.documents),
        "choices": len(question.choices),
        "numerals": len(_NUMERAL.findall(text)),
        "operators": len(_OPERATOR.findall(text)),
        "formulas": len(_LATEX.findall(text)),
        "code": len(_CODE.findall(text)),
    }
    kinds = {f"answer: {name.replace('_', ' ')}": float(kind == name) for name in get_args(ResolvedKind)}
    return {name: math.log1p(count) for name, count in counts.items()} | kinds


async def signals_of(
    question: Question, run: Run, *, model: MeteredModel | None = None, embedding: EmbeddingModel | None = None
) -> Signals:
    """All signals of a question, charged to a run and kept in its store.

    Args:
        question: The question.
        run: Who pays.
        model: Whose entropy is wanted; None asks no model.
        embedding: What embeds the question, metered; None leaves the vector away.

    Raises:
        LimitExceeded: The budget does not hold the model's call, or the time is over.
        BackendError: The model failed.
    """
    named = named_signals(question)
    support: Support | None = None
    if model is not None:
        try:
            (found,) = await model.next_token([chain_prompt(question)], TOP)
        except CapabilityMissing:
            pass  # without it the signal is one of those that are not known
        else:
            named[ENTROPY], support = found.entropy, found.support
    vector: tuple[float, ...] = ()
    if embedding is not None:
        try:
            vector = await kept_vector(question.text, embedding, run)
        except BackendError as e:
            run.degrade(f"the question could not be embedded ({e.message}): its embedding counts as unknown")
    return Signals(named, support, vector)


def chain_prompt(question: Question) -> Prompt:
    """The prompt of `cot`, whose first token is looked at: a chain that follows has it in the cache."""
    return ask(question, step_by_step(question))


async def kept_vector(text: str, embedding: EmbeddingModel, run: Run) -> tuple[float, ...]:
    """The embedding of a text, kept in the run store, so that a run is shown again without the embedding model.

    Args:
        text: The text.
        embedding: The model, metered; or one that stands for it in a replay.
        run: The run.

    Raises:
        StoreError: A replay asks for what was not recorded.
        LimitExceeded: The price does not fit the budget, or the time is over.
        BackendError: It could not be computed.
    """
    asked: dict[str, JsonValue] = {"embed": text}
    key = call_key(embedding.identity, asked, None, 0)
    known = (await run.stored([key])).get(key)
    if known is not None:
        return _read(known)
    computed: NDArray[np.float32] = await embedding.embed([text])
    vector = tuple(round(float(number), 6) for number in computed[0])  # as stored, so that a replay sees the same
    # a decision by name: it is no reply of a model, and is not counted as one
    call = StoredCall(
        key=key,
        role="embedding",
        model=embedding.name,
        request={"decision": asked},
        reply={"vector": list(vector)},
    )
    if run.recording:
        await run.store.add_calls(run.id, [call])
    return vector


def _read(call: StoredCall) -> tuple[float, ...]:
    numbers = call.reply["vector"]
    assert isinstance(numbers, list)
    return tuple(float(number) for number in numbers)  # type: ignore[arg-type]
