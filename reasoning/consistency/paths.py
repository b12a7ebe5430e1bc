"""`Path`: one sampled solution with its answer and its length-normalised probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import DataError

ROUNDING = 1e-4
"""How far above 0 a log-probability may be, in nats: engines sum in 32 bits, so a sure token may exceed 1."""


@dataclass(frozen=True, slots=True)
class Path:
    """One sampled solution of a question.

    Attributes:
        text: What was generated, thoughts and all; paths of the same text are duplicates.
        answer: The answer it states; None if none was found.
        mean_logprob: Mean log-probability of its tokens, in nats, from -inf to 0; None if unknown. A value above 0 by
            no more than `ROUNDING` becomes 0.

    Raises:
        DataError: `mean_logprob` is not a number, or above 0.
    """

    text: str
    answer: str | None
    mean_logprob: float | None = None

    def __post_init__(self) -> None:
        if self.mean_logprob is not None:
            object.__setattr__(self, "mean_logprob", _checked(self.mean_logprob, "the mean log-probability"))

    @classmethod
    def of_tokens(cls, text: str, answer: str | None, logprobs: Sequence[float]) -> Path:
        """A path from the log-probabilities of its tokens: s = (1/T) Σ l_t.

        Args:
            text: What was generated.
            answer: The answer it states.
            logprobs: Log-probability of each sampled token in nats, `[tokens]`, of the raw distribution.

        Raises:
            DataError: There is no token, or a value is not a number or above 0; names its place.
        """
        if not len(logprobs):
            raise DataError("the list of log-probabilities is empty", hint="leave it away where there are none")
        values = [_checked(value, f"the log-probability of token {i}") for i, value in enumerate(logprobs, 1)]
        return cls(text, answer, math.fsum(values) / len(values))

    @property
    def probability(self) -> float | None:
        """Geometric mean of the tokens' probabilities, p = exp(s), in [0, 1]; None if unknown."""
        return None if self.mean_logprob is None else math.exp(self.mean_logprob)

    @property
    def perplexity(self) -> float | None:
        """1/p, at least 1; infinite where p is 0, None if unknown."""
        if self.mean_logprob is None:
            return None
        return math.exp(-self.mean_logprob) if self.mean_logprob > -700 else math.inf


def _checked(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{what} is {value!r}, not a number")
    if math.isnan(value):
        raise DataError(f"{what} is NaN", hint="leave it away where it is unknown")
    if value > ROUNDING:
        raise DataError(f"{what} is {value:g}, above 0", hint="give natural logarithms of probabilities")
    return min(float(value), 0.0)
