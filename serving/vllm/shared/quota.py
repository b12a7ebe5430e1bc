"""`Quota`: memory for the keys and values that groups of workers keep beside vLLM's own cache.

It is counted where groups are led, from what their workers read: an error in the engine's processes would end the
engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...local.prefixes import OutOfCache
from ...local.shared.block import first_capacity, grown


@dataclass(frozen=True)
class Extent:
    """A block's size.

    Attributes:
        tokens: Tokens in it.
        columns: Columns that there is room for.
    """

    tokens: int
    columns: int

    @classmethod
    def of(cls, tokens: int) -> Extent:
        """That of a new block."""
        return cls(tokens, first_capacity(tokens))

    def with_more(self, tokens: int) -> Extent:
        """That of the block once it holds so many more; they come at once."""
        return Extent(self.tokens + tokens, grown(self.columns, self.tokens + tokens))

    def emptied(self) -> Extent:
        """That of the block without its tokens."""
        return replace(self, tokens=0)


@dataclass(frozen=True)
class Extents:
    """Sizes of a group's blocks, as `Groups` makes them in each process of the engine.

    Attributes:
        history: The prompt, and what was moved behind it.
        headers: The two headers.
        steps: What each worker has written and was not moved.
    """

    history: Extent
    headers: tuple[Extent, Extent]
    steps: tuple[Extent, ...]

    @classmethod
    def of(cls, prompt: int, others: int, own: int, workers: int) -> Extents:
        """Those of a new group, by the tokens of its prompt and headers."""
        headers = Extent.of(others), Extent.of(own)
        return cls(Extent.of(prompt), headers, tuple(Extent.of(0) for _ in range(workers)))

    @property
    def columns(self) -> int:
        """Columns of all blocks."""
        return sum(extent.columns for extent in (self.history, *self.headers, *self.steps))

    def after(self, read: Sequence[int], moves: Sequence[int]) -> Extents:
        """Those behind a pass.

        Args:
            read: Tokens that each worker reads.
            moves: Workers whose text joins the history before it, in this order.
        """
        history, steps = self.history, list(self.steps)
        for worker in moves:
            history, steps[worker] = history.with_more(steps[worker].tokens), steps[worker].emptied()
        return replace(self, history=history, steps=tuple(s.with_more(n) for s, n in zip(steps, read, strict=True)))


class Quota:
    """Columns that are handed out to groups.

    Args:
        most: Bytes that all groups may take in a process of the engine.
        column: Bytes of a column there.
    """

    def __init__(self, most: int, column: int) -> None:
        self._most, self._column = most, column
        self._taken = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are taken."""
        return self._taken * self._column

    def take(self, columns: int) -> None:
        """Take columns.

        Raises:
            OutOfCache: There are not so many.
        """
        wanted = (self._taken + columns) * self._column
        if wanted > self._most:
            raise OutOfCache(
                f"workers on one cache would keep {wanted:,} bytes of keys and values beside vLLM's own; they may keep "
                f"{self._most:,}",
                hint="fewer or shorter workers at a time, or a greater setting vllm.shared_bytes",
            )
        self._taken += columns

    def give_back(self, columns: int) -> None:
        """Give back what was taken."""
        self._taken -= columns


def column_bytes(vllm_config: Any) -> int:
    """Bytes of a token's keys and values in all layers that one process of the engine has, the most of them.

    Args:
        vllm_config: The engine's `VllmConfig`.
    """
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    layers = -(-model.get_total_num_hidden_layers() // parallel.pipeline_parallel_size)
    return int(2 * layers * model.get_num_kv_heads(parallel) * model.get_head_size() * model.dtype.itemsize)
