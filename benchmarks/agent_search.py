"""Search over an agent's actions beside whole loops, at equal calls, in worlds whose costs are known.

    python benchmarks/agent_search.py [--tasks 200] [--seeds 8] [--markdown FILE]

A task is `STEPS` changes in order. A turn of the agent makes the next change with the probability of its step, which
all attempts at the task share, else wastes a call or breaks something. While something is broken the turns go on; a
turn notices and mends it with a probability of the world. The agent ends when it believes that all changes are made,
and the task is solved if nothing is broken then. The state is a value, so a world can be forked before each turn.

Beam search is the core of `reasoning/search/beam` over turns, each continuation in a fork of its own. Loops are chosen
by the rules of `agents/trajectories/selection`. The value of a state is

    tests, share         the share of the task's tests that pass in it, without error and without a call
    tests, exit status   1 if all pass, else 0
    judge .65, .80       a rating, a call each, that prefers a sound state to a broken one with this probability

Loops of the rules `tests` and `judge` are chosen by the same values of their last states. Calls are turns and ratings.
The number of loops is the first whose mean calls are not below the beam's, which favours them by less than one loop.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Final

import numpy as np
from reason.agents.trajectories.selection import choose
from reason.agents.trajectories.trajectory import Trajectory
from reason.core.types import Question
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired, holm
from reason.reasoning.answers.equivalence import Equivalence
from reason.reasoning.search.beam import BeamOptions, BeamSearch
from reason.reasoning.search.core import Continuation
from reporting import made_here, table

STEPS: Final = 8
MAX_TURNS: Final = 24
MAX_LOOPS: Final = 24
SPREAD: Final = 0.2
"""Standard deviation of the probability of a right turn over steps and tasks."""
HARM: Final = 0.4
"""Share of wrong turns that break something; the others waste a call."""
BEAMS: Final = ((1, 3), (2, 2), (2, 4))
"""Width and continuations."""


@dataclass(frozen=True)
class World:
    """Tasks of one kind.

    Attributes:
        right: Mean probability that a turn makes the next change.
        mend: Probability that a turn notices what is broken, and mends it.
    """

    right: float
    mend: float


WORLDS: Final = (World(0.8, 0.0), World(0.8, 0.5), World(0.6, 0.0), World(0.6, 0.5))


@dataclass(frozen=True)
class State:
    """A state of the world and of the agent in it; `damage` is the number of tests that fail for it."""

    progress: int = 0
    damage: int = 0
    turns: int = 0
    has_ended: bool = False

    @property
    def is_solved(self) -> bool:
        return self.has_ended and not self.damage

    @property
    def share(self) -> float:
        """The share of the task's tests that pass."""
        return max(0, self.progress - self.damage) / STEPS


def turn(state: State, steps: Sequence[float], world: World, rng: Random) -> State:
    """The state after one more turn."""
    state = replace(state, turns=state.turns + 1)
    if state.damage and rng.random() < world.mend:
        return replace(state, damage=0)
    if state.progress == STEPS:
        return replace(state, has_ended=True)
    if rng.random() < steps[state.progress]:
        return replace(state, progress=state.progress + 1)
    if not state.damage and rng.random() < HARM:
        return replace(state, damage=rng.randint(1, 3))
    return state


@dataclass(frozen=True)
class Signal:
    """What a state is worth, and how many calls it costs to know."""

    name: str
    calls: int
    value: Callable[[State, Random], float]


def judge(auc: float) -> Signal:
    """A judge that rates a sound state above a broken one of equal progress with a probability."""
    distance = 2**0.5 * NormalDist().inv_cdf(auc)

    def value(state: State, rng: Random) -> float:
        return NormalDist().cdf((0.0 if state.damage else distance) + state.progress / STEPS + rng.gauss(0, 1) - 1)

    return Signal(f"judge {auc:.2f}", 1, value)


SIGNALS: Final = (
    Signal("tests, share", 0, lambda state, rng: state.share),
    Signal("tests, exit status", 0, lambda state, rng: float(state.share == 1)),
    judge(0.65),
    judge(0.8),
)


def beam(width: int, k: int, signal: Signal, steps: Sequence[float], world: World, rng: Random) -> tuple[bool, int]:
    """Whether beam search over turns solves a task, and its calls."""
    search = BeamSearch(BeamOptions(width=width, k=k, max_depth=MAX_TURNS))
    calls = 0
    while batch := search.ask():
        for request in batch:
            before = state_of(search.tree[request.node].text)
            after = [
                replace(before, has_ended=True) if request.finish else turn(before, steps, world, rng)
                for _ in range(request.n)
            ]
            calls += request.n * (1 + signal.calls)
            search.tell(
                request,
                [Continuation(repr(one), 1, one.has_ended, score=signal.value(one, rng)) for one in after],
            )
    chosen = search.outcome().chosen
    return chosen is not None and state_of(chosen.text).is_solved, calls


