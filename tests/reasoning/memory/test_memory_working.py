"""Who sees what of a search's memory, and what a prompt shows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.admission import AdmissionFilter, NodeProposals, Proposal
from reason.reasoning.memory.working_memory import WorkingMemory
from reason.reasoning.retrieval.deduplication import text_hash


def item(text: str, score: float = 0.5, node: int = -1) -> MemoryItem:
    return MemoryItem(text=text, hash=text_hash(text), score=score, tokens=1, node_id=node)


def texts(items: Sequence[MemoryItem]) -> str:
    return " ".join(one.text for one in items)


def test_a_path_sees_its_own_and_its_ancestors_items() -> None:
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
def test_shown_is_what_dropping_one_by_one_leaves(scores: list[float]) -> None:
    memory = WorkingMemory()
    memory.add(0, [item(f"t{i}", score) for i, score in enumerate(scores)])
    left = list(memory.visible([0]))
    while len(left) > 8:
        left.remove(min(left, key=lambda one: (one.score, memory.visible([0]).index(one))))
    assert list(memory.shown([0])) == left


# -- property 7: the order of siblings does not matter

FACTS = ("alpha beta gamma", "Alpha, beta gamma!", "delta", "epsilon zeta eta theta", "zeta eta theta", "iota kappa")


@st.composite
def trees(draw: st.DrawFn) -> dict[str, list[str]]:
    """What is proposed for each node, by the node's label: the way to it, as in "0.2.1"."""
    labels = ["0"]
    for _ in range(draw(st.integers(1, 3))):
        parent = draw(st.sampled_from(labels))
        if f"{parent}.0" not in labels:
            labels += [f"{parent}.{i}" for i in range(draw(st.integers(2, 3)))]
    return {label: draw(st.lists(st.sampled_from(FACTS), max_size=3)) for label in labels}


Seen = dict[str, list[tuple[str, float]]]


def grown(proposals: dict[str, list[str]], order: Sequence[str], *, at_once: bool) -> tuple[Seen, Seen]:
    """What each node knows and is shown, when the nodes are made in an order and numbered by it."""
    numbers = {label: i for i, label in enumerate(order)}
    memory = WorkingMemory()
    admission = AdmissionFilter(lambda text: len(text.split()))

    def path(label: str) -> list[int]:
        parts = label.split(".")
        return [numbers[".".join(parts[: i + 1])] for i in range(len(parts))]

    async def expand(labels: Sequence[str]) -> None:
        thoughts = [
            NodeProposals(
                numbers[label],
                "",
                tuple(one.text for one in memory.visible(path(label))),
                tuple(Proposal(text, score=len(text) / 30) for text in proposals[label]),
            )
            for label in labels
        ]
        for one, result in zip(thoughts, await admission.admit(thoughts), strict=True):
            memory.add(one.node_id, result.items)

    async def grow() -> None:
        left = list(order)
        while left:
            siblings = [n for n in left if n.rpartition(".")[0] == left[0].rpartition(".")[0]] if at_once else left[:1]
            await expand(siblings)
            left = [n for n in left if n not in siblings]

    asyncio.run(grow())
    known = {n: [(one.text, one.score) for one in memory.visible(path(n))] for n in order}
    return known, {n: [(one.text, one.score) for one in memory.shown(path(n))] for n in order}


@given(trees(), st.data(), st.booleans(), st.booleans())
def test_siblings_may_come_in_any_order(
    proposals: dict[str, list[str]], data: st.DataObject, first_at_once: bool, then_at_once: bool
) -> None:
    labels = list(proposals)
    keys = {label: data.draw(st.integers()) for label in labels}
    # any order in which no child comes before its parent
    mixed = sorted(labels, key=lambda label: (label.count("."), keys[label], label))
    seen = grown(proposals, labels, at_once=first_at_once)
    assert grown(proposals, mixed, at_once=then_at_once) == seen
