"""`StepReward`: what a search over steps scores with, whatever it is; and what all of them have in common.

| source | a prefix's score |
| --- | --- |
| `process_rewards.ByRewardModel` | what a reward model gives its steps: trained on steps, on outcomes, or a judge |
| `exact_rewards.ByArithmetic` | the share of its calculations that are right |
| `outcome_rewards.ByRollouts` | how often it leads to the answer that most rollouts reach, or a scorer of replies |
| `likelihood_rewards.ByLogprob` | the mean probability of its tokens: how sure the model is, not how right it is |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from ..core.errors import UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..serving.rewards import Aggregation
from .reply_prefix import Prefix


class StepReward(Protocol):
    """Scores the beginnings of solutions."""

    @property
    def name(self) -> str:
        """What scores, as it stands in the record of a run."""

    @property
    def spent(self) -> bool:
        """Whether a budget has kept something from being scored."""

    @property
    def passes(self) -> int:
        """Prefixes scored anew so far; what a source has remembered is not scored again."""

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """Score the beginnings of solutions to one problem, as one batch.

        Args:
            problem: The problem's text.
            prefixes: Each the texts of its steps, in order; a `Prefix` also says how they were generated.
            aggregate: How the values of steps become one.

        Returns:
            A score in [0, 1] for each prefix, in order; None for one that could not be scored, for one without steps,
            and for those that the budget did not cover.

        Raises:
            BackendError: Nothing could be scored at all.
        """


Known = tuple[str, Hashable, Aggregation]
"""Problem, what is scored, and aggregation."""


class Remembering(ABC):
    """A source that scores nothing twice within its run, and says in the trace what scored how many.

    Args:
        name: What scores.
        run: The run.
    """

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.spent = False
        self.passes = 0
        self._run = run
        self._known: dict[Known, float | None] = {}

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """See `StepReward.score`."""
        keys: list[Known] = [(problem, self._same(prefix), aggregate) for prefix in prefixes]
        fresh: dict[Known, Sequence[str]] = {}
        for key, prefix in zip(keys, prefixes, strict=True):
            if key not in self._known and any(step.strip() for step in prefix):
                fresh.setdefault(key, prefix)
        if fresh:
            made = await self._score(problem, list(fresh.values()), aggregate)
            scored = list(fresh)
            self._known.update({scored[i]: value for i, value in made.items()})
        scores = [self._known.get(key) for key in keys]
        data: dict[str, JsonValue] = {
            "by": self.name,
            "aggregate": aggregate,
            "prefixes": len(prefixes),
            "fresh": len(fresh),
            "unscored": sum(score is None for score in scores),
            "scores": list(scores),
        }
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="prefixes.scored", data=data))
        return scores

    def _same(self, prefix: Sequence[str]) -> Hashable:
        """What makes two prefixes one: by default their texts, and whether they are whole replies."""
        return tuple(prefix), isinstance(prefix, Prefix) and prefix.terminal

    @abstractmethod
    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        """Score prefixes that are all different and have steps.

        Returns:
            By position the score, None for one that cannot be scored; those that the budget did not cover are left out
            and may be asked for again.
        """


def aggregated(values: Sequence[float], aggregate: Aggregation) -> float:
    """The values of steps as one; "model" is that of the whole, which is all there is then.

    Args:
        values: In [0, 1], at least one.
        aggregate: How.

    Raises:
        UserError: There is no value, or no such aggregation.
    """
    if not values:
        raise UserError("no step has a value that could be aggregated")
    match aggregate:
        case "last" | "model":
            return values[-1]
        case "min":
            return min(values)
        case "prod":
            return math.prod(values)
        case "mean":
            return math.fsum(values) / len(values)
        case _:
            raise UserError(f"no aggregation of step scores is called {aggregate!r}")
