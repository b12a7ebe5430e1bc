"""Monte Carlo tree search on trees of known values, next to the library treequest: depth, visits, regret and time.

    python benchmarks/mcts_regret.py --trees 200 --svg docs/results/mcts_regret.svg > tables.md

An expansion adds three nodes for every search. A search is the list of its created nodes in order, so its first part is
the result of a smaller budget. Intervals: 95 % percentiles of a bootstrap over trees. Without treequest its rows are
left out.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import numpy as np
from reason.evals.report.page import COLOURS
from reason.evals.statistics.intervals import bootstrap
from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.core import Continuation
from reporting import processor, table

TreePath = tuple[int, ...]
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

    Values are sampled from the root down: one child of a node, by lot, has the node's value and the others a random
    share of it; the value of a complete solution is its reward.
    """

    def __init__(self, seed: int, noise: Noise) -> None:
        self.seed, self.noise = seed, noise
        self._values: dict[TreePath, tuple[float, ...]] = {}
        self._scores: dict[TreePath, float] = {}

    def below(self, path: TreePath) -> tuple[float, ...]:
        """The values of all children of a node."""
        if path not in self._values:
            rng = Random(f"{self.seed}|{path}")
            value = self.value(path)
            shares = [rng.uniform(LEAST_KEPT, 1) for _ in range(BRANCHING)]
            shares[rng.randrange(BRANCHING)] = 1.0
            self._values[path] = tuple(value * share for share in shares)
        return self._values[path]

    def value(self, path: TreePath) -> float:
        """The largest reward below a node."""
        return self.below(path[:-1])[path[-1]] if path else BEST

    def score(self, path: TreePath) -> float:
        """What the node is scored."""
        if path not in self._scores:
            rng, value = Random(f"{self.seed}|{path}|{self.noise}"), self.value(path)
            if self.noise == "coin":
                self._scores[path] = float(rng.random() < value)
            else:
                self._scores[path] = rng.betavariate(CONCENTRATION * value, CONCENTRATION * (1 - value))
        return self._scores[path]

    @staticmethod
    def ends(path: TreePath) -> bool:
        """Whether it is a complete solution."""
        return len(path) >= DEPTH

    def finished(self, path: TreePath) -> float:
        """The reward of a solution that continues from a node by chance."""
        rng = Random(f"{self.seed}|{path}|finished")
        while not self.ends(path):
            path = (*path, rng.randrange(BRANCHING))
        return self.value(path)


class Bandit:
    """A tree without an end in which the first step decides all: every node below it is scored by its coin."""

    def __init__(self, seed: int, chances: Sequence[float]) -> None:
        self.seed, self.chances = seed, chances

    def score(self, path: TreePath) -> float:
        """What the node is scored."""
        return float(Random(f"{self.seed}|{path}").random() < self.chances[path[0]])

    @staticmethod
    def ends(path: TreePath) -> bool:
        """No solution is ever complete."""
        return False


@dataclass(frozen=True)
class SearchReading:
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


def read_search(tree: KnownTree, nodes: Sequence[TreePath]) -> SearchReading:
    """Read a search in a tree off its nodes."""
    firsts = Counter(path[0] for path in nodes)
    values = tree.below(())
    ended = [path for path in nodes if tree.ends(path)]
    if ended:
        answer = max(map(tree.value, ended))
    else:
        continued = {path[:-1] for path in nodes}
        answer = tree.finished(max((path for path in nodes if path not in continued), key=tree.score))
    return SearchReading(
        deepest=max(map(len, nodes)),
        depth=sum(map(len, nodes)) / len(nodes),
        best=firsts[values.index(max(values))] / len(nodes),
        step_regret=BEST - values[firsts.most_common(1)[0][0]],
        answer_regret=BEST - answer,
    )


LIBRARY: Any
"""treequest, or None where it is not installed."""
try:
    import treequest as LIBRARY  # noqa: N812
except ImportError:
    LIBRARY = None


class Scored(Protocol):
    """A tree that states what a node is scored, and which ones are complete."""

    def score(self, path: TreePath) -> float:
        """What the node is scored."""

    def ends(self, path: TreePath) -> bool:
        """Whether it is a complete solution."""


@dataclass
class PlayedSearch:
    """A search that was played.

    Attributes:
        nodes: What it created, in order.
        seconds: Processor time of the search's own work: choosing, and taking scores in.
    """

    nodes: list[TreePath]
    seconds: float = 0.0


Player = Callable[[Scored, int], PlayedSearch]
"""Plays so many expansions, each of `BRANCHING` new nodes."""


