"""Sequences of llama.cpp's memory, on a stand-in for the library: sliding windows, exhaustion."""

from __future__ import annotations

import pytest
from reason.serving.llama_cpp import LlamaCache, LlamaMemory


class Library:
    """Records the positions of sequences, and forgets the first ones of some as a sliding window does."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self.starts: dict[int, int] = {}

    def llama_get_memory(self, context: object) -> object:
        return context

    def llama_memory_seq_rm(self, memory: object, sequence: int, start: int, stop: int) -> bool:
        self.starts.pop(sequence, None)
        return self.ends.pop(sequence, None) is not None

    def llama_memory_seq_cp(self, memory: object, source: int, target: int, start: int, stop: int) -> None:
        self.ends[target] = max(stop, self.ends.get(target, 0))

    def llama_memory_seq_pos_min(self, memory: object, sequence: int) -> int:
        return self.starts.get(sequence, 0)


def test_a_prefix_whose_window_was_overwritten_is_not_reused():
    library = Library()
    cache = LlamaCache(LlamaMemory(library, None, 8, 4, window=10), 1, 64)
    table = cache.new_table()
    cache.record(table, 40)
    slots = list(table.slots)
    cache.free(table)
    library.starts[table.mask_row] = 25
    assert cache.kept_run(slots) == slots  # its window begins at 30
    assert cache.kept_run(slots[:35]) == slots[:35]
    assert cache.kept_run(slots[:34]) == []  # position 24 is in the window of what follows
    without = LlamaCache(LlamaMemory(library, None, 8, 4, window=0), 1, 64)
    other = without.new_table()
    without.record(other, 40)
    library.starts[other.mask_row] = 25
    assert without.kept_run(other.slots[:5]) == other.slots[:5]


def test_running_sequences_are_never_dropped():
    library = Library()
    memory = LlamaMemory(library, None, 4, 2, window=0)
    cache = LlamaCache(memory, 1, 64)
    tables = [cache.new_table() for _ in range(4)]
    for table in tables:
        cache.record(table, 2)
    with pytest.raises(RuntimeError, match="no free sequence"):
        cache.new_table()
    for table in tables[:3]:
        cache.free(table)
    assert [cache.keeps(table.slots[0]) for table in tables] == [False, True, True, True]
    with pytest.raises(RuntimeError, match="slot 1 is lost"):
        cache.new_table(tables[0].slots)
