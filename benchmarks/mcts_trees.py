"""Trees of known values for the bench of Monte Carlo tree search, and what is read off a search in one.

A search is the list of the nodes it created, in order, each the path of its steps. All searches of the bench get the
same number of new nodes an expansion, so what a smaller budget gives is the beginning of the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Path = tuple[int, ...]
Noise = Literal["coin", "beta"]

BRANCHING = 3
DEPTH = 10
BEST = 0.9
"""The largest reward of a tree."""
LEAST_KEPT = 0.4
"""The value of a step that is not the best is a uniform share, from this to 1, of the best one's."""
CONCENTRATION = 8.0


class KnownTree:
    """A full tree whose values are known: that of a node is the largest reward of the solutions below it.

    Values are drawn from the root down: one child of a node, by lot, has the node's value and the others a random share
    of it; the value of a complete solution is its reward.

    Args:
        seed: What the tree follows from.
        noise: Scores are right in the mean alone: a coin that shows 1 with the value for its chance, or a draw from the
            beta distribution with the value for its mean. A node is scored once.
    """

    def __init__(self, seed: int, noise: Noise) -> None:
        self.seed, self.noise = seed, noise
        self._values: dict[Path, tuple[float, ...]] = {}
        self._scores: dict[Path, float] = {}

    def below(self, path: Path) -> tuple[float, ...]:
        """The values of all children of a node."""
        if path not in self._values:
            rng = Random(f"{self.seed}|{path}")
            value = self.value(path)
            shares = [rng.uniform(LEAST_KEPT, 1) for _ in range(BRANCHING)]
            shares[rng.randrange(BRANCHING)] = 1.0
            self._values[path] = tuple(value * share for share in shares)
        return self._values[path]

    def value(self, path: Path) -> float:
        """The largest reward below a node."""
        return self.below(path[:-1])[path[-1]] if path else BEST

    def score(self, path: Path) -> float:
        """What the node is scored."""
        if path not in self._scores:
            rng, value = Random(f"{self.seed}|{path}|{self.noise}"), self.value(path)
            if self.noise == "coin":
                self._scores[path] = float(rng.random() < value)
            else:
                self._scores[path] = rng.betavariate(CONCENTRATION * value, CONCENTRATION * (1 - value))
        return self._scores[path]

    @staticmethod
    def ends(path: Path) -> bool:
        """Whether it is a complete solution."""
        return len(path) >= DEPTH

    def finished(self, path: Path) -> float:
        """The reward of a solution that goes on from a node by chance."""
        rng = Random(f"{self.seed}|{path}|finished")
        while not self.ends(path):
            path = (*path, rng.randrange(BRANCHING))
        return self.value(path)


class Bandit:
    """A tree without an end in which the first step decides all: every node below it is scored by its coin."""

    def __init__(self, seed: int, chances: Sequence[float]) -> None:
        self.seed, self.chances = seed, chances

    def score(self, path: Path) -> float:
        """What the node is scored."""
        return float(Random(f"{self.seed}|{path}").random() < self.chances[path[0]])

    @staticmethod
    def ends(path: Path) -> bool:
        """No solution is ever complete."""
        return False


@dataclass(frozen=True)
class Read:
    """What a search has come to.

    Attributes:
        deepest: Depth of its deepest node.
        depth: Mean depth of its nodes.
        best: Share of its nodes that are below the best first step.
        step_regret: Value lost by the first step that has most nodes.
        answer_regret: Reward lost by the answer: the best complete solution, by exact rewards; without any, the leaf of
            the largest score, finished by chance.
    """

    deepest: int
    depth: float
    best: float
    step_regret: float
    answer_regret: float


def read(tree: KnownTree, nodes: Sequence[Path]) -> Read:
    """Read a search in a tree off its nodes."""
    firsts = Counter(path[0] for path in nodes)
    values = tree.below(())
    ended = [path for path in nodes if tree.ends(path)]
    if ended:
        answer = max(map(tree.value, ended))
    else:
        continued = {path[:-1] for path in nodes}
        answer = tree.finished(max((path for path in nodes if path not in continued), key=tree.score))
    return Read(
        deepest=max(map(len, nodes)),
        depth=sum(map(len, nodes)) / len(nodes),
        best=firsts[values.index(max(values))] / len(nodes),
        step_regret=BEST - values[firsts.most_common(1)[0][0]],
        answer_regret=BEST - answer,
    )
