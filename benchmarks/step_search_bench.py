"""Step searches next to sampling on simulated problems: accuracy at equal tokens and passes.

    python benchmarks/step_search_bench.py --problems 300 --plot docs/results/step_search_bench.svg > tables.md

The searches of `reason.reasoning.search` solve the same simulated problems, with reward models of several qualities. A
`World` is one problem: each continuation follows from the problem, the prefix and the sample's index only, so all
searches see the same ones. A `QualityEstimator` is a process reward model with a given AUROC. Costs are those of the
searches' ledgers. Intervals: 95 % percentiles of a bootstrap over problems, paired for comparisons.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import math
import multiprocessing
import os
import platform
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from itertools import accumulate, repeat
from pathlib import Path
from random import Random
from statistics import NormalDist
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from accuracy_curves import AccuracyCurve, Array, Curves, saving, token_saving
from reason.evals.report.page import COLOURS
from reason.reasoning.search.astar import AStarOptions, AStarSearch
from reason.reasoning.search.beam import BeamOptions, BeamSearch
from reason.reasoning.search.core import Continuation, SearchLimits, SearchOutcome, StepSearch
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions
from reporting import table

Key = tuple[int, float, float]
"""A setting: steps, rho, AUC."""

BEST, FILTER, SAMPLED = "best-of-N", "particle filter", "self-consistency"
PLAIN = ("A*, k = N", "A*, k = 4, best of N/4")
RIVALS = ("beam", "DVTS", FILTER, "particle Gibbs", *PLAIN)
"""The searches, each with one choice of its answer."""
SHOWN = (BEST, SAMPLED, "best-of-N, weighted", *RIVALS)


def chain_tokens(curves: Curves) -> float:
    """Mean tokens of a plain chain."""
    return float(curves[BEST].tokens[:, curves[BEST].at(1)].mean())


def by_size(settings: Mapping[Key, Curves]) -> str:
    """Accuracy at each size with its cost, a table for each setting."""
    parts = []
    for (depth, _, auc), curves in settings.items():
        sizes = curves[BEST].sizes
        unit, widest, rows = chain_tokens(curves), 0.0, []
        for name in (name for name in SHOWN if name in curves):
            curve, cells = curves[name], [name]
            for n in sizes:
                if n not in curve.sizes:
                    cells.append("")
                    continue
                at = curve.at(n)
                mean, low, high = curve.share(n)
                widest = max(widest, high - mean, mean - low)
                cells.append(f"{100 * mean:.1f} @ {curve.tokens[:, at].mean() / unit:.1f}")
            rows.append(cells)
        head = [f"{depth} steps, AUC {auc}: accuracy % @ tokens", *(f"N = {n}" for n in sizes)]
        parts.append(
            f"{table(head, rows)}\n\nTokens are in plain chains of {unit:.0f}. No interval of an accuracy reaches "
            f"further than {100 * widest:.1f} points.\n"
        )
    return "\n".join(parts)


def at_equal_tokens(settings: Mapping[Key, Curves], size: int, names: Sequence[str] = SHOWN) -> str:
    """Accuracy less best-of-N's, in points, where each method generates the tokens of best-of-N at a size."""
    rows = [
        [str(depth), str(rho), str(auc), *_differences(curves, size, names)]
        for (depth, rho, auc), curves in settings.items()
    ]
    return table(["steps", "rho", "AUC", *_head(size, names)], rows)


def by_world(worlds: Mapping[str, Curves], size: int, names: Sequence[str]) -> str:
    """The same for worlds that have names."""
    return table(["", *_head(size, names)], [[label, *_differences(c, size, names)] for label, c in worlds.items()])


def by_choice(settings: Mapping[str, Curves], size: int) -> str:
    """The same with a row for each method and a column for each setting."""
    names = dict.fromkeys(name for curves in settings.values() for name in curves if name != BEST)
    columns = [_differences(curves, size, [BEST, *names]) for curves in settings.values()]
    rows = [[name, *(column[1 + i] for column in columns)] for i, name in enumerate(names)]
    base = [f"{BEST} itself, N = {size}", *(column[0] for column in columns)]
    return table(["", *settings], [base, *rows])


def _head(size: int, names: Sequence[str]) -> list[str]:
    return [f"{BEST}, N = {size}", *(name for name in names if name != BEST), "most accurate"]