def ours(max_depth: int = DEPTH, **options: Any) -> Player:
    """`MonteCarloTreeSearch` with these options."""

    def player(tree: Scored, expansions: int) -> PlayedSearch:
        fixed = {"k": BRANCHING, "max_depth": max_depth, "tau": None, "expansions": expansions}
        search = MonteCarloTreeSearch(MCTSOptions(**{**fixed, **options}))
        played = PlayedSearch([])
        paths: dict[int, TreePath] = {0: ()}
        while len(played.nodes) < expansions * BRANCHING:
            began = time.process_time()
            batch = search.ask()
            played.seconds += time.process_time() - began
            reported = []
            for expand in batch:
                below = [(*paths[expand.node], i) for i in range(BRANCHING)]
                reported.append([Continuation(f"{p[-1]} ", 1, tree.ends(p), tree.score(p)) for p in below])
                paths |= {len(played.nodes) + 1 + i: path for i, path in enumerate(below)}
                played.nodes += below
            began = time.process_time()
            for expand, results in zip(batch, reported, strict=True):
                search.tell(expand, results)
            played.seconds += time.process_time() - began
        return played

    return player


def standard(weight: float) -> Player:
    """`StandardMCTS` of treequest.

    It has no complete solutions; one that is expanded is repeated below itself.
    """
    return _library(LIBRARY.StandardMCTS(samples_per_action=BRANCHING, exploration_weight=weight), BRANCHING)


def adaptive() -> Player:
    """`ABMCTSA` of treequest, which asks for one node at a time and may continue below any; with its own defaults."""
    return _library(LIBRARY.ABMCTSA(), 1)


def _library(algorithm: Any, at_a_time: int) -> Player:
    def player(tree: Scored, expansions: int) -> PlayedSearch:
        state, played = algorithm.init_tree(), PlayedSearch([])
        requests: dict[int, int] = {}
        while len(played.nodes) < expansions * BRANCHING:
            began = time.process_time()
            state, trials = algorithm.ask_batch(state, at_a_time, ["step"])
            played.seconds += time.process_time() - began
            reported = []
            for trial in trials:
                path = trial.parent_state or ()
                turn = requests[trial.node_to_expand] = requests.get(trial.node_to_expand, -1) + 1
                child = path if tree.ends(path) else (*path, turn % BRANCHING)
                reported.append((child, tree.score(child)))
                played.nodes.append(child)
            began = time.process_time()
            for trial, result in zip(trials, reported, strict=True):
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
        often: Expansions in a tree; 0 if it is not run in every tree.
        seldom: Expansions in one tree of `SELDOM`.
    """

    name: str
    player: Player
    often: int
    seldom: int

    def expansions(self, seed: int) -> int:
        """Expansions in the tree of a seed."""
        return self.often if seed % SELDOM else self.seldom


UCT, EIGHT = "UCT, w = 1", "UCT, w = 1, 8 leaves"
STANDARD, ADAPTIVE = "treequest StandardMCTS, √2", "treequest AB-MCTS-A"


def entries() -> list[Entry]:
    """All searches that can be played here; those that take longer are played in fewer trees."""
    match = [
        Entry(UCT, ours(), 400, 1600),
        Entry("UCT, w = 0.5", ours(w=0.5), 400, 400),
        Entry(EIGHT, ours(leaves=8), 400, 400),
    ]
    if LIBRARY is not None:
        match += [
            Entry(STANDARD, standard(2**0.5), 0, 400),
            Entry("treequest StandardMCTS, 3", standard(3.0), 0, 400),
            Entry(ADAPTIVE, adaptive(), 0, 100),
        ]
    return match


DRAWN = (UCT, EIGHT, STANDARD, ADAPTIVE)
INK = "#7a7f87"
"""For text and axes; it can be read on white and on near-black."""
WIDE, HIGH, GAP, LEFT, TOP = 190, 120, 42, 30, 56
ENDS = (18.0, 1800.0)
"""Ends of the axis of expansions."""


@dataclass(frozen=True)
class Panel:
    """One quantity over expansions: its title, its largest value, its ticks, and each search's means by expansions."""

    title: str
    most: float
    ticks: Sequence[float]
    curves: Mapping[str, Mapping[int, float]]


