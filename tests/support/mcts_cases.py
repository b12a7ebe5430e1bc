"""Shared by the tests of Monte Carlo tree search: worlds with listed scores, with rewards and with resampling."""

from dataclasses import replace
from random import Random

from hypothesis import strategies as st
from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.core import Continuation

from support.search_models import random_worlds


def search(**options):
    return MonteCarloTreeSearch(MCTSOptions(**{"k": 2, "max_depth": 99, "tau": None, **options}))


def steps(*scores, **fields):
    """Different steps with these scores."""
    return [Continuation(f"{'abcdefgh'[i]} ", 1, score=score, **fields) for i, score in enumerate(scores)]


def always(*results):
    """A world with the same results below every prefix."""
    return lambda done, expand: list(results[: expand.n])


def by_score(scores):
    """A world with, below each prefix, the scores listed under its name, and blank steps below the others."""

    def world(done, expand):
        listed = scores.get(done.tree.text(expand.node).replace(" ", ""), ())
        return steps(*listed) + [Continuation("", 0)] * (expand.n - len(listed))

    return world


def uniform(done, expand):
    """A world of uniform random scores without complete solutions."""
    text = done.tree.text(expand.node)
    return steps(*(Random(f"{text}{i}").random() for i in range(expand.n)))


def children(done, node):
    return [child for child in done.tree if child.parent == node.id]


def subtree(done, node):
    return [node, *(below for child in children(done, node) for below in subtree(done, child))]


def name(done, node_id):
    """The steps of a prefix without the spaces between them."""
    return done.tree.text(node_id).replace(" ", "")


def with_rewards(world):
    """The world with rewards of complete solutions."""

    def rewarded(done, expand):
        results = []
        for step in world(done, expand):
            rng = Random(f"{done.tree.text(expand.node)}|{step.text}")
            results.append(replace(step, reward=rng.randint(0, 8) / 8) if step.terminal or expand.finish else step)
        return results

    return rewarded


def resampling(world):
    """The world, sampled again for as many results as the search still misses."""

    def sample_again(done, expand):
        results = list(world(done, expand))
        while missing := done.num_missing(expand, results):
            results += world(done, replace(expand, first=expand.first + len(results), n=missing))
        return results

    return sample_again


worlds = random_worlds(ending=[0.0, 0.1, 0.4])
some_options = st.fixed_dictionaries(
    {
        "k": st.integers(1, 4),
        "max_depth": st.sampled_from([1, 2, 4, 9]),
        "expansions": st.integers(1, 25),
        "w": st.sampled_from([0.0, 0.5, 1.0]),
        "leaves": st.sampled_from([1, 2, 5]),
        "tau": st.sampled_from([None, 0.5, 1.0]),
    }
)
