"""An entailment whose verdicts are a function of the pair, and a cross-encoder whose outputs are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from reason.core.errors import BackendError
from reason.verify.types import Pair, Support


class ScriptedEntailment:
    """An `Entailment` over a function.

    Args:
        verdict: What a pair gets; None cannot be read.
        failing: Whether every call fails.
    """

    def __init__(
        self,
        verdict: Callable[[Pair], Support | None],
        *,
        max_words: int | None = None,
        name: str = "scripted",
        failing: bool = False,
    ) -> None:
        self.name, self.identity, self.max_words = name, f"{name}@1", max_words
        self._verdict, self._failing = verdict, failing
        self.calls: list[list[Pair]] = []
        self.closed = 0

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        self.calls.append(list(pairs))
        if self._failing:
            raise BackendError("scripted to fail")
        return [self._verdict(pair) for pair in pairs]

    async def aclose(self) -> None:
        self.closed += 1


class ScriptedEncoder:
    """A `CrossEncoder` over a function of the two texts that gives an output for each label by name."""

    def __init__(
        self,
        labels: Sequence[str],
        outputs: Callable[[str, str], dict[str, float]],
        *,
        max_tokens: int | None = 512,
    ) -> None:
        self.name, self.identity, self.labels, self.max_tokens = "encoder", "encoder@1", tuple(labels), max_tokens
        self._outputs = outputs
        self.asked: list[tuple[str, str]] = []
        self.closed = 0

    async def logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.asked += pairs
        rows = [[self._outputs(a, b)[label] for label in self.labels] for a, b in pairs]
        return np.array(rows, dtype=np.float32).reshape(len(pairs), len(self.labels))

    async def aclose(self) -> None:
        self.closed += 1
