"""Features of a question that are known before it is answered, and linear models over them.

The named features are counts in the question's text, its kind of answer, and the entropy of the first token of a chain
of thought; the question's embedding is added to them. A `FeatureSpace` standardises them, and a `LinearModel` is a
linear function of the result.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, get_args

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from ..core.errors import BackendError, CapabilityMissing
from ..core.messages import Frozen, Prompt, Thought
from ..core.run import Run
from ..core.store.records import NewCall, StoredCall, call_key
from ..core.types import Question
from ..reasoning.answers.extraction import ResolvedKind, answer_kind
from ..reasoning.prompts import question_prompt, step_by_step_instruction
from ..serving.encoders.protocols import EmbeddingModel
from ..serving.metered.model import MeteredModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


Support = Literal["full", "top_k"]
ENTROPY: Final = "first-token entropy"
"""The name of the one signal that costs a call of a model."""
TOP: Final = 20
"""Alternatives requested where a backend shows no more than the most likely ones."""

_NUMERAL = re.compile(r"\d+(?:[.,]\d+)*")
_OPERATOR = re.compile(r"[+*=<>^\u00d7\u00f7]|(?<=[\d)])\s?[-/%]|\s[-/]\s")
_LATEX = re.compile(r"\\[A-Za-z]+|\$")
_CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+[:({]|\breturn\b.*[;)]|#include\b|[;{][ \t]*$", re.M)


@dataclass(frozen=True)
class QuestionFeatures:
    """Features of one question.

    Attributes:
        named: The named features; `ENTROPY` is among them if the model has one.
        support: What that entropy is over: the complete vocabulary, or the most likely tokens, which is another scale;
            None without one.
        vector: The question's embedding, unit length, rounded to six digits; empty if there is none.
    """

    named: Mapping[str, float]
    support: Support | None = None
    vector: tuple[float, ...] = ()


def named_features(question: Question) -> dict[str, float]:
    """The features that need no model, by name. Counts are ln(1 + count), so that a long question does not dominate."""
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


async def extract_features(
    question: Question, run: Run, *, model: MeteredModel | None = None, embedding: EmbeddingModel | None = None
) -> QuestionFeatures:
    """All features of a question, charged to a run and kept in its store.

    Args:
        question: The question.
        run: The run that pays.
        model: The model whose entropy is a feature; None requests none.
        embedding: The metered embedding model; None leaves the vector empty.

    Raises:
        BudgetExceeded: The budget does not cover the model's call, or the time is over.
        BackendError: The model failed.
    """
    named = named_features(question)
    support: Support | None = None
    prompt = None if model is None else entropy_prompt(question, model)
    if model is not None and prompt is not None:
        try:
            (distribution,) = await model.next_token([prompt], TOP)
        except CapabilityMissing:
            pass  # without it the signal is one of those that are not known
        else:
            named[ENTROPY], support = distribution.entropy, distribution.support
    vector: tuple[float, ...] = ()
    if embedding is not None:
        try:
            vector = await kept_vector(question.text, embedding, run)
        except BackendError as e:
            run.degrade(f"the question could not be embedded ({e.message}): its embedding counts as unknown")
    return QuestionFeatures(named, support, vector)


def chain_prompt(question: Question) -> Prompt:
    """The prompt of `cot`; a chain that follows has it in the cache."""
    return question_prompt(question, step_by_step_instruction(question))


def entropy_prompt(question: Question, model: MeteredModel) -> Prompt | None:
    """The prompt whose next token is the first of a chain of thought; None if the model hides it.

    A model that thinks by default begins the chain in its thought.
    """
    prompt, profile = chain_prompt(question), model.profile
    if not profile.starts_thinking(prompt, None):
        return prompt
    return prompt.with_thought(Thought(closed=False)) if profile.prefix == "thought" else None


async def kept_vector(text: str, embedding: EmbeddingModel, run: Run) -> tuple[float, ...]:
    """The embedding of a text, kept in the run store, so that a run can be replayed without the embedding model.

    Args:
        text: The text.
        embedding: The metered model; or its stub in a replay.
        run: The run.

    Raises:
        StoreError: A replay needs a vector that was not recorded.
        BudgetExceeded: The price does not fit the budget, or the time is over.
        BackendError: It could not be computed.
    """
    request: dict[str, JsonValue] = {"embed": text}
    key = call_key(embedding.identity, request, None, 0)
    known = (await run.lookup_calls([key])).get(key)
    if known is not None:
        return _read(known)
    computed: NDArray[np.float32] = await embedding.embed([text])
    vector = tuple(round(float(number), 6) for number in computed[0])  # as stored, so that a replay sees the same
    # a decision by name: it is no response of a model, and is not counted as one
    await run.save_calls([NewCall(key, "embedding", embedding.name, {"decision": request}, {"vector": list(vector)})])
    return vector


def _read(call: StoredCall) -> tuple[float, ...]:
    numbers = call.response["vector"]
    assert isinstance(numbers, list)
    return tuple(float(number) for number in numbers)  # type: ignore[arg-type]


FARTHEST: Final = 4.0
"""Standard deviations from the mean at which a number is cut: beyond what training saw, a line proves nothing."""
EMBEDDING: Final = "embedding"
"""What the share of all components of the embedding is called."""

Positive = Annotated[FiniteFloat, Field(gt=0)]


class FeatureSpace(Frozen):
    """Maps features to numbers of mean 0 and variance 1 over the training questions.

    An unknown feature counts as average: 0. Numbers are clipped at `FARTHEST`.

    Attributes:
        names: The named features that varied in training, in order.
        means: The mean of each.
        scales: The standard deviation of each.
        support: What the entropy among them is over; "none" if it is not among them.
        embedding: Model string of the embedding model; empty if its vectors are not used.
        embedding_identity: Its identity: vectors of another model have no meaning here.
        centre: Mean of the training questions' vectors.
        axes: Principal components of these vectors, the one of most variance first.
        spreads: The standard deviation along each.
    """

    names: tuple[str, ...]
    means: tuple[FiniteFloat, ...]
    scales: tuple[Positive, ...]
    support: Literal["none", "full", "top_k"] = "none"
    embedding: str = ""
    embedding_identity: str = ""
    centre: tuple[FiniteFloat, ...] = ()
    axes: tuple[tuple[FiniteFloat, ...], ...] = ()
    spreads: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if not len(self.names) == len(self.means) == len(self.scales):
            raise ValueError("each named feature needs a mean and a scale")
        if len(self.axes) != len(self.spreads) or any(len(axis) != len(self.centre) for axis in self.axes):
            raise ValueError("each axis has a spread, and as many numbers as the centre")
        if (ENTROPY in self.names) != (self.support != "none"):
            raise ValueError("support must be set if and only if the entropy is among the features")
        if bool(self.axes) != bool(self.embedding_identity):
            raise ValueError("axes are those of an embedding model")
        return self

    @property
    def size(self) -> int:
        """Length of a row."""
        return len(self.names) + len(self.axes)

    def row(self, signals: QuestionFeatures) -> NDArray[np.float64]:
        """The row of a question: the named features, then the components, `[size]`."""
        import numpy as np

        row = np.zeros(self.size)
        for i, (name, mean, scale) in enumerate(zip(self.names, self.means, self.scales, strict=True)):
            value = signals.named.get(name)
            if value is not None and (name != ENTROPY or signals.support == self.support):
                row[i] = (value - mean) / scale
        if self.axes and len(signals.vector) == len(self.centre):
            offset = np.asarray(signals.vector) - np.asarray(self.centre)
            row[len(self.names) :] = np.asarray(self.axes) @ offset / np.asarray(self.spreads)
        clipped: NDArray[np.float64] = np.clip(row, -FARTHEST, FARTHEST)
        return clipped

    def unknown(self, signals: QuestionFeatures) -> list[str]:
        """The features of the space that are unknown for a question."""
        missing = []
        if ENTROPY in self.names and (ENTROPY not in signals.named or signals.support != self.support):
            missing.append(ENTROPY)
        if self.axes and len(signals.vector) != len(self.centre):
            missing.append(EMBEDDING)
        return missing


class LinearModel(Frozen):
    """A linear function over a feature space.

    Attributes:
        intercept: Its value for the average question.
        named: A weight for each named feature; empty if it uses none.
        components: A weight for each of the first components; it may use fewer than there are.
    """

    intercept: FiniteFloat
    named: tuple[FiniteFloat, ...] = ()
    components: tuple[FiniteFloat, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether it has the same value for every question."""
        return not any(self.named) and not any(self.components)

    def fits(self, space: FeatureSpace) -> bool:
        """Whether it is over this space."""
        return len(self.named) in (0, len(space.names)) and len(self.components) <= len(space.axes)

    def value(self, space: FeatureSpace, row: NDArray[np.float64]) -> float:
        """Its value for a row of the space."""
        return self.intercept + sum(self.shares(space, row).values())

    def shares(self, space: FeatureSpace, row: NDArray[np.float64]) -> dict[str, float]:
        """Contribution of each named feature to the average question's value, and of all components together."""
        shares = {
            name: float(weight * number)
            for name, weight, number in zip(space.names if self.named else (), self.named, row, strict=False)
        }
        if self.components:
            at = len(space.names)
            numbers = row[at : at + len(self.components)]
            shares[EMBEDDING] = float(sum(w * z for w, z in zip(self.components, numbers, strict=True)))
        return shares


def top_contributions(shares: dict[str, float], max_count: int = 3) -> dict[str, float]:
    """The largest contributions by size, largest first, without those of zero."""
    ordered = sorted(shares.items(), key=lambda share: (-abs(share[1]), share[0]))
    return {name: round(value, 4) for name, value in ordered[:max_count] if abs(value) >= 5e-5}


def with_contributions(why: str, contributions: dict[str, float]) -> str:
    """A reason with the largest contributions after it, in one line."""
    listed = ", ".join(f"{name} {value:+.2f}" for name, value in contributions.items())
    return f"{why}; {listed}" if listed else why
