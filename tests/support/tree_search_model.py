"""A world for tree search: a known tree of any shape, told with blanks and repetitions where it has nothing to say."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from reason.reasoning.search.core import Continuation

GRAIN = 64
"""Scores are multiples of 1/64, so that sums of them are exact and equal values are equal in floating point too."""


@dataclass(frozen=True)
class Twig:
    """A step of the known tree."""

    name: str
    score: float
    terminal: bool
    reward: float
    tokens: int


class RaggedWorld:
    """Each prefix has up to `widest` different continuations, some none at all; all follows from the seed.

    An expansion gets the first ones in their order. Where there are fewer than it asked for, the rest of what it is
    told are blanks and repetitions.
    """

    def __init__(self, seed, *, widest=4, ending=0.2):
        self.seed, self.widest, self.ending = seed, widest, ending
        self._known = {}

    def twigs(self, path):
        """All continuations of a prefix, which is the names of its steps."""
        if path not in self._known:
            rng = Random(f"{self.seed}|{path}")
            self._known[path] = [
                Twig(
                    name=f"{'abcdefgh'[i]}{len(path)} ",
                    score=rng.randint(0, GRAIN) / GRAIN,
                    terminal=rng.random() < self.ending,
                    reward=rng.randint(0, 8) / 8,  # few values, so that some are equal
                    tokens=rng.randint(1, 5),
                )
                for i in range(rng.choice([0, *range(1, self.widest + 1), self.widest]))
            ]
        return self._known[path]

    def __call__(self, search, expand):
        path = tuple(search.tree.steps(expand.node))
        told = []
        for twig in self.twigs(path)[: expand.n]:
            reward = twig.reward if twig.terminal or expand.finish else None
            told.append(Continuation(twig.name, twig.tokens, twig.terminal, twig.score, reward))
        listed, rng = list(told), Random(f"{self.seed}|{path}|rest")
        while len(told) < expand.n:
            again = rng.choice([None, *listed])
            if again is None:
                told.insert(rng.randint(0, len(told)), Continuation(" ", 1))
            else:  # after what it repeats, and scored otherwise, which must not matter
                told.append(Continuation(f"Step 7: {again.text}", 2, again.terminal, 1.0))
        return told
