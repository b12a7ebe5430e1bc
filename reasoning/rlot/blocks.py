"""The five logic blocks that form a chain of thought, which of them may come next, and `Trajectory`, the chain so far.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: the authors' program runs another block in
place of an illegal one, which the learned values do not account for. Here illegal blocks are masked; with
`parity="reference"` they are replaced as in that program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal, TypeAlias

from ...core.errors import UserError
from ...core.types import Question

Parity = Literal["none", "reference"]
Legal: TypeAlias = tuple[bool, bool, bool, bool, bool]
"""Whether each block may run next, by number."""


class Block(IntEnum):
    """A logic block; the numbers are the authors' action ids."""

    REASON = 0
    DECOMPOSE = 1
    DEBATE = 2
    REFINE = 3
    TERMINATE = 4


LETTERS: Final[tuple[str, ...]] = ("R", "D", "Db", "Rf", "Ga")
"""Short name of each block, by number."""
NAMES: Final[tuple[str, ...]] = ("reason", "decompose", "debate", "refine", "terminate")
"""Name of each block, by number."""


def legal_blocks(num_blocks: int, max_blocks: int, parity: Parity = "none") -> Legal:
    """Which blocks may run next.

    Args:
        num_blocks: Blocks run so far.
        max_blocks: Maximum blocks before the answer, at least 1.
        parity: "none": no Refine first, since there is nothing to refine, and only Terminate after `max_blocks` blocks.
            "reference": everything may be chosen, and `effective_block` replaces it.

    Raises:
        UserError: An argument is out of range.
    """
    _check(num_blocks, max_blocks)
    if parity == "reference":
        return (True, True, True, True, True)
    has_more = num_blocks < max_blocks
    return (has_more, has_more, has_more, has_more and num_blocks > 0, True)


def effective_block(action: int, num_blocks: int, max_blocks: int) -> Block:
    """The block that runs for an action: Reason for a first Refine, Terminate after `max_blocks` blocks.

    Raises:
        UserError: There is no such action, or an argument is out of range.
    """
    _check(num_blocks, max_blocks)
    try:
        block = Block(action)
    except ValueError as e:
        raise UserError(f"there is no block {action}", hint="blocks are numbered 0 to 4") from e
    if num_blocks >= max_blocks:
        return Block.TERMINATE
    if block is Block.REFINE and num_blocks == 0:
        return Block.REASON
    return block


def best_legal(values: Sequence[float], legal: Sequence[bool]) -> int:
    """The legal action of the highest value; ties go to the lowest number.

    Raises:
        UserError: None is legal, or the lengths are wrong.
    """
    if len(values) != len(Block) or len(legal) != len(Block):
        raise UserError(
            f"expected {len(Block)} values and legality flags, got {len(values)} and {len(legal)}",
            hint=f"give {len(Block)} of each",
        )
    if not any(legal):
        raise UserError("no block is legal", hint="Terminate always is; see reason.reasoning.rlot.blocks.legal_blocks")
    return max((action for action in range(len(Block)) if legal[action]), key=lambda action: values[action])


def _check(num_blocks: int, max_blocks: int) -> None:
    if max_blocks < 1 or num_blocks < 0:
        raise UserError(
            f"num_blocks {num_blocks} or max_blocks {max_blocks} is out of range",
            hint="max_blocks is at least 1, num_blocks at least 0",
        )


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A problem and its steps, without numbers: everything in a block's prompt but fixed text."""

    question: Question
    steps: tuple[str, ...] = ()

    def with_step(self, text: str) -> Trajectory:
        """The trajectory with one more step; a blank step is ignored."""
        return replace(self, steps=(*self.steps, text.strip())) if text.strip() else self

    @property
    def written(self) -> str:
        """The numbered steps, separated by blank lines."""
        return "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(self.steps, 1))
