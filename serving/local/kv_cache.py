"""`KVCache`: keys and values of one tree of sequences, in the order in which they were written.

A slot has the key and value of one token in every layer, and is written once. Which slots a sequence attends to is
data: a list of slots and a row of an additive mask. So a fork copies a list, never a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

MIN_CAPACITY = 64
"""Slots of the smallest cache."""
SLOT_ALIGNMENT = 32
"""Attention reads slots in groups of this many. Its kernel computes the slots of a last, smaller group by other
instructions, whose results differ in their last bits: with full groups a sequence's numbers do not depend on how many
slots happen to follow its own. Vector units take 16 at a time, the tiles of AMX 32."""


def align_slots(slots: int) -> int:
    """The number of slots, rounded up to full groups."""
    return -(-slots // SLOT_ALIGNMENT) * SLOT_ALIGNMENT


class SlotTable:
    """The slots of one sequence.

    Attributes:
        slots: The slots it attends to, in order of position. Its next token has position `len(slots)`.
        mask_row: Its row of the cache's mask.
    """

    __slots__ = ("mask_row", "slots")

    def __init__(self, slots: list[int], mask_row: int) -> None:
        self.slots = slots
        self.mask_row = mask_row

    def __len__(self) -> int:
        return len(self.slots)


class KVCache:
    """Append-only store of keys (rotated at their absolute position) and values.

    Attributes:
        kv: Per layer `[2, num_kv_heads, slots, head_dim]`: keys, then values; `align_slots(capacity)` slots, zero where
            nothing was written.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        capacity: int,
    ) -> None:
        self._slot_shape = (num_kv_heads, head_dim)
        self._capacity = max(capacity, MIN_CAPACITY)
        self.dtype = dtype
        width = align_slots(self._capacity)
        self.kv = [self._new_layer(width) for _ in range(num_layers)]
        self.used = 0
        self._tables: dict[int, SlotTable] = {}
        self._mask = torch.full((4, width), float("-inf"), dtype=dtype)

    @property
    def capacity(self) -> int:
        """Slots that fit without growing."""
        return self._capacity

    @property
    def tables(self) -> Sequence[SlotTable]:
        """The slot tables of all live sequences."""
        return tuple(self._tables.values())

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return len(self.kv) * self.kv[0].nbytes if self.kv else 0

    def close(self) -> None:
        """Free keys and values; the cache cannot be used afterwards. Idempotent."""
        self.kv.clear()

    def new_table(self, slots: Iterable[int] = ()) -> SlotTable:
        """Add a sequence that attends to the given slots, in order of position."""
        visible = list(slots)
        row = next(r for r in range(len(self._tables) + 1) if r not in self._tables)
        if row >= self._mask.shape[0]:
            self._mask = torch.cat([self._mask, torch.full_like(self._mask, float("-inf"))])
        self._mask[row] = float("-inf")
        self._mask[row, visible] = 0
        table = SlotTable(visible, row)
        self._tables[row] = table
        return table

    def fork(self, table: SlotTable) -> SlotTable:
        """Add a sequence that attends to what `table` attends to. No key or value is copied."""
        return self.new_table(table.slots)

    def free(self, table: SlotTable) -> None:
        """Remove a sequence; idempotent. Its slots stay until `compact`."""
        if self._tables.get(table.mask_row) is table:
            del self._tables[table.mask_row]

    def keeps(self, slot: int) -> bool:
        """Whether a used slot still has its key and value: here until `compact`."""
        return True

    def kept_run(self, slots: list[int]) -> list[int]:
        """The first of the slots, those of positions from 0, that a new sequence can attend to: here all."""
        return slots

    def required_capacity(self, count: int) -> int:
        """Capacity that the cache has to grow to for `count` more slots; 0 if they fit."""
        needed = self.used + count
        return 0 if needed <= self._capacity else max(2 * self._capacity, needed)

    def resize(self, capacity: int) -> None:
        """Change the capacity; a smaller one frees memory."""
        width = align_slots(capacity)
        for i, old in enumerate(self.kv):
            new = self._new_layer(width)
            new[:, :, : self.used] = old[:, :, : self.used]
            self.kv[i] = new
        mask = torch.full((self._mask.shape[0], width), float("-inf"), dtype=self.dtype)
        mask[:, : self.used] = self._mask[:, : self.used]
        self._mask, self._capacity = mask, capacity

    def _new_layer(self, width: int) -> Tensor:
        """Keys and values of one layer, zero."""
        num_kv_heads, head_dim = self._slot_shape
        return torch.zeros(2, num_kv_heads, width, head_dim, dtype=self.dtype)

    def allocate(self, count: int) -> range:
        """Take the next `count` slots, which no sequence attends to yet; they must fit (`required_capacity`)."""
        first = self.used
        if first + count > self._capacity:
            raise IndexError(f"{count} slots do not fit: {first} of {self._capacity} are used")
        self.used += count
        return range(first, self.used)

    def keep_tail(self, count: int, kept: Sequence[int]) -> range:
        """Of the last `count` slots, which no sequence attends to, keep some and free the others.

        Args:
            kept: Those of them to keep, ascending.

        Returns:
            Their new slots, in the same order.
        """
        start = self.used - count
        self.used = start + len(kept)
        target = range(start, self.used)
        if list(target) != list(kept):
            index = torch.tensor(list(kept), dtype=torch.long)
            for kv in self.kv:
                kv[:, :, start : self.used] = kv[:, :, index]
        return target

    def append(self, table: SlotTable, slots: Sequence[int]) -> None:
        """Let a sequence attend to further slots, as its next positions."""
        table.slots.extend(slots)
        self._mask[table.mask_row, slots[0] : slots[-1] + 1] = 0

    def append_each(self, tables: Sequence[SlotTable], slots: range) -> None:
        """Let the i-th sequence attend to the i-th slot: one decode step."""
        for table, slot in zip(tables, slots, strict=True):
            table.slots.append(slot)
        self._mask[[t.mask_row for t in tables], list(slots)] = 0

    def attention_mask(self, tables: Sequence[SlotTable], width: int) -> Tensor:
        """Additive mask `[sequences, width]` over the first `width` slots: 0 where visible, else minus infinity."""
        return self._mask[[t.mask_row for t in tables], :width]

    def sees_all(self, table: SlotTable) -> bool:
        """Whether the sequence attends to every used slot."""
        return len(table.slots) == self.used

    def live_slots(self) -> list[int]:
        """Slots that some sequence attends to, ascending."""
        live: set[int] = set()
        for table in self._tables.values():
            live.update(table.slots)
        return sorted(live)

    def compact(self) -> dict[int, int]:
        """Drop every slot that no sequence attends to.

        Returns:
            The new slot of each one that stays.
        """
        live = self.live_slots()
        index = torch.tensor(live, dtype=torch.long)
        for kv in self.kv:
            kv[:, :, : len(live)] = kv[:, :, index]
        moved = {old: new for new, old in enumerate(live)}
        self.used = len(live)
        self._mask.fill_(float("-inf"))
        for table in self._tables.values():
            table.slots[:] = [moved[s] for s in table.slots]
            self._mask[table.mask_row, table.slots] = 0
        return moved

    def copy_from(self, other: KVCache, slots: Sequence[int]) -> range:
        """Append copies of another cache's slots."""
        target = self.allocate(len(slots))
        index = torch.tensor(list(slots), dtype=torch.long)
        for mine, theirs in zip(self.kv, other.kv, strict=True):
            mine[:, :, target.start : target.stop] = theirs[:, :, index]
        return target