def _differences(curves: Curves, size: int, names: Sequence[str]) -> list[str]:
    """Best-of-N's accuracy, the differences, and who is first; clearly, if its interval is above 0."""
    best = curves[BEST]
    tokens = float(best.tokens[:, best.at(size)].mean())
    mean, low, high = best.share(size)
    cells, most, first = [f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"], 0.0, BEST
    for name in names:
        if name == BEST:
            continue
        gap = token_saving(curves, name, BEST, tokens) if name in curves else None
        cells.append("" if gap is None else f"{100 * gap.value:+.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]")
        if gap is not None and gap.value > most:
            most, first = gap.value, name if gap.low > 0 else f"{name}, not clearly"
    return [*cells, first]


def at_equal_accuracy(settings: Mapping[Key, Curves]) -> str:
    """How many times the cost of best-of-N, and of the particle filter, a method saves: tables for both costs."""
    depths = list(dict.fromkeys(key[0] for key in settings))
    aucs = list(dict.fromkeys(key[2] for key in settings))
    parts = []
    for goal, other, passes in (
        (BEST, BEST, False),
        (BEST, FILTER, False),
        (FILTER, FILTER, False),
        (BEST, BEST, True),
        (BEST, FILTER, True),
    ):
        rows = []
        for depth in depths:
            here = {auc: curves for (d, _, auc), curves in settings.items() if d == depth}
            for name in RIVALS:
                if name != other:
                    ratios = [saving(here[auc], name, other, goal, 16, passes=passes) for auc in aucs]
                    rows.append([str(depth), name, *map(str, ratios)])
        unit = "passes" if passes else "tokens"
        head = ["steps", f"{unit} of the {other} / of this method, at the accuracy of the {goal} with N = 16"]
        parts.append(table([*head, *(f"AUC {auc}" for auc in aucs)], rows) + "\n")
    return "\n".join(parts)


def scaling(settings: Mapping[Key, Curves]) -> str:
    """How many times fewer tokens the particle filter needs for what beam search and DVTS reach."""
    goals = [(goal, n) for goal in ("beam", "DVTS") for n in (8, 32, 64)]
    rows = [
        [str(depth), str(auc), *(str(saving(curves, FILTER, goal, goal, n)) for goal, n in goals)]
        for (depth, _, auc), curves in settings.items()
    ]
    return table(["steps", "AUC", *(f"{goal} at N = {n}" for goal, n in goals)], rows)


DRAWN = (BEST, SAMPLED, "beam", "DVTS", FILTER, *PLAIN)
INK = "#7a7f87"
"""For text and axes; it can be read on white and on near-black."""
WIDE, HIGH, GAP, LEFT, TOP = 150, 130, 14, 40, 52
LOW, MOST = 15.0, 100.0
"""Ends of the axis of accuracy, in per cent."""
ENDS = (0.9, 80.0)
"""Ends of the axis of tokens, in plain chains."""


def draw(settings: Mapping[Key, Curves]) -> str:
    """Accuracy against tokens: a row of panels for each depth, a column for each AUC."""
    depths = list(dict.fromkeys(key[0] for key in settings))
    aucs = list(dict.fromkeys(key[2] for key in settings))
    width = LEFT + len(aucs) * (WIDE + GAP)
    height = TOP + len(depths) * (HIGH + 2 * GAP + 8) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="10" fill="{INK}">',
        "<title>Accuracy against generated tokens of searches over steps and of sampling</title>",
        *_legend(),
    ]
    for (depth, _, auc), curves in settings.items():
        left = LEFT + aucs.index(auc) * (WIDE + GAP)
        top = TOP + depths.index(depth) * (HIGH + 2 * GAP + 8)
        parts.append(f'<g transform="translate({left} {top})">')
        parts += _axes(f"{depth} steps, AUC {auc}", numbered=auc == aucs[0])
        unit = chain_tokens(curves)
        for name, colour in zip(DRAWN, COLOURS, strict=False):
            means = zip(curves[name].tokens.mean(axis=0) / unit, 100 * curves[name].credit.mean(axis=0), strict=True)
            positions = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in sorted(means) if x <= ENDS[1])
            parts.append(f'<polyline points="{positions}" {_line(name, colour)}/>')
        parts.append("</g>")
    middle = LEFT + (width - LEFT) // 2
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">generated tokens, in plain chains</text>')
    parts.append(f'<text transform="translate(10 {height // 2}) rotate(-90)" text-anchor="middle">accuracy %</text>')
    return "\n".join([*parts, "</svg>\n"])


