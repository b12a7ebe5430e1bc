"""Policies that choose the next block: a trained navigator, or a baseline.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; all but the first are its baselines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

from pydantic import JsonValue

from ...core.errors import ReasonError
from ...core.events import StrategyNote
from ...core.run import Run
from ...serving.metered.scorers import MeteredReward
from ...serving.rewards.model import sigmoid
from ..prompts import question_text
from .block_runner import run_concurrently
from .blocks import LETTERS, Block, Trajectory
from .episode import Episode
from .navigator import Navigator


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """The choice of a policy.

    Attributes:
        actions: One action; several are all tried, and one of them is kept.
        q: Value of each action; None without values.
    """

    actions: tuple[int, ...]
    q: tuple[float, ...] | None = None


class Policy(Protocol):
    """Chooses blocks for one attempt at a problem.

    Attributes:
        needs_assessment: Whether it uses the model's self-assessment.
        calls_model: Whether choosing takes a model call.
    """

    needs_assessment: ClassVar[bool]
    calls_model: ClassVar[bool]

    async def choose(self, episode: Episode) -> BlockChoice:
        """Choose for an episode that may still run blocks.

        Raises:
            BudgetExceeded: The budget does not cover the call.
            BackendError: The model failed.
        """

    async def take(self, episode: Episode, choice: BlockChoice) -> Block:
        """Run the choice (raises as `Episode.act`)."""


class SingleBlockPolicy:
    """A policy that runs the one block it has chosen."""

    needs_assessment: ClassVar[bool] = False
    calls_model: ClassVar[bool] = False

    async def take(self, episode: Episode, choice: BlockChoice) -> Block:
        (action,) = choice.actions
        return await episode.act(action)


class LearnedPolicy(SingleBlockPolicy):
    """The legal block of the highest value by a trained network."""

    needs_assessment: ClassVar[bool] = True

    def __init__(self, navigator: Navigator) -> None:
        self._navigator = navigator

    async def choose(self, episode: Episode) -> BlockChoice:
        q = self._navigator.q(episode.state)
        return BlockChoice((self._navigator.choose(episode.state, episode.legal),), q)


class FixedPolicy(SingleBlockPolicy):
    """The same blocks for every problem, then the answer."""

    def __init__(self, sequence: Sequence[Block]) -> None:
        self._sequence = tuple(sequence)

    async def choose(self, episode: Episode) -> BlockChoice:
        remaining = self._sequence[episode.num_blocks :]
        return BlockChoice((remaining[0] if remaining else Block.TERMINATE,))


class ModelPolicy(SingleBlockPolicy):
    """The model's own choice; Reason if its completion cannot be parsed."""

    calls_model: ClassVar[bool] = True

    async def choose(self, episode: Episode) -> BlockChoice:
        chosen = await episode.runner.choose_block(episode.trajectory, episode.legal)
        return BlockChoice((Block.REASON if chosen is None else chosen,))


class RandomPolicy(SingleBlockPolicy):
    """A uniformly random legal block, by the run's seed."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def choose(self, episode: Episode) -> BlockChoice:
        """A function of seed, attempt and position only."""
        seed = self._run.derive_seed("rlot", episode.runner.sample_index, episode.num_blocks)
        rng = random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
        return BlockChoice((rng.choice([block for block in Block if episode.legal[block]]),))


class RewardGreedyPolicy:
    """Runs every legal block and keeps the step that the reward model scores highest.

    Source: the one-step-greedy baseline of the paper. Differs: the authors do not say how its chains end; here the
    finish check and the limit of blocks end them.
    """

    needs_assessment: ClassVar[bool] = False
    calls_model: ClassVar[bool] = False

    def __init__(self, reward: MeteredReward, run: Run) -> None:
        self._reward, self._run = reward, run

    async def choose(self, episode: Episode) -> BlockChoice:
        """All legal blocks but Terminate."""
        blocks = (episode.effective_block(block) for block in Block if episode.legal[block])
        return BlockChoice(tuple(dict.fromkeys(block for block in blocks if block is not Block.TERMINATE)))

    async def take(self, episode: Episode, choice: BlockChoice) -> Block:
        """Run them all, score the results, and keep the best; ties go to the lowest number.

        A block that fails or writes nothing is ignored.

        Raises:
            BudgetExceeded: The budget covers none of them, or not their scores.
            BackendError: All of them failed, or the reward model.
        """
        start, runner = episode.trajectory, episode.runner
        blocks = [Block(action) for action in choice.actions]
        results = await run_concurrently([partial(runner.run, block, start) for block in blocks], self._run)
        trajectories: dict[Block, Trajectory] = {}
        for block, result in zip(blocks, results, strict=True):
            if isinstance(result, Trajectory):
                trajectories[block] = result
        if not trajectories:
            raise next(result for result in results if isinstance(result, ReasonError))
        changed = {block: result for block, result in trajectories.items() if result != start}
        best = await self._best(changed) if changed else next(iter(trajectories))
        await episode.advance(best, trajectories[best])
        return best

    async def _best(self, trajectories: dict[Block, Trajectory]) -> Block:
        blocks = list(trajectories)
        question = trajectories[blocks[0]].question
        problem = question_text(question, question.text)
        scores = await self._reward.score_steps(problem, [trajectories[block].steps for block in blocks], "last")
        odds = [score.log_odds[-1] if score.ok else -math.inf for score in scores]
        best = blocks[max(range(len(blocks)), key=lambda i: (odds[i], -i))]
        data: dict[str, JsonValue] = {
            LETTERS[block]: round(sigmoid(x), 4) if x > -math.inf else None
            for block, x in zip(blocks, odds, strict=True)
        }
        event: dict[str, JsonValue] = {"rewards": data, "chosen": LETTERS[best]}
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="blocks.scored", data=event))
        return best
