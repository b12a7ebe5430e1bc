"""What chooses the next block: a trained navigator, a fixed sequence, the model itself, or chance.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; all but the first are its baselines. The one that
tries every block and keeps the best is in `greedy`.

`GreedyComparison`: every block is tried, and the one whose step the reward model likes best is gone on with.

Source: the one-step-greedy baseline of Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: the authors
do not say how its chains end; here the finish check and the limit of blocks end them.
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
from .block_runner import at_once
from .blocks import LETTERS, Block, Trajectory
from .episode import Episode
from .navigator import Navigator


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy wants to run.

    Attributes:
        actions: One action; several are tried side by side, and one of them is gone on with.
        q: What each action is thought to be worth; None where nothing is thought.
    """

    actions: tuple[int, ...]
    q: tuple[float, ...] | None = None


class Policy(Protocol):
    """Chooses blocks for one attempt at a problem.

    Attributes:
        assesses: Whether it looks at the model's self-assessment.
        asks: Whether it asks the model what to choose.
    """

    assesses: ClassVar[bool]
    asks: ClassVar[bool]

    async def choose(self, episode: Episode) -> Choice:
        """Choose for an episode that has not ended and may still run blocks.

        Raises:
            LimitExceeded: What it has to ask is not covered by the budget.
            BackendError: The model failed.
        """

    async def take(self, episode: Episode, choice: Choice) -> Block:
        """Run what was chosen (raises as `Episode.act`)."""


class OneBlock:
    """A policy that runs the one block it has chosen."""

    assesses: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    async def take(self, episode: Episode, choice: Choice) -> Block:
        """Run the block."""
        (action,) = choice.actions
        return await episode.act(action)


class Learned(OneBlock):
    """The legal block that a trained network thinks most of."""

    assesses: ClassVar[bool] = True

    def __init__(self, navigator: Navigator) -> None:
        self._navigator = navigator

    async def choose(self, episode: Episode) -> Choice:
        """By the network's values of the state."""
        q = self._navigator.q(episode.state)
        return Choice((self._navigator.choose(episode.state, episode.legal),), q)


class Fixed(OneBlock):
    """The same blocks for every problem; behind the last one the answer."""

    def __init__(self, sequence: Sequence[Block]) -> None:
        self._sequence = tuple(sequence)

    async def choose(self, episode: Episode) -> Choice:
        """The next of the sequence."""
        left = self._sequence[episode.ran :]
        return Choice((left[0] if left else Block.TERMINATE,))


class ByModel(OneBlock):
    """What the model itself chooses; Reason where its reply cannot be read."""

    asks: ClassVar[bool] = True

    async def choose(self, episode: Episode) -> Choice:
        """Ask it."""
        chosen = await episode.runner.choose_block(episode.trajectory, episode.legal)
        return Choice((Block.REASON if chosen is None else chosen,))


class Chance(OneBlock):
    """Any legal block, all equally likely; the run's seed decides."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def choose(self, episode: Episode) -> Choice:
        """Draw one, as a function of seed, attempt and place alone."""
        seed = self._run.derive_seed("rlot", episode.runner.sample_index, episode.ran)
        rng = random.Random(seed)  # noqa: S311 (a reproducible choice, no secret)
        return Choice((rng.choice([block for block in Block if episode.legal[block]]),))


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
        problem = question_text(question, question.text)
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