def _x(chains: float) -> float:
    return WIDE * math.log(chains / ENDS[0]) / math.log(ENDS[1] / ENDS[0])


def _y(accuracy: float) -> float:
    return HIGH * (MOST - accuracy) / (MOST - LOW)


def _line(name: str, colour: str) -> str:
    dashes = ' stroke-dasharray="4 2"' if name in (BEST, SAMPLED) else ""
    return f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"{dashes}'


def _legend() -> Iterable[str]:
    for i, (name, colour) in enumerate(zip(DRAWN, COLOURS, strict=False)):
        x, y = LEFT + 150 * (i % 4), 10 + 16 * (i // 4)
        yield f'<path d="M{x} {y}h18" {_line(name, colour)}/><text x="{x + 23}" y="{y + 3}">{escape(name)}</text>'


def _axes(title: str, *, numbered: bool) -> Iterable[str]:
    yield f'<text x="{WIDE / 2}" y="-4" text-anchor="middle">{escape(title)}</text>'
    for accuracy in (20, 40, 60, 80, 100):
        yield f'<path d="M0 {_y(accuracy):.1f}h{WIDE}" stroke="{INK}" stroke-opacity=".25"/>'
        if numbered:
            yield f'<text x="-4" y="{_y(accuracy) + 3:.1f}" text-anchor="end">{accuracy}</text>'
    for chains in (1, 4, 16, 64):
        yield f'<path d="M{_x(chains):.1f} {HIGH}v3" stroke="{INK}"/>'
        yield f'<text x="{_x(chains):.1f}" y="{HIGH + 13}" text-anchor="middle">{chains}</text>'
    yield f'<path d="M0 0V{HIGH}H{WIDE}" fill="none" stroke="{INK}"/>'


NORMAL = NormalDist()
RIGHT = 0
"""The right answer; wrong ones are 1, 2, …, the most likely first."""

_PARTS = Struct("<8x5Q")


class Prefix(NamedTuple):
    """A solution so far.

    Attributes:
        text: Its last step. It is a digest of the whole prefix and of the sample's index, so it names the prefix.
        depth: Its number of steps.
        right: Whether nothing is wrong in it, or all that was is repaired.
        age: Steps since it went wrong, the wrong one left out; 0 while it is right.
        answer: What it will come to if all that follows is right.
        error: The reward model's error, standard normal.
        tokens: Length of the last step.
        ended: Whether it is a complete solution.
    """

    text: str
    depth: int
    right: bool
    age: int
    answer: int | None
    error: float
    tokens: int
    ended: bool


@dataclass(frozen=True)
class WorldSettings:
    """How problems are made.

    A problem has a chance q of being solved by a plain chain, sampled from a beta distribution; step t is right with
    probability q^(w_t), where the weights sum to 1 over `depth` steps. So problems of many steps are as hard as those
    of few, and their single steps easier.

    Attributes:
        depth: Steps of a solution.
        spread: A solution has from `depth - spread` to `depth + spread` steps, evenly distributed.
        solved: Both parameters of the beta distribution of q.
        uneven: 0 where all steps of a problem are equally hard; else the weights are in proportion to gamma variates of
            this squared coefficient of variation, so that large values put the difficulty into a few steps.
        repair: Chance that a step after a wrong prefix puts it right.
        wrong: Number of wrong answers. A step that goes wrong decides which of them the solution comes to.
        zipf: Wrong answer number i comes with probability in proportion to i^-zipf.
        tokens: Median length of a step; lengths are log-normal, cut off at a fifth and at three times the median.
        sigma: Standard deviation of the logarithm of the length.
        rho: Correlation of the reward model's errors in a prefix and in one that is a step longer.
    """

    depth: int = 4
    spread: int = 1
    solved: tuple[float, float] = (0.6, 1.6)
    uneven: float = 0.0
    repair: float = 0.0
    wrong: int = 12
    zipf: float = 1.2
    tokens: int = 40
    sigma: float = 0.4
    rho: float = 0.5

    @property
    def longest(self) -> int:
        """Maximum number of tokens of a step."""
        return 3 * self.tokens

    @property
    def solution(self) -> float:
        """Mean tokens of a complete solution, the cut-off left out of account."""
        return self.depth * self.tokens * math.exp(self.sigma**2 / 2)


class World:
    """One problem.

    Attributes:
        q: Chance that a plain chain of `recipe.depth` steps is right.
        p: Probability that a step from a right prefix is right, by its position from 0.
    """

    def __init__(self, recipe: WorldSettings, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        rng = Random(f"problem {seed}")
        self.q = rng.betavariate(*recipe.solved)
        shares = [
            rng.gammavariate(1 / recipe.uneven, recipe.uneven) if recipe.uneven else 1.0
            for _ in range(recipe.depth + recipe.spread)
        ]
        total = sum(shares[: recipe.depth])
        self.p = [self.q ** (share / total) for share in shares]
        self._known = {"": Prefix("", 0, True, 0, RIGHT, 0.0, 0, False)}
        self._steps: dict[tuple[str, int], Prefix] = {}
        self._sums = list(accumulate(i**-recipe.zipf for i in range(1, recipe.wrong + 1)))
        self._fresh = math.sqrt(1 - recipe.rho**2)

    def __getitem__(self, text: str) -> Prefix:
        """The prefix whose last step this is, among those that were requested; the empty text is the empty prefix."""
        return self._known[text]

    def step(self, text: str, index: int) -> Prefix:
        """A prefix with one more step: sample number `index` of its continuations."""
        made = self._steps.get((text, index))
        if made is not None:
            return made
        digest = hashlib.blake2b(f"{self.seed}|{text}|{index}".encode(), digest_size=48).digest()
        name = digest[:8].hex()
        made = self._made(name, self._known[text], *_PARTS.unpack(digest))
        self._known[name] = self._steps[text, index] = made
        return made

    def _made(self, name: str, before: Prefix, turn: int, which: int, stop: int, length: int, error: int) -> Prefix:
        """A new prefix, from five uniform 64-bit integers."""
        recipe, depth = self.recipe, before.depth + 1
        right = _uniform(turn) < (self.p[before.depth] if before.right else recipe.repair)
        answer, age = before.answer, before.age + 1
        if right:
            answer, age = RIGHT, 0
        elif before.right:
            age = 0
            answer = 1 + bisect_left(self._sums, _uniform(which) * self._sums[-1])
        fresh = NORMAL.inv_cdf(_uniform(error))
        own = fresh if before.depth == 0 else recipe.rho * before.error + self._fresh * fresh
        tokens = round(recipe.tokens * math.exp(recipe.sigma * NORMAL.inv_cdf(_uniform(length))))
        left = recipe.depth + recipe.spread - depth  # steps that may still follow
        ended = left <= 2 * recipe.spread and _uniform(stop) * (left + 1) < 1
        return Prefix(name, depth, right, age, answer, own, min(max(tokens, recipe.tokens // 5), recipe.longest), ended)

    def rest(self, text: str, index: int, most: int) -> Prefix:
        """A forced final answer: all that is left of the chain, in one piece and at its full length.

        A chain of more than `most` tokens is cut there and has no answer.
        """
        at, tokens = self.step(text, index), 0
        while True:
            tokens += at.tokens
            if at.ended or tokens > most:
                break
            at = self.step(at.text, 0)
        complete = at._replace(
            text=f"rest {text} {index}",
            answer=at.answer if tokens <= most else None,
            right=at.right and tokens <= most,
            tokens=min(tokens, most),
            ended=True,
        )
        self._known[complete.text] = complete
        return complete


def _uniform(bits: int) -> float:
    """In (0, 1), never an end."""
    return ((bits >> 12) + 0.5) / (1 << 52)


class QualityEstimator:
    """A process reward model with binormal scores.

    The evidence about a prefix is x = d'·[right] + error, with a standard normal error, so that AUC = Phi(d'/sqrt(2)).
    The score is the posterior probability of being right at even prior odds: the logistic function of the
    log-likelihood ratio d'·(x - d'/2).

    Source: Green and Swets, "Signal Detection Theory and Psychophysics" (1966).
    """

    def __init__(self, auc: float, fade: float = 1.0, lag: int = 0, clip: float = 1e-4) -> None:
        self.auc, self.fade, self.lag, self.clip = auc, fade, lag, clip
        self.d = math.inf if auc >= 1 else math.sqrt(2) * NORMAL.inv_cdf(auc)

    def __call__(self, prefix: Prefix) -> float:
        """The score of a prefix, in [clip, 1 - clip]."""
        right = prefix.right or (prefix.age < self.lag and not prefix.ended)
        if self.d == math.inf:
            return 1 - self.clip if right else self.clip
        d = self.d * self.fade ** (prefix.depth - 1)
        ratio = d * ((0.5 if right else -0.5) * d + prefix.error)
        return min(max(1 / (1 + math.exp(-ratio)), self.clip), 1 - self.clip)


SIZES = (1, 2, 4, 8, 16, 32, 64)
CHILDREN = 4
"""Continuations of a prefix in the tree searches, where the size does not state otherwise."""
ROOM = 4
"""A best-first search may spend this many times the tokens of as many plain chains as its size."""

Search: TypeAlias = StepSearch[Any, Any]
Pick: TypeAlias = Callable[[World, SearchOutcome[Any]], float]


class Run(NamedTuple):
    """What one search came to.

    Attributes:
        credits: Value of each choice of the answer, in [0, 1]; answers that tie share the credit.
        tokens: Generated tokens.
        passes: Passes of the reward model.
    """

    credits: tuple[float, ...]
    tokens: int
    passes: int


@dataclass(frozen=True)
class Method:
    """A search at several sizes.

    Attributes:
        make: The search of a size for the problems of a recipe; the integer is the problem's seed.
        picks: Ways to get an answer from it, by the name of the curve that they give.
        sizes: Its sizes; a size is roughly the number of plain chains whose tokens it costs.
        scored: Whether it needs the reward model.
    """

    make: Callable[[int, WorldSettings, int], Search]
    picks: Mapping[str, Pick]
    sizes: tuple[int, ...] = SIZES
    scored: bool = True


def play(search: Search, world: World, judge: QualityEstimator | None) -> Search:
    """Run a search to its end; without a judge nothing is scored."""
    while batch := search.ask():
        for expand in batch:
            before = search.tree[expand.node].text
            if expand.finish:
                prefixes = [world.rest(before, expand.first, expand.max_tokens)]
            else:
                prefixes = [world.step(before, expand.first + i) for i in range(expand.n)]
                if world.recipe.longest > expand.max_tokens:
                    raise ValueError(f"a step of {expand.max_tokens} tokens may be too short")
            values = []
            for prefix in prefixes:
                expected = judge is not None and (expand.score == "all" or (expand.score == "ended" and prefix.ended))
                score = judge(prefix) if judge is not None and expected else None
                values.append(Continuation(prefix.text, prefix.tokens, prefix.ended, score))
            search.tell(expand.node, values)
    return search


def credit(votes: Iterable[tuple[int | None, float]]) -> float:
    """1 where the right answer has the most weight, 0 where another has; answers that tie share."""
    sums: dict[int, float] = {}
    for answer, weight in votes:
        if answer is not None:
            sums[answer] = sums.get(answer, 0.0) + weight
    if RIGHT not in sums:
        return 0.0
    most = max(sums.values())
    first = [answer for answer, weight in sums.items() if weight >= most - 1e-9]
    return (RIGHT in first) / len(first)


def chosen_answer(world: World, outcome: SearchOutcome[Any]) -> float:
    """The solution that the search itself returns."""
    return float(outcome.chosen is not None and world[outcome.chosen.text].answer == RIGHT)


def weighted_vote(world: World, outcome: SearchOutcome[Any]) -> float:
    """A vote by the weights that the search gives."""
    result = zip(outcome.terminals, outcome.weights, strict=True)
    return credit((world[node.text].answer, weight) for node, weight in result)


def by_score(world: World, outcome: SearchOutcome[Any]) -> float:
    """A vote by the scores of the complete solutions; a forced one that was not scored counts half."""
    return credit((world[node.text].answer, 0.5 if node.score is None else node.score) for node in outcome.terminals)


def chains(n: int, recipe: WorldSettings, seed: int) -> Search:
    """`n` plain chains."""
    return BeamSearch(BeamOptions(width=n, k=1))


def beam(n: int, recipe: WorldSettings, seed: int) -> Search:
    """`n` continuations in each round."""
    k = min(n, CHILDREN)
    return BeamSearch(BeamOptions(width=n // k, k=k))


def dvts(n: int, recipe: WorldSettings, seed: int) -> Search:
    """`n` continuations in each round."""
    k = min(n, CHILDREN)
    return BeamSearch(BeamOptions(width=n // k, k=k, diverse=True))


def particles(**options: Any) -> Callable[[int, WorldSettings, int], Search]:
    """`n` particles."""
    return lambda n, recipe, seed: ParticleFilter(ParticleOptions(n=n, **options), Random(f"particles {seed} {n}"))


def gibbs(n: int, recipe: WorldSettings, seed: int) -> Search:
    """Four passes, of `n` particles together."""
    return ParticleFilter(ParticleOptions(n=n // 4, iterations=4), Random(f"gibbs {seed} {n}"))


def limits(n: int, recipe: WorldSettings) -> SearchLimits:
    """Tokens of a best-first search whose size is `n`."""
    finish = round(1.5 * recipe.solution)
    return SearchLimits(
        gen_tokens=round(ROOM * n * recipe.solution) + finish, finish_tokens=finish, min_step_tokens=recipe.longest
    )


def a_star(**options: Any) -> Callable[[int, WorldSettings, int], Search]:
    """The first complete solution, with `n` continuations of a prefix."""
    return lambda n, recipe, seed: AStarSearch(AStarOptions(k=n, limits=limits(n, recipe), **options))


def a_star_m(n: int, recipe: WorldSettings, seed: int) -> Search:
    """The best of `n / 4` complete solutions, with four continuations of a prefix."""
    k = min(n, CHILDREN)
    return AStarSearch(AStarOptions(k=k, m=n // k, limits=limits(n, recipe)))


METHODS = {
    "chains": Method(chains, {"self-consistency": weighted_vote}, scored=False),
    "best-of-N": Method(chains, {"best-of-N": chosen_answer, "best-of-N, weighted": by_score}),
    "beam": Method(beam, {"beam": chosen_answer, "beam, weighted": by_score}),
    "DVTS": Method(dvts, {"DVTS": chosen_answer, "DVTS, weighted": by_score}),
    "particles": Method(particles(), {"particle filter": weighted_vote, "particle filter, argmax": chosen_answer}),
    "Gibbs": Method(gibbs, {"particle Gibbs": weighted_vote}, sizes=(8, 16, 32, 64)),
    "A*": Method(a_star(), {"A*, k = N": chosen_answer}, sizes=SIZES[:-1]),
    "A* m": Method(a_star_m, {"A*, k = 4, best of N/4": chosen_answer, "A*, k = 4, vote of N/4": by_score}),
    "A* fall": Method(a_star(edge_cost="fall"), {"A*, k = N, fall": chosen_answer}, sizes=SIZES[:-1]),
    "A* none": Method(a_star(edge_cost="none"), {"A*, k = N, none": chosen_answer}, sizes=SIZES[:-1]),
    "systematic": Method(particles(resampling="systematic"), {"particle filter, systematic": weighted_vote}),
    "entropic": Method(particles(entropic="size"), {"particle filter, entropic": weighted_vote}),
    "telescoped": Method(particles(weight_mode="telescoped"), {"particle filter, telescoped": weighted_vote}),
}


def trial(method: Method, n: int, world: World, judge: QualityEstimator | None) -> Run:
    """One search of one problem."""
    search = play(method.make(n, world.recipe, world.seed), world, judge)
    outcome = search.outcome()
    worth = tuple(pick(world, outcome) for pick in method.picks.values())
    return Run(worth, search.cost.gen_tokens, search.cost.prm_passes)


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
"""What `FAMILY` gives, each with one choice of its answer."""
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

    recipe: WorldSettings
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


def play_all(part: Part, seeds: Sequence[int]) -> list[list[Run]]:
    """All searches of some problems, `[problems][searches]`."""
    judges = [QualityEstimator(auc, fade, lag) for auc, fade, lag in part.judges]
    rows = []
    for seed in seeds:
        world = World(part.recipe, seed)
        rows.append(
            [trial(METHODS[name], n, world, judges[at] if at >= 0 else None) for at, name, n in part.searches()]
        )
    return rows


@dataclass
class MeasuringPool:
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
        for done in self.pool.map(play_all, repeat(part), chunks):
            rows += done
        passed = time.perf_counter() - began
        self.searches += len(searches) * self.problems
        print(
            f"{part.recipe.depth} steps, rho {part.recipe.rho}, {len(part.judges)} reward models: {self.problems} "
            f"problems in {passed:.0f} s, {self.problems / passed:.1f} a second",
            file=sys.stderr,
            flush=True,
        )
        results: list[dict[str, AccuracyCurve]] = [{} for _ in part.judges]
        for name in part.methods:
            method = METHODS[name]
            for number, curves in enumerate(results):
                own = number if method.scored else -1
                columns = [i for i, (at, who, _) in enumerate(searches) if who == name and at == own]
                sizes = tuple(searches[i][2] for i in columns)
                tokens = np.array([[row[i].tokens for i in columns] for row in rows], dtype=float)
                passes = np.array([[row[i].passes for i in columns] for row in rows], dtype=float)
                for position, curve in enumerate(method.picks):
                    credit: Array = np.array([[row[i].credits[position] for i in columns] for row in rows])
                    curves[curve] = AccuracyCurve(sizes, credit, tokens, passes)
        return results


def plain(auc: float) -> tuple[float, float, int]:
    """A judge without peculiarities."""
    return auc, 1.0, 0


WORLDS: tuple[tuple[WorldSettings, dict[str, tuple[float, float, int]]], ...] = (
    (
        WorldSettings(depth=12),
        {
            "as above": plain(0.8),
            "d' fades by a tenth with each step": (0.8, 0.9, 0),
            "faults noticed 1 step late": (0.8, 1.0, 1),
            "faults noticed 2 steps late": (0.8, 1.0, 2),
            "faults noticed 4 steps late": (0.8, 1.0, 4),
            "faults noticed only at the end": (0.8, 1.0, 99),
        },
    ),
    (WorldSettings(depth=12, uneven=4.0), {"difficulty in few steps": plain(0.8)}),
    (WorldSettings(depth=12, repair=0.1), {"a tenth of the steps after a fault repair it": plain(0.8)}),
)
"""Worlds and reward models with peculiarities, by what they are called."""


def measured_settings(measure: MeasuringPool) -> dict[Key, Curves]:
    """Depths, correlations and qualities of the reward model; all sizes and methods for the middle correlation."""
    results: dict[Key, Curves] = {}
    for depth in DEPTHS:
        for rho in RHOS:
            full = rho == RHO
            aucs = AUCS if full else AUCS[:4]
            methods = (*FAMILY, "A* m", "Gibbs") if full else FAMILY
            part = Part(WorldSettings(depth=depth, rho=rho), tuple(map(plain, aucs)), methods, ALL if full else SOME)
            results |= {(depth, rho, auc): c for auc, c in zip(aucs, measure(part), strict=True)}
    return results


def measured_worlds(measure: MeasuringPool) -> dict[str, Curves]:
    """The peculiar ones."""
    results: dict[str, Curves] = {}
    for recipe, judges in WORLDS:
        curves = measure(Part(recipe, tuple(judges.values()), FAMILY, SOME))
        results |= dict(zip(judges, curves, strict=True))
    return results


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=300, help="of each setting")
    parser.add_argument("--processes", type=int, default=2, help="at most so many at a time")
    parser.add_argument("--plot", type=Path, help="write the curves as SVG")
    args = parser.parse_args()
    load, began = os.getloadavg()[0], time.perf_counter()
    # a fresh interpreter each, so that nothing of this one's threads is inherited
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        measure = MeasuringPool(pool, args.problems)
        settings, worlds = measured_settings(measure), measured_worlds(measure)
        choices = {
            f"{depth} steps": measure(Part(WorldSettings(depth=depth), (plain(0.8),), CHOICES, SOME))[0]
            for depth in DEPTHS
        }
    passed = time.perf_counter() - began
    seen = {key: result for key, result in settings.items() if key[1] == RHO}
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
    if args.plot is not None:
        args.plot.write_text(draw(seen), encoding="utf-8")
    print(
        f"{args.problems} problems for each setting, seeds from 0 on; {measure.searches:,} searches in "
        f"{passed:.0f} s on {args.processes} processes, {measure.searches / passed:,.0f} a second, load {load:.1f} "
        f"before; {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}, reason {version('reason-orchestrator')}, numpy {np.__version__}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
