"""`LlamaCache`: the slots of a prefix tree, as sequences in the memory of a llama.cpp context.

llama.cpp has one memory of cells. A cell has the key and value of one token and belongs to any number of sequences,
which are numbered; a token attends to the cells of its sequence. So a slot table is a sequence, a fork adds its cells
to another sequence, and a cell lives as long as a sequence has it. What no table uses any more stays stored in the
sequences that had it, until there are too many of those: then the least recently used one is dropped, and its slots are
lost where no other sequence has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..local.kv_cache import KVCache, SlotTable


class LlamaMemory:
    """The numbered sequences in the memory of a llama.cpp context.

    Args:
        library: The module `llama_cpp`.
        context: llama.cpp's context.
        num_sequences: Sequences that it has.
        num_stored: How many of them may be stored ones.
        window: Positions that a token of a sliding layer attends to; 0 if all layers attend to all.
    """

    def __init__(self, library: Any, context: Any, num_sequences: int, num_stored: int, window: int) -> None:
        self.window = window
        self._library, self._memory = library, library.llama_get_memory(context)
        self._free = list(range(num_sequences))
        self._num_stored = num_stored
        self._stored: dict[int, LlamaCache] = {}

    def take(self) -> int:
        """The number of an empty sequence."""
        if not self._free:
            raise RuntimeError("llama.cpp has no free sequence")
        return self._free.pop()

    def release(self, sequence: int) -> None:
        """Empty a sequence: cells that no other one has are free."""
        self._stored.pop(sequence, None)
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._free.append(sequence)

    def store(self, sequence: int, cache: LlamaCache) -> None:
        """Keep a sequence that no table uses, until it is the least recently used of too many."""
        self._stored[sequence] = cache
        if len(self._stored) > self._num_stored:
            oldest = next(iter(self._stored))
            self._stored[oldest].drop(oldest)

    def copy(self, source: int, target: int, positions: range) -> None:
        """Add the cells of one sequence at these positions to another."""
        self._library.llama_memory_seq_cp(self._memory, source, target, positions.start, positions.stop)
        if source in self._stored:
            self._stored[source] = self._stored.pop(source)

    def first_position(self, sequence: int) -> int:
        """The first position from which on all cells of a sequence are there: those before a window may be reused."""
        return int(self._library.llama_memory_seq_pos_min(self._memory, sequence))


class LlamaCache(KVCache):
    """The slots of one prefix tree. A table's `mask_row` is the number of its sequence.

    Args:
        memory: Shared with other caches, whose capacities are together no more than its cells.
        slot_bytes: Bytes of one slot.
    """

    def __init__(self, memory: LlamaMemory, slot_bytes: int, capacity: int) -> None:
        super().__init__(0, 0, 0, torch.float16, 0)  # keys and values are in the memory
        self.resize(max(capacity, self.capacity))
        self._memory, self._slot_bytes = memory, slot_bytes
        self._sequences: dict[int, tuple[int, list[int]]] = {}
        """By number, running and stored: the first position, and the slots from there on."""
        self._holders: list[int] = []
        """For each slot how many sequences have it; 0 if it is lost."""

    @property
    def nbytes(self) -> int:
        return self.capacity * self._slot_bytes

    def close(self) -> None:
        for sequence in list(self._sequences):
            self.drop(sequence)
        self._tables.clear()

    def resize(self, capacity: int) -> None:
        self._capacity = capacity

    def new_table(self, slots: Iterable[int] = ()) -> SlotTable:
        table = SlotTable(list(slots), self._new_sequence(self, list(slots), 0))
        self._sequences[table.mask_row] = 0, table.slots
        for slot in table.slots:
            self._holders[slot] += 1
        self._tables[table.mask_row] = table
        return table

    def free(self, table: SlotTable) -> None:
        sequence = table.mask_row
        if self._tables.get(sequence) is not table:
            return
        super().free(table)
        # from the end: what it has by itself is last
        if all(self._holders[slot] > 1 for slot in reversed(table.slots)):
            self.drop(sequence)
        else:
            self._memory.store(sequence, self)

    def drop(self, sequence: int) -> None:
        """Remove a sequence from the memory."""
        for slot in self._sequences.pop(sequence)[1]:
            self._holders[slot] -= 1
        self._memory.release(sequence)

    def keeps(self, slot: int) -> bool:
        return self._holders[slot] > 0

    def kept_run(self, slots: list[int]) -> list[int]:
        count = next((i for i, slot in enumerate(slots) if not self.keeps(slot)), len(slots))
        kept = slots[:count]
        if self._memory.window and any(
            self._memory.first_position(sequence) > max(run.start, count - self._memory.window)
            for sequence, run in self._runs(kept, 0)
        ):
            return []
        return kept

    def record(self, table: SlotTable, count: int) -> None:
        """Let a sequence have the cells of the next tokens, which were computed for it."""
        table.slots.extend(self.allocate(count))
        self._holders.extend([1] * count)

    def compact(self) -> dict[int, int]:
        for sequence in [s for s in self._sequences if s not in self._tables]:
            self.drop(sequence)
        moved = {old: new for new, old in enumerate(self.live_slots())}
        self._holders = [self._holders[old] for old in moved]
        self.used = len(moved)
        for table in self._tables.values():
            table.slots[:] = [moved[slot] for slot in table.slots]
        return moved

    def copy_from(self, other: KVCache, slots: Sequence[int]) -> range:
        """Give copies of another cache's slots to a stored sequence. They share the cells."""
        if not isinstance(other, LlamaCache):
            raise TypeError(f"slots are in a {type(other).__name__}")
        position = next(first + has.index(slots[0]) for first, has in other._sequences.values() if slots[0] in has)
        sequence = self._new_sequence(other, list(slots), position)
        copies = self.allocate(len(slots))
        self._holders.extend([1] * len(slots))
        self._sequences[sequence] = position, list(copies)
        self._memory.store(sequence, self)
        return copies

    def _new_sequence(self, source: LlamaCache, slots: list[int], position: int) -> int:
        """A sequence with a cache's slots, whose positions begin at one."""
        runs = source._runs(slots, position)
        new = self._memory.take()
        for sequence, positions in runs:
            self._memory.copy(sequence, new, positions)
        return new

    def _runs(self, slots: list[int], position: int) -> list[tuple[int, range]]:
        """Sequences that have the slots, whose positions begin at one, and which of their positions each is to give."""
        runs = []
        end = len(slots)
        while end:
            holders = (
                (sequence, first, has)
                for sequence, (first, has) in self._sequences.items()
                if 0 <= (i := position + end - 1 - first) < len(has) and has[i] == slots[end - 1]
            )
            holder = next(holders, None)
            if holder is None:
                raise RuntimeError(f"slot {slots[end - 1]} is lost")
            sequence, first, has = holder
            start, offset = end - 1, position - first
            while start and offset + start > 0 and has[offset + start - 1] == slots[start - 1]:
                start -= 1
            runs.append((sequence, range(position + start, position + end)))
            end = start
        return runs
