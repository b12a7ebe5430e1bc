"""The searches of the bench of Monte Carlo tree search: ours, and those of treequest where it is installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mcts_trees import BRANCHING, DEPTH, Path
from reason.reasoning.search.monte_carlo import MonteCarlo, MonteCarloOptions
from reason.reasoning.search.tree import Continuation

LIBRARY: Any
"""treequest, or None where it is not installed."""
try:
    import treequest as LIBRARY  # noqa: N812
except ImportError:
    LIBRARY = None


class Scored(Protocol):
    """A tree that says what a node is scored, and which ones are complete."""

    def score(self, path: Path) -> float:
        """What the node is scored."""

    def ends(self, path: Path) -> bool:
        """Whether it is a complete solution."""


@dataclass
class Played:
    """A search that was played.

    Attributes:
        nodes: What it created, in order.
        seconds: Processor time of the search's own work: choosing, and taking scores in.
    """

    nodes: list[Path]
    seconds: float = 0.0


Player = Callable[[Scored, int], Played]
"""Plays so many expansions, each of `BRANCHING` new nodes."""


def ours(max_depth: int = DEPTH, **options: Any) -> Player:
    """`MonteCarlo` with these options."""

    def player(tree: Scored, expansions: int) -> Played:
        fixed = {"k": BRANCHING, "max_depth": max_depth, "tau": None, "expansions": expansions}
        search = MonteCarlo(MonteCarloOptions(**{**fixed, **options}))
        played = Played([])
        paths: dict[int, Path] = {0: ()}
        while len(played.nodes) < expansions * BRANCHING:
            began = time.process_time()
            batch = search.ask()
            played.seconds += time.process_time() - began
            told = []
            for expand in batch:
                below = [(*paths[expand.node], i) for i in range(BRANCHING)]
                told.append([Continuation(f"{p[-1]} ", 1, tree.ends(p), tree.score(p)) for p in below])
                paths |= {len(played.nodes) + 1 + i: path for i, path in enumerate(below)}
                played.nodes += below
            began = time.process_time()
            for expand, results in zip(batch, told, strict=True):
                search.tell(expand, results)
            played.seconds += time.process_time() - began
        return played

    return player


def standard(weight: float) -> Player:
    """`StandardMCTS` of treequest.

    It knows no complete solution; one that it expands is told again below itself.
    """
    return _library(LIBRARY.StandardMCTS(samples_per_action=BRANCHING, exploration_weight=weight), BRANCHING)


def adaptive() -> Player:
    """`ABMCTSA` of treequest, which asks for one node at a time and may go on below any; with its own defaults."""
    return _library(LIBRARY.ABMCTSA(), 1)


def _library(algorithm: Any, at_a_time: int) -> Player:
    def player(tree: Scored, expansions: int) -> Played:
        state, played = algorithm.init_tree(), Played([])
        asked: dict[int, int] = {}
        while len(played.nodes) < expansions * BRANCHING:
            began = time.process_time()
            state, trials = algorithm.ask_batch(state, at_a_time, ["step"])
            played.seconds += time.process_time() - began
            told = []
            for trial in trials:
                path = trial.parent_state or ()
                turn = asked[trial.node_to_expand] = asked.get(trial.node_to_expand, -1) + 1
                child = path if tree.ends(path) else (*path, turn % BRANCHING)
                told.append((child, tree.score(child)))
                played.nodes.append(child)
            began = time.process_time()
            for trial, result in zip(trials, told, strict=True):
                state = algorithm.tell(state, trial.trial_id, result)
            played.seconds += time.process_time() - began
        return played

    return player


SELDOM = 5
"""One tree of so many is played at length."""


@dataclass(frozen=True)
class Entry:
    """A search of the bench.

    Attributes:
        name: What it is called.
        player: How it is played.
        often: Expansions that it is given in a tree; 0 where it is not played in every tree.
        seldom: Expansions in one tree of `SELDOM`.
    """

    name: str
    player: Player
    often: int
    seldom: int

    def expansions(self, seed: int) -> int:
        """Expansions in the tree of a seed."""
        return self.often if seed % SELDOM else self.seldom


UCT, PUCT, EIGHT = "UCT, w = 1", "PUCT, w = 1", "UCT, w = 1, 8 leaves"
STANDARD, ADAPTIVE = "treequest StandardMCTS, √2", "treequest AB-MCTS-A"


def entries() -> list[Entry]:
    """All searches that can be played here; those that take longer are played in fewer trees."""
    found = [
        Entry(UCT, ours(), 400, 1600),
        Entry("UCT, w = 0.5", ours(w=0.5), 400, 400),
        Entry(EIGHT, ours(leaves=8), 400, 400),
        Entry(PUCT, ours(policy="puct"), 400, 400),
    ]
    if LIBRARY is not None:
        found += [
            Entry(STANDARD, standard(2**0.5), 0, 400),
            Entry("treequest StandardMCTS, 3", standard(3.0), 0, 400),
            Entry(ADAPTIVE, adaptive(), 0, 100),
        ]
    return found
