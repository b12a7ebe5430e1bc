"""A reward model whose scores are known: a function of each step's text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from reason.core.messages import Failure, Usage
from reason.serving.rewards.model import RewardCapabilities, StepScores, count_passes


class ScriptedReward:
    """A `RewardModel` over a function.

    Args:
        chance: Probability that a step is right, by its text; None cannot be scored.
        kind: What it is trained for, as its capabilities state it.
        price: US dollars per character; None is unknown.
    """

    def __init__(
        self,
        chance: Callable[[str], float | None],
        *,
        name: str = "local/scripted-reward",
        one_pass: bool = True,
        kind: Literal["process", "outcome", "judge"] = "process",
        price: float | None = 0.0,
    ) -> None:
        self.name = name
        self.identity = f"{name}@1"
        self._chance = chance
        self._one_pass, self._kind = one_pass, kind
        self._price = price
        self.asked: list[tuple[str, list[list[str]], str]] = []
        self.closed = False

    @property
    def capabilities(self) -> RewardCapabilities:
        return RewardCapabilities(kind=self._kind, one_pass=self._one_pass, price_known=self._price is not None)

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: str = "all"
    ) -> list[StepScores]:
        self.asked.append((problem, [list(steps) for steps in solutions], which))
        return [self._scores(steps, which) for steps in solutions]

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: str = "all") -> float:
        return sum(len(step) for steps in solutions for step in steps) * (self._price or 0.0)

    async def aclose(self) -> None:
        self.closed = True

    def _scores(self, steps: Sequence[str], which: str) -> StepScores:
        chances = [self._chance(step) for step in steps]
        if None in chances:
            return StepScores(passes=0, failure=Failure(code="context_too_long", message="scripted to fail"))
        odds = tuple(math.log(p / (1 - p)) for p in chances if p is not None)
        return StepScores(
            log_odds=odds[-1:] if which == "last" else odds,
            passes=count_passes(self._one_pass, [steps], which),
            usage=Usage(prompt_tokens=1, cost_usd=self.max_usd("", [steps])),
        )
