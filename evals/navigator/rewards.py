"""What a block earns: by a process reward model, by the outcome, or by a potential that leaves the best policy be.

| reward | a block that the chain goes on after | the block that ends it |
| --- | --- | --- |
| `prm` | the reward model's probability that the last step is right | 1 if the answer is right, else 0 |
| `outcome` | 0 | likewise |
| `potential` | gamma * Phi(s') - Phi(s) | 1 if the answer is right, else 0, less Phi(s) |

Phi is the probability that `prm` pays, 0 for the bare problem and behind the end. Over an episode of T blocks the
discounted rewards of `potential` sum to gamma^(T-1) if the answer is right and to 0 if not: what is discounted is the
outcome and nothing else.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for `prm`; Ng, Harada, Russell 1999, "Policy
invariance under reward transformations", theorem 1, for `potential`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.run import Run
from ...reasoning.process_rewards import ByRewardModel
from ...reasoning.prompts import as_problem
from ...reasoning.rlot.trajectory import Trajectory
from ...serving.metered_rewards import MeteredReward
from .plan import RewardKind


class Rewards:
    """The rewards of one episode, in order.

    Args:
        kind: Which.
        gamma: Discount of later rewards, in [0, 1]; `potential` needs it.
        model: The reward model; None where the kind needs none.
        run: The run that pays.

    Attributes:
        unscored: Blocks whose step the reward model could not score, not even alone; they count as 0.
    """

    def __init__(self, kind: RewardKind, gamma: float, model: MeteredReward | None, run: Run) -> None:
        self.unscored = 0
        self._kind = kind
        self._gamma = gamma
        self._scores = None if model is None or kind == "outcome" else ByRewardModel(model, run)
        self._phi = 0.0

    async def going_on(self, trajectory: Trajectory) -> float:
        """What the block earns that led to this trajectory, from which the episode goes on.

        Returns:
            In [0, 1], and with `potential` in [-1, 1].

        Raises:
            BackendError: The reward model failed.
        """
        if self._scores is None:
            return 0.0
        before, self._phi = self._phi, await self._score(trajectory)
        return self._phi if self._kind == "prm" else self._gamma * self._phi - before

    def ending(self, *, correct: bool) -> float:
        """What the block earns with which the episode ends: 1 or 0, and with `potential` that less Phi(s)."""
        outcome = 1.0 if correct else 0.0
        if self._kind != "potential":
            return outcome
        before, self._phi = self._phi, 0.0
        return outcome - before

    async def _score(self, trajectory: Trajectory) -> float:
        """The reward model's probability of the last step; where the steps are too long for it, without the oldest."""
        if self._scores is None or not trajectory.steps:
            return 0.0
        problem = as_problem(trajectory.question)
        for first in range(len(trajectory.steps)):
            (score,) = await self._scores.score(problem, [trajectory.steps[first:]], "last")
            if score is not None:
                return score
        self.unscored += 1
        return 0.0


def discounted(rewards: Sequence[float], gamma: float) -> float:
    """The sum of gamma^t r_t, from the first reward on."""
    total = 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
    return total
