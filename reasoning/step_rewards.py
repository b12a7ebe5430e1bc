"""Step rewards: what a search over steps scores prefixes with.

| source | step reward | score of a prefix |
| --- | --- | --- |
| reward, judge | `ModelStepReward` | a reward model's scores of its steps: trained on steps or outcomes, or a judge |
| arithmetic | `ArithmeticStepReward` | 0 if one of its calculations is wrong |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, get_args

from pydantic import Field, JsonValue, field_validator

from ..core.concurrency import paced
from ..core.errors import BudgetExceeded, CapabilityMissing, UserError
from ..core.events import StrategyNote
from ..core.messages import Prompt
from ..core.run import Run
from ..serving.metered.scorers import MeteredReward
from ..serving.rewards.model import Aggregation, StepScores, StepSelection, as_one_step, count_passes
from .arithmetic import ArithmeticCheck, check_arithmetic
from .continuations import Prefix
from .strategy import Models, Parameters


class StepReward(Protocol):
    """Scores prefixes of solutions."""

    @property
    def name(self) -> str:
        """Name in the record of a run."""

    @property
    def budget_exhausted(self) -> bool:
        """Whether a budget has kept a prefix from being scored."""

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """Score prefixes of solutions to one problem, as one batch.

        Args:
            prefixes: Each the texts of its steps, in order; a `Prefix` also carries how they were generated.
            aggregate: How the scores of steps become one.

        Returns:
            A score in [0, 1] for each prefix, in order; None for one that could not be scored, for one without steps,
            and for those that the budget did not cover.

        Raises:
            BackendError: Nothing could be scored at all.
        """


CacheKey = tuple[str, tuple[str, ...], bool, Aggregation]
"""Problem, steps of the prefix, whether it is a complete solution, and aggregation."""


class CachedStepReward(ABC):
    """A step reward that scores nothing twice within its run, and emits what it scored.

    Args:
        name: Name in the record of a run.
    """

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.budget_exhausted = False
        self._run = run
        self._cache: dict[CacheKey, float | None] = {}

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        keys: list[CacheKey] = []
        missing: dict[CacheKey, Sequence[str]] = {}
        async for prefix in paced(prefixes):
            key = (problem, tuple(prefix), isinstance(prefix, Prefix) and prefix.terminal, aggregate)
            keys.append(key)
            if key not in self._cache and any(step.strip() for step in prefix):
                missing.setdefault(key, prefix)
        if missing:
            values = await self._score(problem, list(missing.values()), aggregate)
            order = list(missing)
            self._cache.update({order[i]: value for i, value in values.items()})
        scores = [self._cache.get(key) for key in keys]
        data: dict[str, JsonValue] = {
            "by": self.name,
            "aggregate": aggregate,
            "prefixes": len(prefixes),
            "computed": len(missing),
            "unscored": sum(score is None for score in scores),
            "scores": list(scores),
        }
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="prefixes.scored", data=data))
        return scores

    @abstractmethod
    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        """Score prefixes that are all different and have steps.

        Returns:
            The score by position, None for one that cannot be scored; those that the budget did not cover are missing
            and may be requested again.
        """


def aggregate_scores(values: Sequence[float], aggregate: Aggregation) -> float:
    """The scores of steps as one; "model" is the last, which is the only score of a complete prefix.

    Args:
        values: In [0, 1], at least one.

    Raises:
        UserError: There is no value, or no such aggregation.
    """
    if not values:
        raise UserError("there are no step scores to aggregate")
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
            raise UserError(f"there is no aggregation of step scores {aggregate!r}")


class ModelStepReward(CachedStepReward):
    """A reward model's scores of the steps: trained on steps or outcomes, or a judge.

    A model that takes a pass for each step scores only the last step of each prefix, and what an aggregation needs of
    the earlier steps is the score of those prefixes; so every prefix takes one pass, whatever the aggregation. If the
    budget does not cover all, the first ones are scored.

    Args:
        prompt_text: The problem as the model that wrote the steps got it. A judge gets the same text, so that it
            matches what that model has in its cache.
    """

    def __init__(self, reward: MeteredReward, run: Run, prompt_text: str | None = None) -> None:
        super().__init__(f"{reward.capabilities.kind} reward model {reward.name}", run)
        self._reward = reward
        self._prompt_text = prompt_text if reward.capabilities.kind == "judge" else None
        self._last_step_odds: dict[tuple[str, tuple[str, ...]], float | None] = {}
        """Log-odds of the last step of a prefix; None if it could not be scored."""

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        problem = problem if self._prompt_text is None else self._prompt_text
        cleaned = [tuple(text for step in prefix if (text := step.strip())) for prefix in prefixes]
        if aggregate == "model":
            results = await self._step_scores(problem, [(as_one_step(steps),) for steps in cleaned], "last")
        elif self._reward.capabilities.one_pass and aggregate != "last":
            results = await self._step_scores(problem, cleaned, "all")
        else:
            return await self._score_last_steps(problem, cleaned, aggregate)
        return {
            i: scores.value(aggregate) if scores.ok else None for i, scores in enumerate(results) if scores is not None
        }

    async def _score_last_steps(
        self, problem: str, prefixes: Sequence[tuple[str, ...]], aggregate: Aggregation
    ) -> dict[int, float | None]:
        def parts(steps: tuple[str, ...]) -> list[tuple[str, ...]]:
            return [steps] if aggregate == "last" else [steps[:end] for end in range(1, len(steps) + 1)]

        odds = self._last_step_odds
        every = (part for steps in prefixes for part in parts(steps) if (problem, part) not in odds)
        missing = list({part: None async for part in paced(every)})
        for part, scores in zip(missing, await self._step_scores(problem, missing, "last"), strict=True):
            if scores is not None:
                odds[problem, part] = scores.log_odds[-1] if scores.ok else None
        values: dict[int, float | None] = {}
        async for i, steps in paced(enumerate(prefixes)):
            keys = [(problem, part) for part in parts(steps)]
            if all(key in odds for key in keys):
                known = tuple(x for key in keys if (x := odds[key]) is not None)
                values[i] = StepScores(log_odds=known).value(aggregate) if len(known) == len(keys) else None
        return values

    async def _step_scores(
        self, problem: str, solutions: Sequence[tuple[str, ...]], which: StepSelection
    ) -> list[StepScores | None]:
        """Scores of solutions; None for those that the budget does not cover."""
        if not solutions:
            return []
        count = num_affordable(self._reward, problem, solutions, which, self._run)
        try:
            results = await self._reward.score_steps(problem, solutions[:count], which)
        except BudgetExceeded as e:
            self._run.record_limit(e)
            self.budget_exhausted = True
            return [None] * len(solutions)
        paid = [None if was_over_budget(scores) else scores for scores in results]
        if len(results) < len(solutions) or None in paid:
            self._run.record_limit(exceeded_by_reward(self._run))
            self.budget_exhausted = True
        return [*paid, *([None] * (len(solutions) - len(results)))]


def num_affordable(
    reward: MeteredReward, problem: str, solutions: Sequence[tuple[str, ...]], which: StepSelection, run: Run
) -> int:
    """The number of solutions that the budget covers, at least 1: what else it lacks is raised by the request."""
    ledger, one_pass = run.ledger, reward.capabilities.one_pass

    def is_over_budget(count: int) -> bool:
        passes = count_passes(one_pass, solutions[:count], which)
        usd = 0.0 if run.config.budget.usd is None else reward.max_usd(problem, solutions[:count], which)
        return passes > ledger.remaining("reward_calls") or usd > ledger.remaining("usd")

    # the largest count that fits: both amounts grow with it
    return max(1, bisect_right(range(1, len(solutions) + 1), False, key=is_over_budget))


def exceeded_by_reward(run: Run) -> BudgetExceeded:
    """The limit that a reward model exceeded."""
    return run.ledger.exceeded("reward_calls" if run.config.budget.usd is None else "usd")


def was_over_budget(scores: StepScores) -> bool:
    """Whether a replay reports that the recorded run could not pay for this one."""
    return scores.failure is not None and scores.failure.code == BudgetExceeded.code


class ArithmeticStepReward(CachedStepReward):
    """Whether a step's calculations are right (see `check_arithmetic`): 0 if one is wrong, else 1.

    Steps that calculate nothing have no value and are skipped: "last" is the last step that does. A prefix without any
    gets `unknown`.

    Args:
        unknown: Score of a prefix that calculates nothing, in [0, 1]; None leaves it unscored.
    """

    def __init__(self, run: Run, *, unknown: float | None = 0.5) -> None:
        super().__init__("arithmetic, checked exactly", run)
        self._unknown = unknown
        self._checks: dict[str, ArithmeticCheck] = {}

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        return {i: self._value(prefix, aggregate) async for i, prefix in paced(enumerate(prefixes))}

    def _value(self, prefix: Sequence[str], aggregate: Aggregation) -> float | None:
        parts = ["\n".join(prefix)] if aggregate == "model" else list(prefix)
        values = [float(not check.wrong) for part in parts if (check := self._check(part)).share is not None]
        return aggregate_scores(values, aggregate) if values else self._unknown

    def _check(self, step: str) -> ArithmeticCheck:
        """The check of a step, which many prefixes have in common."""
        check = self._checks.get(step)
        if check is None:
            check = self._checks[step] = check_arithmetic(step)
        return check


class ProductStepReward:
    """The product of several step rewards, so that each can reject a step.

    If one cannot score, the others do; a prefix that none can score has no score.

    Args:
        rewards: At least two.
    """

    def __init__(self, rewards: Sequence[StepReward]) -> None:
        if len(rewards) < 2:
            raise UserError(f"a product needs at least two step rewards, got {len(rewards)}")
        self.name = " and ".join(reward.name for reward in rewards)
        self._rewards = tuple(rewards)

    @property
    def budget_exhausted(self) -> bool:
        """Whether a budget has kept one of them from scoring."""
        return any(reward.budget_exhausted for reward in self._rewards)

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        by_reward = [await reward.score(problem, prefixes, aggregate) for reward in self._rewards]
        return [_product(scores) for scores in zip(*by_reward, strict=True)]


def _product(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.prod(known) if known else None


RewardSource = Literal["reward", "judge", "arithmetic"]
REWARD_SOURCES: tuple[str, ...] = get_args(RewardSource)


class StepRewardConfig(Parameters):
    """Parameters of every strategy that scores steps."""

    score: Annotated[
        str,
        Field(description="source of step scores: auto, or reward, judge, arithmetic, joined by +"),
    ] = "auto"
    aggregate: Annotated[
        Aggregation, Field(description="aggregation of a prefix's step scores: last, min, prod, mean or model")
    ] = "last"

    @field_validator("score")
    @classmethod
    def _sources_exist(cls, score: str) -> str:
        unknown = [name for name in score.split("+") if name not in REWARD_SOURCES]
        if score != "auto" and unknown:
            raise ValueError(f"unknown source {unknown[0]!r}; use auto, or {', '.join(REWARD_SOURCES)}, joined by +")
        return score

    def create_step_reward(self, prompt: Prompt, models: Models, run: Run) -> StepReward | None:
        """The step reward of these parameters.

        "auto" is the reward model, if there is one; else the model that reasons judges its own steps.

        Returns:
            The step reward; None for "auto" if the model lacks the features for that.

        Raises:
            UserError: The parameters name the reward model, and there is none.
            CapabilityMissing: The model lacks a feature that a named source needs.
        """
        if self.score != "auto":
            names = list(dict.fromkeys(self.score.split("+")))
            rewards = [self._create(name, prompt, models, run, is_only=len(names) == 1) for name in names]
            return rewards[0] if len(rewards) == 1 else ProductStepReward(rewards)
        try:
            name = "reward" if models.has("reward") else "judge"
            return self._create(name, prompt, models, run, is_only=True)
        except CapabilityMissing:
            return None

    def _create(self, name: str, prompt: Prompt, models: Models, run: Run, *, is_only: bool) -> StepReward:
        if name in ("reward", "judge"):
            reward = models.reward if name == "reward" else models.self_judge()
            return ModelStepReward(reward, run, prompt.messages[-1].content)
        return ArithmeticStepReward(run) if is_only else ArithmeticStepReward(run, unknown=None)  # a neutral factor
