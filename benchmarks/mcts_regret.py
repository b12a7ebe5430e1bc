"""Monte Carlo tree search in trees of known values: depth, visits, regret, and time, beside the library treequest.

    python benchmarks/mcts_regret.py --trees 200 --svg docs/results/mcts_regret.svg > tables.md

`mcts_trees` says what the trees and the scores are, `mcts_players` what is played. An expansion is three new nodes for
all of them. Intervals are 95 % percentiles of a bootstrap over trees. Without treequest its rows are left out.
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
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from machine import processor
from mcts_players import LIBRARY, Entry, entries, ours, standard
from mcts_plot import DRAWN, Panel, draw
from mcts_trees import BRANCHING, Bandit, KnownTree, Noise, Read, read
from reason.evals.statistics.intervals import bootstrap
from step_curves import table

BUDGETS = (20, 100, 400, 1600)
NOISES: Mapping[Noise, str] = {"coin": "scores of 0 or 1", "beta": "beta scores"}
CHANCES = (0.8, 0.6, 0.4)
LONG = (100, 400, 1600, 6400)
OPTILLM = {2: (2, 3, 14), 20: (2, 36, 140), 100: (2, 141, 700)}
"""Depth, children of the widest node, and model calls of `mcts` in optillm 0.4.0 by simulations; measured elsewhere,
with a stub for its model."""

Reads = dict[str, dict[int, list[Read]]]
"""By search, by expansions: what each tree came to."""


def played(players: Sequence[Entry], noise: Noise, trees: int) -> Reads:
    """All searches in all trees."""
    found: Reads = {entry.name: {n: [] for n in BUDGETS if n <= entry.seldom} for entry in players}
    for seed in range(trees):
        tree = KnownTree(seed, noise)
        for entry in players:
            most = entry.expansions(seed)
            nodes = entry.player(tree, most).nodes
            for n, reads in found[entry.name].items():
                if n <= most:
                    reads.append(read(tree, nodes[: n * BRANCHING]))
        if (seed + 1) % 20 == 0:
            print(f"{noise}: {seed + 1} trees", file=sys.stderr, flush=True)
    return found


def mean(reads: Sequence[Read], name: str) -> float:
    """Mean of one quantity."""
    return float(np.mean([getattr(one, name) for one in reads]))


def interval(reads: Sequence[Read], name: str, digits: int, factor: float = 1.0) -> str:
    """Mean of one quantity with its interval."""
    values = factor * np.array([getattr(one, name) for one in reads], dtype=float)
    found = bootstrap(values, np.arange(len(values)), resamples=2000)
    assert found is not None, "there are several trees"
    return f"{values.mean():.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def regrets(found: Reads) -> str:
    """What the searches come to, by expansions."""
    rows = []
    for n in BUDGETS:
        for name, reads in ((name, by[n]) for name, by in found.items() if n in by):
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
    """Visits of the ways of a bandit at which UCT is indifferent between them: N = (w / (c - V))² ln(sum of N)."""
    low, high = max(CHANCES) + 1e-9, max(CHANCES) + 100.0
    for _ in range(200):
        c = (low + high) / 2
        if sum(w**2 * math.log(nodes) / (c - v) ** 2 for v in CHANCES) > nodes:
            low = c
        else:
            high = c
    return [w**2 * math.log(nodes) / (high - v) ** 2 for v in CHANCES]


def bandit(trees: int) -> str:
    """Visits of the ways of a bandit, beside those at which UCT is indifferent."""
    player = ours(max_depth=10**6)
    visits: dict[int, list[list[int]]] = {n: [] for n in LONG}
    for seed in range(trees):
        nodes = player(Bandit(seed, CHANCES), max(LONG)).nodes
        for n, seen in visits.items():
            counts = Counter(path[0] for path in nodes[: n * BRANCHING])
            seen.append([counts[i] for i in range(len(CHANCES))])
    rows = []
    for n, seen in visits.items():
        means, log = np.mean(seen, axis=0), math.log(n * BRANCHING)
        wanted = predicted(n * BRANCHING, 1.0)
        rows.append(
            [
                str(n),
                *(f"{a:.0f} ({b:.0f})" for a, b in zip(means, wanted, strict=True)),
                *(f"{a / log:.1f}" for a in means[1:]),
                f"{100 * means[1:].sum() / means.sum():.1f}",
            ]
        )
    head = ["expansions", *(f"N of {v}" for v in CHANCES), *(f"N / ln N(root) of {v}" for v in CHANCES[1:])]
    return table([*head, "share of the worse %"], rows)


def bookkeeping(repeats: int) -> str:
    """Processor time of the searches' own work, least of some repeats taken in turn."""
    rows = []
    for n in BUDGETS:
        least = [math.inf, math.inf]
        for seed in range(repeats):
            tree = KnownTree(seed, "beta")
            for i, player in enumerate((ours(), standard(2**0.5))):
                least[i] = min(least[i], player(tree, n).seconds)
        rows.append([str(n), *(f"{1e3 * one:.1f}" for one in least), f"{least[1] / least[0]:.1f}"])
    return table(["expansions", "ours, ms", "treequest, ms", "treequest / ours"], rows)


def panels(found: Reads, scores: str) -> list[Panel]:
    """The panels of one kind of scores, said in the first title."""

    def curves(name: str, factor: float = 1.0) -> dict[str, dict[int, float]]:
        return {
            who: {n: factor * mean(reads, name) for n, reads in by.items()} for who, by in found.items() if who in DRAWN
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
    given = parser.parse_args()
    load, began = os.getloadavg()[0], time.process_time()
    try:
        library = f"treequest {version('treequest')}"
    except PackageNotFoundError:
        library = "without treequest"
    found = {noise: played(entries(), noise, given.trees) for noise in NOISES}
    for noise, reads in found.items():
        print(f"### Trees, {NOISES[noise]}\n\n{regrets(reads)}\n")
    print(f"### A bandit\n\n{bandit(given.bandits)}\n")
    if LIBRARY is not None:
        print(f"### Time of the search itself\n\n{bookkeeping(3)}\n")
    rows = [[str(n), *map(str, facts)] for n, facts in OPTILLM.items()]
    print("### OptiLLM, measured elsewhere\n")
    print(table(["simulations", "deepest", "children of the widest node", "model calls"], rows) + "\n")
    if given.svg is not None:
        depths = {n: float(facts[0]) for n, facts in OPTILLM.items()}
        given.svg.write_text(
            draw([panels(reads, NOISES[noise]) for noise, reads in found.items()], depths), encoding="utf-8"
        )
    print(
        f"{given.trees} trees of each kind and {given.bandits} bandits, seeds from 0 on, "
        f"{time.process_time() - began:.0f} s of one processor; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; "
        f"{processor()}, {os.cpu_count()} cores, load {load:.1f} before; Python {platform.python_version()}, reason "
        f"{version('reason-orchestrator')}, numpy {np.__version__}, {library}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
