"""The five logic blocks that a chain of thought is put together from, and which of them may come next.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: the authors' program runs another block in
the place of one that may not run, which the learned values never hear of. Here such blocks are masked by default;
`"substitute"` is their way.

`Trajectory`: a problem and the steps written for it so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal, TypeAlias

from ...core.errors import UserError
from ...core.types import Question

MaskMode = Literal["mask", "substitute"]
Legal: TypeAlias = tuple[bool, bool, bool, bool, bool]
"""Which blocks may run next, by their numbers."""


class Block(IntEnum):
    """A way to go on; the numbers are those of the authors' actions."""

    REASON = 0
    DECOMPOSE = 1
    DEBATE = 2
    REFINE = 3
    TERMINATE = 4


LETTERS: Final[tuple[str, ...]] = ("R", "D", "Db", "Rf", "Ga")
"""Short name of each block, by number."""
NAMES: Final[tuple[str, ...]] = ("reason", "decompose", "debate", "refine", "terminate")
"""Name of each block, by number."""


def legal(ran: int, max_blocks: int, mode: MaskMode) -> Legal:
    """Which blocks may run next.

    Args:
        ran: Blocks that ran so far.
        max_blocks: Most that may run before the answer; at least 1.
        mode: "mask": no Refine first, as there is nothing to refine, and after `max_blocks` blocks Terminate alone.
            "substitute": everything may be chosen, and `effective` says what runs.

    Raises:
        UserError: One of the numbers is impossible.
    """
    _check(ran, max_blocks)
    if mode == "substitute":
        return (True, True, True, True, True)
    more = ran < max_blocks
    return (more, more, more, more and ran > 0, True)


def effective(action: int, ran: int, max_blocks: int) -> Block:
    """The block that runs when an action is chosen under "substitute": Reason for a first Refine, Terminate at the end.

    Args:
        action: Number of a block.
        ran: Blocks that ran so far.
        max_blocks: Most that may run before the answer; at least 1.

    Raises:
        UserError: There is no such action, or one of the numbers is impossible.
    """
    _check(ran, max_blocks)
    try:
        block = Block(action)
    except ValueError as e:
        raise UserError(f"there is no block {action}", hint="blocks have the numbers 0 to 4") from e
    if ran >= max_blocks:
        return Block.TERMINATE
    if block is Block.REFINE and ran == 0:
        return Block.REASON
    return block


def best_legal(values: Sequence[float], legal: Sequence[bool]) -> int:
    """The legal action of the highest value; among equals that of the lowest number.

    Args:
        values: A value for each action.
        legal: Whether each may be taken.

    Raises:
        UserError: None may be taken, or the two do not have one entry for each block.
    """
    if len(values) != len(Block) or len(legal) != len(Block):
        raise UserError(
            f"{len(values)} values and {len(legal)} marks of what is legal", hint=f"give {len(Block)} of each"
        )
    if not any(legal):
        raise UserError("no block may run", hint="Terminate always may; reason.reasoning.rlot.blocks.legal says which")
    return max((action for action in range(len(Block)) if legal[action]), key=lambda action: values[action])


def _check(ran: int, max_blocks: int) -> None:
    if max_blocks < 1 or ran < 0:
        raise UserError(
            f"{ran} blocks of at most {max_blocks} cannot have run", hint="max_blocks is at least 1, ran at least 0"
        )


RefineMode = Literal["append", "replace"]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A problem and its steps. All that a block's prompt is made of besides fixed words.

    Attributes:
        question: The problem.
        steps: The steps, in order, without numbers.
    """

    question: Question
    steps: tuple[str, ...] = ()

    def with_step(self, text: str) -> Trajectory:
        """The trajectory with one more step; a blank one adds nothing."""
        return replace(self, steps=(*self.steps, text.strip())) if text.strip() else self

    def with_last(self, text: str) -> Trajectory:
        """The trajectory with another last step; a blank one changes nothing."""
        return replace(self, steps=(*self.steps[:-1], text.strip())) if text.strip() and self.steps else self

    @property
    def written(self) -> str:
        """The numbered steps, with a blank line between them; empty without any."""
        return "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(self.steps, 1))
