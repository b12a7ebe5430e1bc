"""Scores of prefixes by an exact verifier: the arithmetic that they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.run import Run
from ..serving.rewards import Aggregation
from .arithmetic_verifier import check_arithmetic
from .step_rewards import Remembering, aggregated


class ByArithmetic(Remembering):
    """The share of right ones among a step's calculations (see `check_arithmetic`).

    Steps that calculate nothing have no value and are passed over: "last" is the last step that does. A prefix without
    any gets `unknown`: nothing speaks for it, and nothing against it.

    Args:
        run: The run.
        unknown: Score of a prefix that calculates nothing, in [0, 1]; None leaves it unscored.
        strict: Whether one wrong calculation makes a step's value 0.
    """

    def __init__(self, run: Run, *, unknown: float | None = 0.5, strict: bool = True) -> None:
        super().__init__("arithmetic, checked exactly", run)
        self._unknown, self._strict = unknown, strict

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        self.passes += len(prefixes)
        return {i: self._value(prefix, aggregate) for i, prefix in enumerate(prefixes)}

    def _value(self, prefix: Sequence[str], aggregate: Aggregation) -> float | None:
        parts = ["\n".join(prefix)] if aggregate == "model" else list(prefix)
        checks = [check for part in parts if (check := check_arithmetic(part)).share is not None]
        shares = [check.share for check in checks if check.share is not None]
        if not shares:
            return self._unknown
        if self._strict:
            shares = [0.0 if check.any_wrong else share for check, share in zip(checks, shares, strict=True)]
        return aggregated(shares, aggregate)
