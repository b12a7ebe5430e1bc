"""Who sees what of a search's memory, and what a prompt shows of it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.working_memory import WorkingMemory
from reason.reasoning.retrieval.deduplication import text_hash


def item(text: str, score: float = 0.5, node: int = -1) -> MemoryItem:
    return MemoryItem(text=text, hash=text_hash(text), score=score, tokens=1, node_id=node)


def texts(items: Sequence[MemoryItem]) -> str:
    return " ".join(one.text for one in items)


def test_a_path_sees_its_own_and_its_ancestors_items():
    memory = WorkingMemory()
    memory.add(3, [item("c"), item("d")])
    memory.add(1, [item("a")])
    memory.add(2, [item("b")])
    memory.add(1, [item("e")])
    memory.add(4, [])
    assert texts(memory.visible([0, 1, 3])) == "a e c d"
    assert texts(memory.visible([0, 2])) == "b"
    assert texts(memory.visible([0, 4])) == ""
    assert texts(memory.of(1)) == "a e"


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=12))
def test_shown_is_what_dropping_one_by_one_leaves(scores):
    memory = WorkingMemory()
    memory.add(0, [item(f"t{i}", score) for i, score in enumerate(scores)])
    left = list(memory.visible([0]))
    while len(left) > 8:
        left.remove(min(left, key=lambda one: (one.score, memory.visible([0]).index(one))))
    assert list(memory.shown([0])) == left


# -- property 7: the order of siblings does not matter
