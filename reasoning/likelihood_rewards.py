"""Scores of prefixes by how likely the model found its own words: the fallback where nothing else can score."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from ..core.run import Run
from ..serving.rewards import Aggregation
from .reply_prefix import Prefix
from .step_rewards import Remembering, aggregated


class ByLogprob(Remembering):
    """The exponential of a step's mean log-probability: the geometric mean of its tokens' probabilities.

    A search's h is then `1 - exp(mean logprob)`. It is a weak signal: it says how sure the model is of its words, not
    whether they are true. Only a `Prefix` whose log-probabilities are known can be scored. With aggregation "model" the
    mean is over all tokens of the prefix.

    Source: the last resort of step-level search where no reward model is to be had.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        super().__init__("mean log-probability of the model's own words", run)

    def _same(self, prefix: Sequence[str]) -> Hashable:
        """The same words may have been other tokens."""
        return (prefix.logprobs, prefix.lengths) if isinstance(prefix, Prefix) else None

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        self.passes += len(prefixes)
        return {i: _value(prefix, aggregate) for i, prefix in enumerate(prefixes)}


def _value(prefix: Sequence[str], aggregate: Aggregation) -> float | None:
    if not isinstance(prefix, Prefix) or len(prefix.logprobs) != len(prefix.lengths) or not prefix.lengths:
        return None
    known = [(p, n) for p, n in zip(prefix.logprobs, prefix.lengths, strict=True) if p is not None and n > 0]
    if aggregate == "last":
        known = known if prefix.logprobs[-1] is not None and prefix.lengths[-1] > 0 else []
    elif len(known) < len(prefix.lengths):
        return None
    if not known:
        return None
    if aggregate == "model":
        known = [(math.fsum(p for p, _ in known), sum(n for _, n in known))]
    return aggregated([min(1.0, math.exp(p / n)) for p, n in known], aggregate)
