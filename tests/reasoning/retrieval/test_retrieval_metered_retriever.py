"""Several places to look as one, and what was found kept in the run store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from reason.core.errors import StoreError
from reason.reasoning.knowledge import Passage, Retriever
from reason.reasoning.retrieval.retriever import CombinedRetriever, MeteredRetriever, RecordedRetriever


class Listed:
    """A retriever that finds the same for every claim."""

    def __init__(self, name: str, *passages: tuple[str, float]) -> None:
        self.name, self.identity = name, f"{name}@1"
        self.passages = [Passage(id=i, source=name, text=f"{name} {i}", score=s) for i, s in passages]
        self.asked: list[list[str]] = []
        self.closed = 0

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        self.asked.append(list(claims))
        return [self.passages[:k] for _ in claims]

    async def aclose(self) -> None:
        self.closed += 1


async def test_the_best_of_all_places_come_first_and_ids_stay_apart():
    one, two = Listed("one", ("a", 0.5), ("b", 0.1)), Listed("two", ("a", 0.4), ("c", 0.3))
    both = CombinedRetriever([one, two])
    assert isinstance(both, Retriever)
    (found,) = await both.retrieve(["x"], 3)
    assert [(p.id, p.source) for p in found] == [("a", "one"), ("two:a", "two"), ("c", "two")]
    assert both.identity != CombinedRetriever([two, one]).identity
    await both.aclose()
    assert (one.closed, two.closed) == (1, 1)


async def test_a_resumed_run_looks_up_only_what_it_has_not_found(runs):
    place = Listed("place", ("a", 0.5))
    first = await MeteredRetriever(place, await runs.start()).retrieve(["x", "y", "x"], 1)
    again = await MeteredRetriever(place, await runs.start()).retrieve(["y", "z"], 1)
    assert place.asked == [["x", "y"], ["z"]]
    assert first[1] == again[0] == place.passages
    await MeteredRetriever(place, await runs.start()).retrieve(["x"], 2)  # more are wanted than were looked for
    assert place.asked[-1] == ["x"]


async def test_a_replay_finds_what_was_found_and_refuses_what_was_not(runs):
    place = Listed("place", ("a", 0.5))
    await MeteredRetriever(place, await runs.start()).retrieve(["x"], 1)
    replayed = MeteredRetriever(RecordedRetriever(place.name, place.identity), await runs.start())
    assert await replayed.retrieve(["x"], 1) == [place.passages]
    with pytest.raises(StoreError, match="the passages of 'new'"):
        await replayed.retrieve(["new"], 1)
