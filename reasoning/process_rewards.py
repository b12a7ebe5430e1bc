"""Scores of prefixes by a reward model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from ..core.errors import LimitExceeded
from ..core.run import Run
from ..serving.metered_rewards import MeteredReward
from ..serving.rewards import Aggregation, StepScores, Which, as_one_step, count_passes
from .step_rewards import Remembering

Steps = tuple[str, ...]


class ByRewardModel(Remembering):
    """A reward model's opinion of the steps: trained on steps or outcomes, or a judge.

    A model that takes a pass for each step is asked about the last step of each prefix alone, and what an aggregation
    needs of the steps before is what it said of those prefixes; so every prefix takes one pass, whatever the
    aggregation. Where the budget does not cover all, the first ones are scored.

    Args:
        reward: The reward model.
        run: The run that pays.
        asked: The problem as it was put to the model that wrote the steps. A judge is told it so, for then it reads
            what that model has in its cache.
    """

    def __init__(self, reward: MeteredReward, run: Run, asked: str | None = None) -> None:
        super().__init__(f"{reward.capabilities.kind} reward model {reward.name}", run)
        self._reward = reward
        self._asked = asked if reward.capabilities.kind == "judge" else None
        self._told: dict[tuple[str, Steps], float | None] = {}
        """Log-odds of the last step of a prefix; None where it could not be had."""

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        problem = problem if self._asked is None else self._asked
        cleaned = [tuple(text for step in prefix if (text := step.strip())) for prefix in prefixes]
        if aggregate == "model":
            made = await self._made(problem, [(as_one_step(steps),) for steps in cleaned], "last")
        elif self._reward.capabilities.one_pass and aggregate != "last":
            made = await self._made(problem, cleaned, "all")
        else:
            return await self._by_last_steps(problem, cleaned, aggregate)
        return {
            i: scores.value(aggregate) if scores.ok else None for i, scores in enumerate(made) if scores is not None
        }

    async def _by_last_steps(
        self, problem: str, prefixes: Sequence[Steps], aggregate: Aggregation
    ) -> dict[int, float | None]:
        def parts(steps: Steps) -> list[Steps]:
            return [steps] if aggregate == "last" else [steps[:end] for end in range(1, len(steps) + 1)]

        wanted = list(dict.fromkeys(p for steps in prefixes for p in parts(steps) if (problem, p) not in self._told))
        for part, scores in zip(wanted, await self._made(problem, wanted, "last"), strict=True):
            if scores is not None:
                self._told[problem, part] = scores.log_odds[-1] if scores.ok else None
        found: dict[int, float | None] = {}
        for i, steps in enumerate(prefixes):
            needed = [(problem, part) for part in parts(steps)]
            if all(key in self._told for key in needed):
                odds = [self._told[key] for key in needed]
                known = tuple(x for x in odds if x is not None)
                found[i] = StepScores(log_odds=known).value(aggregate) if len(known) == len(odds) else None
        return found

    async def _made(self, problem: str, solutions: Sequence[Steps], which: Which) -> list[StepScores | None]:
        """Scores of solutions; None for those that the budget does not cover."""
        if not solutions:
            return []
        one_pass, ledger = self._reward.capabilities.one_pass, self._run.ledger

        def too_dear(count: int) -> bool:
            passes = count_passes(one_pass, solutions[:count], which)
            limited = self._run.config.budget.usd is not None
            usd = self._reward.most_usd(problem, solutions[:count], which) if limited else 0.0
            return passes > ledger.left("reward_calls") or usd > ledger.left("usd")

        # the most that fit: both amounts grow with the count
        count = bisect_right(range(1, len(solutions) + 1), False, key=too_dear)
        try:
            told = await self._reward.score_steps(problem, solutions[: max(1, count)], which)
        except LimitExceeded as e:
            self._run.note_limit(e)
            self.spent = True
            return [None] * len(solutions)
        paid = [None if _unpaid(scores) else scores for scores in told]
        self.passes += sum(scores.passes for scores in paid if scores is not None and scores.ok)
        if len(told) < len(solutions) or None in paid:
            self._run.note_limit(ledger.refuse("reward_calls" if self._run.config.budget.usd is None else "usd"))
            self.spent = True
        return [*paid, *([None] * (len(solutions) - len(told)))]


def _unpaid(scores: StepScores) -> bool:
    """Whether a replay tells that the recorded run could not pay for this one."""
    return scores.failure is not None and scores.failure.code == LimitExceeded.code
