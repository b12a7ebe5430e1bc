"""The searches over steps in one `World`: how each is made by its size, played, and asked for an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeAlias

from reason.reasoning.search.asking import Outcome, StepSearch
from reason.reasoning.search.beam import Beam, BeamOptions
from reason.reasoning.search.best_first import BestFirst, BestFirstOptions
from reason.reasoning.search.dvts import DVTS, DVTSOptions
from reason.reasoning.search.gibbs import GibbsOptions, ParticleGibbs
from reason.reasoning.search.limits import Limits
from reason.reasoning.search.particles import ParticleFilter
from reason.reasoning.search.population import ParticleOptions
from reason.reasoning.search.tree import Continuation
from step_worlds import RIGHT, Judge, Recipe, World

SIZES = (1, 2, 4, 8, 16, 32, 64)
CHILDREN = 4
"""Continuations of a prefix in the tree searches, where the size does not say otherwise."""
ROOM = 4
"""A best-first search may spend this many times the tokens of as many plain chains as its size."""

Search: TypeAlias = StepSearch[Any, Any]
Pick: TypeAlias = Callable[[World, Outcome[Any]], float]


class Run(NamedTuple):
    """What one search came to.

    Attributes:
        credits: What each way of picking the answer is worth, in [0, 1]; answers that tie share the credit.
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

    make: Callable[[int, Recipe, int], Search]
    picks: Mapping[str, Pick]
    sizes: tuple[int, ...] = SIZES
    scored: bool = True


def play(search: Search, world: World, judge: Judge | None) -> Search:
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
            told = []
            for prefix in prefixes:
                wanted = judge is not None and (expand.score == "all" or (expand.score == "ended" and prefix.ended))
                score = judge(prefix) if judge is not None and wanted else None
                told.append(Continuation(prefix.text, prefix.tokens, prefix.ended, score))
            search.tell(expand.node, told)
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


def chosen(world: World, outcome: Outcome[Any]) -> float:
    """The solution that the search itself returns."""
    return float(outcome.chosen is not None and world[outcome.chosen.text].answer == RIGHT)


def weighed(world: World, outcome: Outcome[Any]) -> float:
    """A vote by the weights that the search gives."""
    found = zip(outcome.terminals, outcome.weights, strict=True)
    return credit((world[node.text].answer, weight) for node, weight in found)


def by_score(world: World, outcome: Outcome[Any]) -> float:
    """A vote by the scores of the complete solutions; a forced one that was not scored counts half."""
    return credit((world[node.text].answer, 0.5 if node.score is None else node.score) for node in outcome.terminals)


def chains(n: int, recipe: Recipe, seed: int) -> Search:
    """`n` plain chains."""
    return Beam(BeamOptions(width=n, k=1, distinct=False))


def beam(n: int, recipe: Recipe, seed: int) -> Search:
    """`n` continuations in each round."""
    k = min(n, CHILDREN)
    return Beam(BeamOptions(width=n // k, k=k))


def dvts(n: int, recipe: Recipe, seed: int) -> Search:
    """`n` continuations in each round."""
    k = min(n, CHILDREN)
    return DVTS(DVTSOptions(subtrees=n // k, k=k))


def particles(**options: Any) -> Callable[[int, Recipe, int], Search]:
    """`n` particles."""
    return lambda n, recipe, seed: ParticleFilter(ParticleOptions(n=n, **options), Random(f"particles {seed} {n}"))


def gibbs(n: int, recipe: Recipe, seed: int) -> Search:
    """Four passes, of `n` particles together."""
    return ParticleGibbs(GibbsOptions(n=n // 4, iterations=4), Random(f"gibbs {seed} {n}"))


def limits(n: int, recipe: Recipe) -> Limits:
    """Tokens of a best-first search whose size is `n`."""
    finish = round(1.5 * recipe.solution)
    return Limits(
        gen_tokens=round(ROOM * n * recipe.solution) + finish, finish_tokens=finish, least_step_tokens=recipe.longest
    )


def a_star(**options: Any) -> Callable[[int, Recipe, int], Search]:
    """The first complete solution, with `n` continuations of a prefix."""
    return lambda n, recipe, seed: BestFirst(BestFirstOptions(k=n, limits=limits(n, recipe), **options))


def a_star_m(n: int, recipe: Recipe, seed: int) -> Search:
    """The best of `n / 4` complete solutions, with four continuations of a prefix."""
    k = min(n, CHILDREN)
    return BestFirst(BestFirstOptions(k=k, stop="best_of_m", m=n // k, limits=limits(n, recipe)))


METHODS = {
    "chains": Method(chains, {"self-consistency": weighed}, scored=False),
    "best-of-N": Method(chains, {"best-of-N": chosen, "best-of-N, weighted": by_score}),
    "beam": Method(beam, {"beam": chosen, "beam, weighted": by_score}),
    "DVTS": Method(dvts, {"DVTS": chosen, "DVTS, weighted": by_score}),
    "particles": Method(particles(), {"particle filter": weighed, "particle filter, argmax": chosen}),
    "Gibbs": Method(gibbs, {"particle Gibbs": weighed}, sizes=(8, 16, 32, 64)),
    "A*": Method(a_star(), {"A*, k = N": chosen}, sizes=SIZES[:-1]),
    "A* m": Method(a_star_m, {"A*, k = 4, best of N/4": chosen, "A*, k = 4, vote of N/4": by_score}),
    "A* fall": Method(a_star(edge_cost="fall"), {"A*, k = N, fall": chosen}, sizes=SIZES[:-1]),
    "A* none": Method(a_star(edge_cost="none"), {"A*, k = N, none": chosen}, sizes=SIZES[:-1]),
    "systematic": Method(particles(resampling="systematic"), {"particle filter, systematic": weighed}),
    "entropic": Method(particles(entropic="size"), {"particle filter, entropic": weighed}),
    "telescoped": Method(particles(weight_mode="telescoped", level="logit"), {"particle filter, telescoped": weighed}),
}


def trial(method: Method, n: int, world: World, judge: Judge | None) -> Run:
    """One search of one problem."""
    search = play(method.make(n, world.recipe, world.seed), world, judge)
    outcome = search.outcome()
    worth = tuple(pick(world, outcome) for pick in method.picks.values())
    return Run(worth, search.ledger.gen_tokens, search.ledger.prm_passes)