def draw(rows: Sequence[Sequence[Panel]]) -> str:
    """Rows of panels."""
    width, height = LEFT + len(rows[0]) * (WIDE + GAP), TOP + len(rows) * (HIGH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 8}" '
        f'font-family="system-ui, sans-serif" font-size="10" fill="{INK}">',
        "<title>Regret, visits of the best branch, and depth against expansions</title>",
        *_legend(),
    ]
    for down, row in enumerate(rows):
        for right, panel in enumerate(row):
            parts.append(f'<g transform="translate({LEFT + right * (WIDE + GAP)} {TOP + down * (HIGH + GAP)})">')
            parts += _axes(panel)
            for name, colour in zip(DRAWN, COLOURS, strict=False):
                if name in panel.curves:
                    parts.append(f'<path d="{_curve(panel.curves[name], panel)}" {_line(colour)}/>')
            parts.append("</g>")
    parts.append(f'<text x="{width // 2}" y="{height + 2}" text-anchor="middle">expansions</text>')
    return "\n".join([*parts, "</svg>\n"])


def _curve(points: Mapping[int, float], panel: Panel) -> str:
    positions = [f"{_x(n):.1f} {HIGH * (1 - y / panel.most):.1f}" for n, y in points.items() if n >= ENDS[0]]
    return "M" + "L".join(positions)


def _x(expansions: float) -> float:
    return WIDE * math.log(expansions / ENDS[0]) / math.log(ENDS[1] / ENDS[0])


def _line(colour: str) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"'


