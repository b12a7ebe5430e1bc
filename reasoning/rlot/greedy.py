"""`Greedy`: every block is tried, and the one whose step the reward model likes best is gone on with.

Source: the one-step-greedy baseline of Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: the authors
do not say how its chains end; here the finish check and the limit of blocks end them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

from pydantic import JsonValue

from ...core.errors import ReasonError
from ...core.events import StrategyNote
from ...core.run import Run
from ...serving.metered_rewards import MeteredReward
from ...serving.rewards import sigmoid
from ..prompts import as_problem
from .affording import at_once
from .blocks import LETTERS, Block
from .episode import Episode
from .policies import Choice
from .trajectory import Trajectory


class Greedy:
    """One step ahead by a reward model.

    Args:
        reward: Scores the last step of what each block has led to.
        run: The run.
    """

    assesses: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    def __init__(self, reward: MeteredReward, run: Run) -> None:
        self._reward, self._run = reward, run

    async def choose(self, episode: Episode) -> Choice:
        """All legal blocks but Terminate."""
        wanted = (episode.would_run(block) for block in Block if episode.legal[block])
        return Choice(tuple(dict.fromkeys(block for block in wanted if block is not Block.TERMINATE)))

    async def take(self, episode: Episode, choice: Choice) -> Block:
        """Run them all, score what came of them, and go on with the best; of equals with the lowest number.

        A block that fails, or writes nothing, is out.

        Raises:
            LimitExceeded: The budget covered none of them, or not their scores.
            BackendError: All of them failed, or the reward model.
        """
        start, runner = episode.trajectory, episode.runner
        blocks = [Block(action) for action in choice.actions]
        came = await at_once([partial(runner.run, block, start) for block in blocks], self._run)
        reached: dict[Block, Trajectory] = {}
        for block, result in zip(blocks, came, strict=True):
            if isinstance(result, Trajectory):
                reached[block] = result
        if not reached:
            raise next(result for result in came if isinstance(result, ReasonError))
        written = {block: result for block, result in reached.items() if result != start}
        best = await self._best(written) if written else next(iter(reached))
        await episode.enter(best, reached[best])
        return best

    async def _best(self, reached: dict[Block, Trajectory]) -> Block:
        blocks = list(reached)
        question = reached[blocks[0]].question
        problem = as_problem(question, question.text)
        scores = await self._reward.score_steps(problem, [reached[block].steps for block in blocks], "last")
        odds = [found.log_odds[-1] if found.ok else -math.inf for found in scores]
        best = blocks[max(range(len(blocks)), key=lambda i: (odds[i], -i))]
        data: dict[str, JsonValue] = {
            LETTERS[block]: round(sigmoid(x), 4) if x > -math.inf else None
            for block, x in zip(blocks, odds, strict=True)
        }
        note: dict[str, JsonValue] = {"rewards": data, "chosen": LETTERS[best]}
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="blocks.scored", data=note))
        return best
