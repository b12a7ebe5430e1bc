"""Policies that choose the next block: a trained navigator, or a baseline.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; all but the first are its baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from .blocks import Block
from .episode import Episode
from .navigator import Navigator


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """The choice of a policy.

    Attributes:
        action: The block.
        q: Value of each action; None without values.
    """

    action: int
    q: tuple[float, ...] | None = None


class Policy(Protocol):
    """Chooses blocks for one attempt at a problem.

    Attributes:
        needs_assessment: Whether it uses the model's self-assessment.
        calls_model: Whether choosing takes a model call.
    """

    needs_assessment: ClassVar[bool] = False
    calls_model: ClassVar[bool] = False

    async def choose(self, episode: Episode) -> BlockChoice:
        """Choose for an episode that may still run blocks.

        Raises:
            BudgetExceeded: The budget does not cover the call.
            BackendError: The model failed.
        """


class LearnedPolicy(Policy):
    """The legal block of the highest value by a trained network."""

    needs_assessment: ClassVar[bool] = True

    def __init__(self, navigator: Navigator) -> None:
        self._navigator = navigator

    async def choose(self, episode: Episode) -> BlockChoice:
        q = self._navigator.q(episode.state)
        return BlockChoice(self._navigator.choose(episode.state, episode.legal), q)


class FixedPolicy(Policy):
    """The same blocks for every problem, then the answer."""

    def __init__(self, sequence: Sequence[Block]) -> None:
        self._sequence = tuple(sequence)

    async def choose(self, episode: Episode) -> BlockChoice:
        remaining = self._sequence[episode.num_blocks :]
        return BlockChoice(remaining[0] if remaining else Block.TERMINATE)


class ModelPolicy(Policy):
    """The model's own choice; Reason if its completion cannot be parsed."""

    calls_model: ClassVar[bool] = True

    async def choose(self, episode: Episode) -> BlockChoice:
        chosen = await episode.runner.choose_block(episode.trajectory, episode.legal)
        return BlockChoice(Block.REASON if chosen is None else chosen)