def _legend() -> Iterable[str]:
    for i, (name, colour) in enumerate(zip(DRAWN, COLOURS, strict=False)):
        x, y = LEFT + 200 * (i % 3), 10 + 16 * (i // 3)
        yield f'<path d="M{x} {y}h18" {_line(colour)}/><text x="{x + 23}" y="{y + 3}">{escape(name)}</text>'


def _axes(panel: Panel) -> Iterable[str]:
    yield f'<text x="{WIDE / 2}" y="-4" text-anchor="middle">{escape(panel.title)}</text>'
    for tick in panel.ticks:
        y = HIGH * (1 - tick / panel.most)
        yield f'<path d="M0 {y:.1f}h{WIDE}" stroke="{INK}" stroke-opacity=".25"/>'
        yield f'<text x="-4" y="{y + 3:.1f}" text-anchor="end">{tick:g}</text>'
    for n in (20, 100, 400, 1600):
        yield f'<path d="M{_x(n):.1f} {HIGH}v3" stroke="{INK}"/>'
        yield f'<text x="{_x(n):.1f}" y="{HIGH + 13}" text-anchor="middle">{n}</text>'
    yield f'<path d="M0 0V{HIGH}H{WIDE}" fill="none" stroke="{INK}"/>'


BUDGETS = (20, 100, 400, 1600)
NOISES: Mapping[Noise, str] = {"coin": "scores of 0 or 1", "beta": "beta scores"}
CHANCES = (0.8, 0.6, 0.4)
LONG = (100, 400, 1600, 6400)
Reads = dict[str, dict[int, list[SearchReading]]]
"""By search, by expansions: what each tree came to."""


def play_all(players: Sequence[Entry], noise: Noise, trees: int) -> Reads:
    """All searches in all trees."""
    match: Reads = {entry.name: {n: [] for n in BUDGETS if n <= entry.seldom} for entry in players}
    for seed in range(trees):
        tree = KnownTree(seed, noise)
        for entry in players:
            most = entry.expansions(seed)
            nodes = entry.player(tree, most).nodes
            for n, reads in match[entry.name].items():
                if n <= most:
                    reads.append(read_search(tree, nodes[: n * BRANCHING]))
        if (seed + 1) % 20 == 0:
            print(f"{noise}: {seed + 1} trees", file=sys.stderr, flush=True)
    return match


def mean(reads: Sequence[SearchReading], name: str) -> float:
    """Mean of one quantity."""
    return float(np.mean([getattr(one, name) for one in reads]))


def interval(reads: Sequence[SearchReading], name: str, digits: int, factor: float = 1.0) -> str:
    """Mean of one quantity with its interval."""
    values = factor * np.array([getattr(one, name) for one in reads], dtype=float)
    match = bootstrap(values, np.arange(len(values)), resamples=2000)
    assert match is not None, "there are several trees"
    return f"{values.mean():.{digits}f} [{match.low:.{digits}f}, {match.high:.{digits}f}]"


def regrets(match: Reads) -> str:
    """What the searches come to, by expansions."""
    rows = []
    for n in BUDGETS:
        for name, reads in ((name, by[n]) for name, by in match.items() if n in by):
            rows.append(
                [
                    str(n),
                    name,
                    str(len(reads)),
                    f"{mean(reads, 'depth'):.2f}",
                    f"{mean(reads, 'deepest'):.1f}",
                    interval(reads, "best", 1, 100),
                    interval(reads, "step_regret", 3),
                    interval(reads, "answer_regret", 3),
                ]
            )
    head = [
        "expansions",
        "search",
        "trees",
        "mean depth",
        "deepest",
        "nodes below the best step %",
        "regret of the step",
    ]
    return table([*head, "regret of the answer"], rows)


def predicted(nodes: int, w: float) -> list[float]:
    """Visits of the arms of a bandit at which UCT is indifferent between them: N = (w / (c - V))² ln(sum of N)."""
    low, high = max(CHANCES) + 1e-9, max(CHANCES) + 100.0
    for _ in range(200):
        c = (low + high) / 2
        if sum(w**2 * math.log(nodes) / (c - v) ** 2 for v in CHANCES) > nodes:
            low = c
        else:
            high = c
    return [w**2 * math.log(nodes) / (high - v) ** 2 for v in CHANCES]


def bandit(trees: int) -> str:
    """Visits of the arms of a bandit, next to those at which UCT is indifferent."""
    player = ours(max_depth=1000)
    visits: dict[int, list[list[int]]] = {n: [] for n in LONG}
    for seed in range(trees):
        nodes = player(Bandit(seed, CHANCES), max(LONG)).nodes
        for n, seen in visits.items():
            counts = Counter(path[0] for path in nodes[: n * BRANCHING])
            seen.append([counts[i] for i in range(len(CHANCES))])
    rows = []
    for n, seen in visits.items():
        means, log = np.mean(seen, axis=0), math.log(n * BRANCHING)
        expected = predicted(n * BRANCHING, 1.0)
        rows.append(
            [
                str(n),
                *(f"{a:.0f} ({b:.0f})" for a, b in zip(means, expected, strict=True)),
                *(f"{a / log:.1f}" for a in means[1:]),
                f"{100 * means[1:].sum() / means.sum():.1f}",
            ]
        )
    head = ["expansions", *(f"N of {v}" for v in CHANCES), *(f"N / ln N(root) of {v}" for v in CHANCES[1:])]
    return table([*head, "share of the worse %"], rows)


def bookkeeping(repeats: int) -> str:
    """CPU time of the searches themselves, the minimum of interleaved repeats."""
    rows = []
    for n in BUDGETS:
        least = [math.inf, math.inf]
        for seed in range(repeats):
            tree = KnownTree(seed, "beta")
            for i, player in enumerate((ours(), standard(2**0.5))):
                least[i] = min(least[i], player(tree, n).seconds)
        rows.append([str(n), *(f"{1e3 * one:.1f}" for one in least), f"{least[1] / least[0]:.1f}"])
    return table(["expansions", "ours, ms", "treequest, ms", "treequest / ours"], rows)


def panels(match: Reads, scores: str) -> list[Panel]:
    """The panels of one kind of scores, which is in the first title."""

    def curves(name: str, factor: float = 1.0) -> dict[str, dict[int, float]]:
        return {
            who: {n: factor * mean(reads, name) for n, reads in by.items()} for who, by in match.items() if who in DRAWN
        }

    return [
        Panel(f"regret of the answer, {scores}", 0.9, (0, 0.3, 0.6, 0.9), curves("answer_regret")),
        Panel("nodes below the best step, %", 100, (0, 25, 50, 75, 100), curves("best", 100)),
        Panel("depth of the deepest node", 10, (2, 4, 6, 8, 10), curves("deepest")),
    ]


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=200, help="of each kind of scores")
    parser.add_argument("--bandits", type=int, default=20, help="bandits")
    parser.add_argument("--svg", type=Path, help="write the curves")
    args = parser.parse_args()
    load, began = os.getloadavg()[0], time.process_time()
    try:
        library = f"treequest {version('treequest')}"
    except PackageNotFoundError:
        library = "without treequest"
    match = {noise: play_all(entries(), noise, args.trees) for noise in NOISES}
    for noise, reads in match.items():
        print(f"### Trees, {NOISES[noise]}\n\n{regrets(reads)}\n")
    print(f"### A bandit\n\n{bandit(args.bandits)}\n")
    if LIBRARY is not None:
        print(f"### Time of the search itself\n\n{bookkeeping(3)}\n")
    if args.svg is not None:
        args.svg.write_text(draw([panels(reads, NOISES[noise]) for noise, reads in match.items()]), encoding="utf-8")
    print(
        f"{args.trees} trees of each kind and {args.bandits} bandits, seeds from 0 on, "
        f"{time.process_time() - began:.0f} s of one processor; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; "
        f"{processor()}, {os.cpu_count()} cores, load {load:.1f} before; Python {platform.python_version()}, reason "
        f"{version('reason-orchestrator')}, numpy {np.__version__}, {library}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
