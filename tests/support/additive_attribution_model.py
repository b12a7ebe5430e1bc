"""A scripted model to which each part of a context adds a known amount, and contexts for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reason.verify.attribution import Segment
from reason.verify.types import Claim

from support.scripted_model import END, Distribution, Script, ScriptedModel

CLAIM = Claim(text="x", start=0, end=1)
QUESTION = Segment(name="question", kind="question", text="Which?")


def context_of(parts: int) -> list[Segment]:
    return [QUESTION, *(Segment(name=f"d{i}", kind="document", text=f"Part <{i}>.") for i in range(parts))]


def additive(amounts: Sequence[float], base: float, probability: Callable[[float], float] = math.exp) -> ScriptedModel:
    """A model that says "x" with probability(base + the amounts of the parts it is shown), whatever came before."""
    return ScriptedModel(additive_script(amounts, base, probability))


def additive_script(amounts: Sequence[float], base: float, probability: Callable[[float], float] = math.exp) -> Script:
    """What such a model does."""

    def script(text: str) -> Distribution:
        chance = probability(base + math.fsum(a for i, a in enumerate(amounts) if f"<{i}>" in text))
        return {"x": chance, END: 1.0 - chance}

    return script


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
