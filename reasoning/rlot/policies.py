"""What chooses the next block: a trained navigator, a fixed sequence, the model itself, or chance.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; all but the first are its baselines. The one that
tries every block and keeps the best is in `greedy`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ...core.run import Run
from .blocks import Block
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
