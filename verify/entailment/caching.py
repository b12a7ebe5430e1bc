"""`RememberingEntailment`: an entailment that judges no pair twice, as long as it remembers it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ..support import Support
from .protocol import Entailment, Pair

REMEMBERED = 10_000
"""Pairs that are remembered, unless told otherwise."""


class RememberingEntailment:
    """Remembers verdicts by evidence, claim and title; it belongs to one backend (see `Entailment`).

    Equal pairs of one call are judged once. What could not be read is judged again when it is asked for again. Of more
    pairs than it may remember, those that were asked for the longest ago are forgotten.

    Args:
        entailment: What judges; closed with this object.
        most: Most pairs that are remembered; 0 remembers nothing.
    """

    def __init__(self, entailment: Entailment, most: int = REMEMBERED) -> None:
        self.name, self.identity, self.max_words = entailment.name, entailment.identity, entailment.max_words
        self._entailment, self._most = entailment, max(0, most)
        self._memory: OrderedDict[Pair, Support] = OrderedDict()

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order (see `Entailment.judge`)."""
        known: dict[Pair, Support | None] = {p: self._memory[p] for p in pairs if p in self._memory}
        missing = [p for p in dict.fromkeys(pairs) if p not in known]
        if missing:
            known.update(zip(missing, await self._entailment.judge(missing), strict=True))
        for pair in dict.fromkeys(pairs):
            self._remember(pair, known[pair])
        return [known[p] for p in pairs]

    async def aclose(self) -> None:
        """Forget everything and close what judges; idempotent."""
        self._memory.clear()
        await self._entailment.aclose()

    def _remember(self, pair: Pair, verdict: Support | None) -> None:
        if verdict is None:
            return
        self._memory[pair] = verdict
        self._memory.move_to_end(pair)
        if len(self._memory) > self._most:
            self._memory.popitem(last=False)
