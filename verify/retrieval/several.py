"""`SeveralRetrievers`: several places to look as one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from ..evidence import Passage
from .retriever import Retriever


class SeveralRetrievers:
    """The best of several retrievers together (see `Retriever`).

    Scores are fused ranks, which can be compared: what is first in two rankings of its own place comes before what is
    first in one. Ids that two places both use are told apart by the place's name.

    Args:
        retrievers: At least one; closed with this object.
    """

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)
        self.name = ", ".join(r.name for r in retrievers)
        digest = hashlib.sha256("\n".join(r.identity for r in retrievers).encode()).hexdigest()
        self.identity = f"several:{digest}"
        self.degraded = tuple(
            f"{r.name}: {why}" for r in retrievers for why in getattr(r, "degraded", ()) if isinstance(why, str)
        )

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(retriever.retrieve(claims, k)) for retriever in self._retrievers]
        found: list[list[Passage]] = [[] for _ in claims]
        taken: dict[str, int] = {}
        for number, task in enumerate(tasks):
            for mine, more in zip(found, task.result(), strict=True):
                mine.extend(self._named(passage, number, taken) for passage in more)
        return [sorted(passages, key=lambda p: -p.score)[:k] for passages in found]

    async def aclose(self) -> None:
        """Close all of them; idempotent."""
        for retriever in self._retrievers:
            await retriever.aclose()

    def _named(self, passage: Passage, number: int, taken: dict[str, int]) -> Passage:
        if taken.setdefault(passage.id, number) == number:
            return passage
        return passage.model_copy(update={"id": f"{self._retrievers[number].name}:{passage.id}"})