def state_of(text: str) -> State:
    """The state that a node's text names: equal states of siblings count once, as equal calls would."""
    found = re.fullmatch(r"State\(progress=(\d+), damage=(\d+), turns=(\d+), has_ended=(\w+)\)", text)
    return State() if found is None else State(int(found[1]), int(found[2]), int(found[3]), found[4] == "True")


@dataclass(frozen=True)
class Loops:
    """The results of one rule over n = 1 … `MAX_LOOPS` loops of a task: solved and calls, `[n]` each."""

    solved: list[bool]
    calls: list[int]


async def loops(rule: str, signal: Signal, steps: Sequence[float], world: World, rng: Random) -> Loops:
    """Loops side by side, of which the rule chooses one."""
    ends = []
    for _ in range(MAX_LOOPS):
        state = State()
        while not state.has_ended and state.turns < MAX_TURNS:
            state = turn(state, steps, world, rng)
        ends.append(state)
    made = [
        Trajectory(index=i, ended=s.has_ended, num_calls=s.turns, num_turns=s.turns, tokens=s.turns, seconds=s.turns)
        for i, s in enumerate(ends)
    ]
    values = [signal.value(state, rng) for state in ends]
    solved, calls = [], []
    for n in range(1, MAX_LOOPS + 1):
        some = made[:n]

        async def tests(chosen: Sequence[Trajectory]) -> list[float | None]:
            return [values[one.index] for one in chosen]

        choice = await choose(
            "tests" if rule == "judge" else rule,
            some,
            tools=(),
            question=Question(text="task"),
            equivalence=EQUIVALENCE,
            tests=tests,
        )
        assert choice.position is not None
        last = ends[choice.position]
        solved.append(last.is_solved)
        if rule == "race" and last.has_ended:
            calls.append(sum(min(state.turns, last.turns) for state in ends[:n]))
        else:
            calls.append(sum(state.turns for state in ends[:n]) + (n * signal.calls if rule == "judge" else 0))
    return Loops(solved, calls)


EQUIVALENCE: Final = Equivalence()
HEAD: Final = (
    "right, mend",
    "value",
    "width, k",
    "calls",
    "beam",
    "`race`",
    "`ended-fewest-calls`",
    "`tests`, `judge`",
)


async def measure(num_tasks: int, num_seeds: int) -> str:
    """The table."""
    rows, ps, kept = [], [], []
    for world in WORLDS:
        rng = Random(f"tasks {world}")
        tasks = [[min(0.98, max(0.05, rng.gauss(world.right, SPREAD))) for _ in range(STEPS)] for _ in range(num_tasks)]
        results: dict[str, list[list[Loops]]] = {}
        for signal in SIGNALS:
            rules = ("race", "ended-fewest-calls", "judge" if signal.calls else "tests")
            results.pop(rules[-1], None)  # only this rule sees the value
            for rule in (rule for rule in rules if rule not in results):
                results[rule] = [
                    [await loops(rule, signal, steps, world, Random(f"{rule} {t} {seed}")) for seed in range(num_seeds)]
                    for t, steps in enumerate(tasks)
                ]
            for width, k in BEAMS:
                found = np.array(
                    [
                        [beam(width, k, signal, steps, world, Random(f"beam {t} {s}")) for s in range(num_seeds)]
                        for t, steps in enumerate(tasks)
                    ],
                    dtype=float,
                )  # [tasks, seeds, (solved, calls)]
                calls = float(found[..., 1].mean())
                cells = []
                for rule in rules:
                    means = [np.mean([one.calls[n] for row in results[rule] for one in row]) for n in range(MAX_LOOPS)]
                    n = next((n for n, mean in enumerate(means) if mean >= calls), MAX_LOOPS - 1)
                    own = np.array([[one.solved[n] for one in row] for row in results[rule]], dtype=float)
                    paired = compare_paired(outcomes(found[..., 0]), outcomes(own))
                    ps.append(paired.p)
                    cells.append((f"{100 * own.mean():.1f} ({n + 1})", paired))
                kept.append((world, signal.name, f"{width}, {k}", calls, 100 * found[..., 0].mean(), cells))
    adjusted = iter(holm(ps))
    for world, name, size, calls, mean, cells in kept:
        texts = []
        for text, paired in cells:
            mark = {"shown": "+", "refuted": "-", "not shown": "="}[paired.status(next(adjusted))]
            ends = paired.interval
            texts.append(f"{text} {mark}" + (f" [{100 * ends.low:+.1f}, {100 * ends.high:+.1f}]" if ends else ""))
        rows.append([f"{world.right:.1f}, {world.mend:.1f}", name, size, f"{calls:.0f}", f"{mean:.1f}", *texts])
    return f"{table(HEAD, rows)}\n\n{num_tasks} tasks, {num_seeds} seeds; {made_here()}"


def outcomes(values: np.ndarray) -> Outcomes:
    """Solved or not by task and seed."""
    return Outcomes(ids=tuple(str(i) for i in range(len(values))), scores=values, clusters=np.arange(len(values)))


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    text = asyncio.run(measure(arguments.tasks, arguments.seeds))
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
