"""`KVLog`: keys and values of one tree of sequences, in the order in which they were written.

A column holds the key and value of one token, in every layer. It is written once. Which columns a sequence sees is
data: a list of columns and a row of an additive mask. So a fork copies a list, never a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .weights import PROCESSOR

MIN_CAPACITY = 64
"""Columns of the smallest log."""
LANES = 32
"""Attention reads columns in groups of this many. Its kernel takes the columns of a last, smaller group by other
instructions, whose results differ in their last bits: with whole groups a sequence's numbers do not depend on how many
columns happen to stand behind it. Vector units take 16 at a time, the tiles of AMX 32."""


def whole_lanes(columns: int) -> int:
    """The number of columns, rounded up to whole groups."""
    return -(-columns // LANES) * LANES


class Branch:
    """A sequence's view of a log.

    Attributes:
        columns: The columns it sees, in order of position. Its next token stands at position `len(columns)`.
        slot: Its row of the log's mask.
    """

    __slots__ = ("columns", "slot")

    def __init__(self, columns: list[int], slot: int) -> None:
        self.columns = columns
        self.slot = slot

    def __len__(self) -> int:
        return len(self.columns)


class KVLog:
    """Append-only store of keys (rotated at their absolute position) and values.

    Args:
        layers: Number of layers.
        kv_heads: Key/value heads.
        head_dim: Width of a head.
        dtype: Number format.
        capacity: Columns to make room for at first.
        device: Where keys and values lie. The mask is bookkeeping, and stays with the CPU until a step needs it.

    Attributes:
        dtype: As given.
        device: As given.
        kv: Per layer `[2, kv_heads, columns, head_dim]`: keys, then values; `whole_lanes(capacity)` columns, zero where
            nothing was written.
        used: Columns written or reserved so far.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        capacity: int,
        device: torch.device = PROCESSOR,
    ) -> None:
        self._shape = (kv_heads, head_dim)
        self._capacity = max(capacity, MIN_CAPACITY)
        self.dtype, self.device = dtype, device
        wide = whole_lanes(self._capacity)
        self.kv = [torch.zeros(2, kv_heads, wide, head_dim, dtype=dtype, device=device) for _ in range(layers)]
        self.used = 0
        self._branches: dict[int, Branch] = {}
        self._bias = torch.full((4, wide), float("-inf"), dtype=dtype)

    @property
    def capacity(self) -> int:
        """Columns there is room for."""
        return self._capacity

    @property
    def branches(self) -> Sequence[Branch]:
        """Sequences that are under way."""
        return tuple(self._branches.values())

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return len(self.kv) * self.kv[0].nbytes if self.kv else 0

    def close(self) -> None:
        """Free keys and values: nothing can be written or seen afterwards. Idempotent."""
        self.kv.clear()

    def open(self, columns: Iterable[int] = ()) -> Branch:
        """Begin a sequence that sees the given columns, in order of position."""
        seen = list(columns)
        slot = next(s for s in range(len(self._branches) + 1) if s not in self._branches)
        if slot >= self._bias.shape[0]:
            more = torch.full_like(self._bias, float("-inf"))
            self._bias = torch.cat([self._bias, more])
        self._bias[slot] = float("-inf")
        self._bias[slot, seen] = 0
        branch = Branch(seen, slot)
        self._branches[slot] = branch
        return branch

    def fork(self, branch: Branch) -> Branch:
        """Begin a sequence that sees what `branch` sees. No key or value is touched."""
        return self.open(branch.columns)

    def release(self, branch: Branch) -> None:
        """End a sequence; idempotent. Its columns stay until `compact`."""
        if self._branches.get(branch.slot) is branch:
            del self._branches[branch.slot]

    def missing(self, count: int) -> int:
        """Columns that the log would have to grow to in order to take `count` more; 0 if there is room."""
        wanted = self.used + count
        return 0 if wanted <= self._capacity else max(2 * self._capacity, wanted)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` columns in all; fewer than before gives memory back."""
        kv_heads, head_dim = self._shape
        wide = whole_lanes(capacity)
        for i, old in enumerate(self.kv):
            new = torch.zeros(2, kv_heads, wide, head_dim, dtype=self.dtype, device=self.device)
            new[:, :, : self.used] = old[:, :, : self.used]
            self.kv[i] = new
        bias = torch.full((self._bias.shape[0], wide), float("-inf"), dtype=self.dtype)
        bias[:, : self.used] = self._bias[:, : self.used]
        self._bias, self._capacity = bias, capacity

    def reserve(self, count: int) -> range:
        """Take the next `count` columns; there must be room (`missing`, `grow`). They are seen by no sequence yet."""
        first = self.used
        if first + count > self._capacity:
            raise IndexError(f"{count} columns do not fit: {first} of {self._capacity} are used")
        self.used += count
        return range(first, self.used)

    def settle(self, count: int, kept: Sequence[int]) -> range:
        """Of the last `count` columns, which no sequence sees, keep some and take the others back.

        Args:
            count: Columns at the end that are looked at.
            kept: Those of them that stay, ascending.

        Returns:
            Their new places, in the same order.
        """
        start = self.used - count
        self.used = start + len(kept)
        target = range(start, self.used)
        if list(target) != list(kept):
            index = torch.tensor(list(kept), dtype=torch.long, device=self.device)
            for kv in self.kv:
                kv[:, :, start : self.used] = kv[:, :, index]
        return target

    def show(self, branch: Branch, columns: Sequence[int]) -> None:
        """Let a sequence see further columns, as its next positions."""
        branch.columns.extend(columns)
        self._bias[branch.slot, columns[0] : columns[-1] + 1] = 0

    def show_each(self, branches: Sequence[Branch], columns: range) -> None:
        """Let the i-th sequence see the i-th column: one decode step."""
        for branch, column in zip(branches, columns, strict=True):
            branch.columns.append(column)
        self._bias[[b.slot for b in branches], list(columns)] = 0

    def bias(self, branches: Sequence[Branch], width: int) -> Tensor:
        """Additive mask `[sequences, width]` of the first `width` columns: 0 where seen, else minus infinity.

        It lies in the CPU's memory.
        """
        return self._bias[[b.slot for b in branches], :width]

    def sees_all(self, branch: Branch) -> bool:
        """Whether nothing in the log is hidden from the sequence."""
        return len(branch.columns) == self.used

    def live(self, kept: Iterable[int] = ()) -> list[int]:
        """Columns that a sequence sees or that are in `kept`, ascending."""
        seen = set(kept)
        for branch in self._branches.values():
            seen.update(branch.columns)
        return sorted(seen)

    def compact(self, kept: Iterable[int] = ()) -> dict[int, int]:
        """Drop every column that no sequence sees and that is not in `kept`.

        Returns:
            The new place of each column that stays.
        """
        stay = self.live(kept)
        index = torch.tensor(stay, dtype=torch.long, device=self.device)
        for kv in self.kv:
            kv[:, :, : len(stay)] = kv[:, :, index]
        moved = {old: new for new, old in enumerate(stay)}
        self.used = len(stay)
        self._bias.fill_(float("-inf"))
        for branch in self._branches.values():
            branch.columns[:] = [moved[c] for c in branch.columns]
            self._bias[branch.slot, branch.columns] = 0
        return moved

    def copy_from(self, other: KVLog, columns: Sequence[int]) -> range:
        """Append copies of another log's columns; for a sequence that leaves a tree it shares little with."""
        target = self.reserve(len(columns))
        index = torch.tensor(list(columns), dtype=torch.long, device=self.device)
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            mine[:, :, target.start : target.stop] = theirs[:, :, index]
        return target

    def read(self, columns: Sequence[int]) -> list[Tensor]:
        """Copies of columns in the CPU's memory, per layer `[2, kv_heads, columns, head_dim]`: keys, then values."""
        index = torch.tensor(list(columns), dtype=torch.long, device=self.device)
        return [kv[:, :, index].cpu() for kv in self.kv]

    def write(self, layers: Sequence[Tensor]) -> range:
        """Append columns as `read` gave them; there must be room."""
        target = self.reserve(layers[0].shape[2])
        for mine, theirs in zip(self.kv, layers, strict=True):
            mine[:, :, target.start : target.stop] = theirs
        return target
