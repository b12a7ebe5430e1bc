"""`Workspace`: blocks, and passes of workers over them, on one model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..model import Decoder
from .block import Block
from .shared_plan import Feed, SharedPlan

CHUNK = 256
"""Tokens of a text that are computed together, where it is read before the workers begin."""


class Workspace:
    """What workers share.

    Lives on one thread. Every key and value that is in it is there once, however many workers read it.

    Args:
        decoder: Computes.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._blocks: list[Block] = []

    @property
    def blocks(self) -> Sequence[Block]:
        """All blocks, in the order in which they were opened."""
        return tuple(self._blocks)

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values are here."""
        return sum(map(len, self._blocks))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(block.nbytes for block in self._blocks)

    def open(self, ids: Sequence[int] = ()) -> Block:
        """A new block; with tokens, it is read from its own beginning, as if nothing stood before it."""
        block = self._decoder.open_block(len(ids))
        self._blocks.append(block)
        for start in range(0, len(ids), CHUNK):
            self._compute([Feed((block,), ids[start : start + CHUNK])], [])
        return block

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        """One pass.

        Args:
            feeds: What each worker reads; those that are not named stand still.

        Returns:
            Logits of what follows the last token of each, `[feeds, vocab]`, fp32.

        Raises:
            ValueError: The feeds do not go together (see `SharedPlan`).
        """
        last: list[int] = []
        rows = 0
        for feed in feeds:
            rows += len(feed.ids)
            last.append(rows - 1)
        return self._compute(feeds, last)

    def move(self, finished: Block, history: Block) -> None:
        """Put what a block holds behind what another one holds, and leave it empty."""
        history.absorb(finished, self._decoder.rotary)

    def clear(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()

    def _compute(self, feeds: Sequence[Feed], wanted: Sequence[int]) -> Tensor:
        plan = SharedPlan(self._decoder.shape, self._decoder.rotary, feeds, self._decoder.device)
        return self._decoder.compute([i for feed in feeds for i in feed.ids], plan, wanted)
