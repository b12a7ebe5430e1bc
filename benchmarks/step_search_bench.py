"""Searches over steps against sampling, in worlds without a language model: accuracy at equal tokens and passes.

    python benchmarks/step_search_bench.py --problems 300 --plot docs/results/step_search_bench.svg > tables.md

The cores of `reason.reasoning.search` play the problems of `step_worlds`, all of them the same, with reward models of
several qualities. Cost is what their ledgers say. Intervals are 95 % percentiles of a bootstrap over problems, paired
where two methods are compared. What is measured goes into the tables and the plot alone.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import repeat
from pathlib import Path

import numpy as np
from step_curves import Array, Curves, Measured
from step_methods import METHODS, Run, trial
from step_plot import draw
from step_tables import Key, at_equal_accuracy, at_equal_tokens, by_choice, by_size, by_world, scaling
from step_worlds import Judge, Recipe, World

DEPTHS = (4, 12)
AUCS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
RHOS = (0.0, 0.5, 0.9)
RHO = 0.5
FAMILY = ("chains", "best-of-N", "beam", "DVTS", "particles", "A*")
CHOICES = (
    "best-of-N",
    "beam",
    "DVTS",
    "particles",
    "systematic",
    "entropic",
    "telescoped",
    "A*",
    "A* fall",
    "A* none",
    "A* m",
)
COMPARED = ("best-of-N", "self-consistency", "beam", "DVTS", "particle filter", "A*, k = N")
"""What `FAMILY` gives, each with one way to pick its answer."""
ALL = (1, 2, 4, 8, 16, 32, 64)
SOME = (2, 4, 8, 16)
"""Sizes that suffice around the tokens of best-of-N with N = 8."""
CHUNK = 5
"""Problems that a process takes at a time."""


@dataclass(frozen=True)
class Part:
    """A set of measurements on the same problems.

    Attributes:
        recipe: How the problems are made.
        judges: The reward models, each by its arguments (AUC, fade, lag).
        methods: Names of the searches.
        sizes: Sizes, of those that a search has.
    """

    recipe: Recipe
    judges: tuple[tuple[float, float, int], ...]
    methods: tuple[str, ...]
    sizes: tuple[int, ...]

    def searches(self) -> list[tuple[int, str, int]]:
        """Each search of a problem: the judge's number, -1 without one; the method's name; the size."""
        made = []
        for number in range(-1, len(self.judges)):
            for name in self.methods:
                if METHODS[name].scored == (number >= 0):
                    made += [(number, name, n) for n in METHODS[name].sizes if n in self.sizes]
        return made


def played(part: Part, seeds: Sequence[int]) -> list[list[Run]]:
    """All searches of some problems, `[problems][searches]`."""
    judges = [Judge(auc, fade, lag) for auc, fade, lag in part.judges]
    rows = []
    for seed in seeds:
        world = World(part.recipe, seed)
        rows.append(
            [trial(METHODS[name], n, world, judges[at] if at >= 0 else None) for at, name, n in part.searches()]
        )
    return rows


@dataclass
class Measuring:
    """Measurements by a pool of processes.

    Attributes:
        pool: The processes.
        problems: Problems of each part: those with the seeds from 0 on.
        searches: Searches played so far.
    """

    pool: ProcessPoolExecutor
    problems: int
    searches: int = 0

    def __call__(self, part: Part) -> Sequence[Curves]:
        """The curves under each judge of a part."""
        began, searches = time.perf_counter(), part.searches()
        chunks = [range(at, min(at + CHUNK, self.problems)) for at in range(0, self.problems, CHUNK)]
        rows: list[list[Run]] = []
        for done in self.pool.map(played, repeat(part), chunks):
            rows += done
        passed = time.perf_counter() - began
        self.searches += len(searches) * self.problems
        print(
            f"{part.recipe.depth} steps, rho {part.recipe.rho}, {len(part.judges)} reward models: {self.problems} "
            f"problems in {passed:.0f} s, {self.problems / passed:.1f} a second",
            file=sys.stderr,
            flush=True,
        )
        found: list[dict[str, Measured]] = [{} for _ in part.judges]
        for name in part.methods:
            method = METHODS[name]
            for number, curves in enumerate(found):
                own = number if method.scored else -1
                columns = [i for i, (at, who, _) in enumerate(searches) if who == name and at == own]
                sizes = tuple(searches[i][2] for i in columns)
                tokens = np.array([[row[i].tokens for i in columns] for row in rows], dtype=float)
                passes = np.array([[row[i].passes for i in columns] for row in rows], dtype=float)
                for place, curve in enumerate(method.picks):
                    credit: Array = np.array([[row[i].credits[place] for i in columns] for row in rows])
                    curves[curve] = Measured(sizes, credit, tokens, passes)
        return found


def plain(auc: float) -> tuple[float, float, int]:
    """A judge without peculiarities."""
    return auc, 1.0, 0


WORLDS: tuple[tuple[Recipe, dict[str, tuple[float, float, int]]], ...] = (
    (
        Recipe(depth=12),
        {
            "as above": plain(0.8),
            "d' fades by a tenth with each step": (0.8, 0.9, 0),
            "faults noticed 1 step late": (0.8, 1.0, 1),
            "faults noticed 2 steps late": (0.8, 1.0, 2),
            "faults noticed 4 steps late": (0.8, 1.0, 4),
            "faults noticed at the end alone": (0.8, 1.0, 99),
        },
    ),
    (Recipe(depth=12, uneven=4.0), {"difficulty in few steps": plain(0.8)}),
    (Recipe(depth=12, repair=0.1), {"a tenth of the steps after a fault repair it": plain(0.8)}),
)
"""Worlds and reward models with peculiarities, by what they are called."""


def measured_settings(measure: Measuring) -> dict[Key, Curves]:
    """Depths, correlations and qualities of the reward model; all sizes and methods for the middle correlation."""
    found: dict[Key, Curves] = {}
    for depth in DEPTHS:
        for rho in RHOS:
            full = rho == RHO
            aucs = AUCS if full else AUCS[:4]
            methods = (*FAMILY, "A* m", "Gibbs") if full else FAMILY
            part = Part(Recipe(depth=depth, rho=rho), tuple(map(plain, aucs)), methods, ALL if full else SOME)
            found |= {(depth, rho, auc): c for auc, c in zip(aucs, measure(part), strict=True)}
    return found


def measured_worlds(measure: Measuring) -> dict[str, Curves]:
    """The peculiar ones."""
    found: dict[str, Curves] = {}
    for recipe, judges in WORLDS:
        curves = measure(Part(recipe, tuple(judges.values()), FAMILY, SOME))
        found |= dict(zip(judges, curves, strict=True))
    return found


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300, help="of each setting")
    parser.add_argument("--processes", type=int, default=2, help="at most so many at a time")
    parser.add_argument("--plot", type=Path, help="write the curves as SVG")
    given = parser.parse_args()
    load, began = os.getloadavg()[0], time.perf_counter()
    # a fresh interpreter each, so that nothing of this one's threads is inherited
    with ProcessPoolExecutor(given.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        measure = Measuring(pool, given.problems)
        settings, worlds = measured_settings(measure), measured_worlds(measure)
        choices = {
            f"{depth} steps": measure(Part(Recipe(depth=depth), (plain(0.8),), CHOICES, SOME))[0] for depth in DEPTHS
        }
    passed = time.perf_counter() - began
    seen = {key: found for key, found in settings.items() if key[1] == RHO}
    print("### By size\n")
    print(by_size({key: seen[key] for key in seen if key[2] in (0.6, 0.8, 0.95)}))
    print("### At equal tokens\n")
    print(at_equal_tokens(seen, 4) + "\n")
    print(at_equal_tokens(seen, 16) + "\n")
    print(at_equal_tokens(settings, 8, COMPARED) + "\n")
    print("### At equal accuracy\n")
    print(at_equal_accuracy(seen))
    print(scaling(seen) + "\n")
    print("### Other worlds\n")
    print(by_world(worlds, 8, COMPARED) + "\n")
    print("### Choices\n")
    print(by_choice(choices, 8) + "\n")
    if given.plot is not None:
        given.plot.write_text(draw(seen), encoding="utf-8")
    print(
        f"{given.problems} problems for each setting, seeds from 0 on; {measure.searches:,} searches in "
        f"{passed:.0f} s on {given.processes} processes, {measure.searches / passed:,.0f} a second, load {load:.1f} "
        f"before; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}, reason {version('reason-orchestrator')}, numpy {np.__version__}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
