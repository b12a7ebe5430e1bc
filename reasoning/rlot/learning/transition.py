"""`Transition`: what one block did to a chain, as the learner sees it."""

from __future__ import annotations

from dataclasses import dataclass

from ..assessment import State
from ..blocks import Legal


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an episode.

    Attributes:
        state: The assessment before the block.
        action: The block that was chosen, 0 to 4.
        reward: What it earned.
        done: Whether the episode ended with it.
        next_state: The assessment after it; without meaning where the episode ended.
        next_legal: Which blocks may run after it; without meaning where the episode ended.
    """

    state: State
    action: int
    reward: float
    done: bool
    next_state: State
    next_legal: Legal
