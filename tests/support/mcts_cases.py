"""What the tests of Monte Carlo tree search share: worlds that tell listed scores, rewards, samples taken anew."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import strategies as st
from reason.reasoning.search.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.tree import Continuation

from support.search_models import RandomWorld


def search(**options):
    return MonteCarloTreeSearch(MCTSOptions(**{"k": 2, "max_depth": 99, "tau": None, **options}))


def steps(*scores, **fields):
    """Different steps of these scores."""
    return [Continuation(f"{'abcdefgh'[i]} ", 1, score=score, **fields) for i, score in enumerate(scores)]


def always(*told):
    """A world that tells the same below every prefix."""
    return lambda done, expand: list(told[: expand.n])


def by_score(scores):
    """A world that tells, below each prefix, the scores listed under its name; nothing below the others."""

    def world(done, expand):
        listed = scores.get(done.tree.text(expand.node).replace(" ", ""), ())
        return steps(*listed) + [Continuation("", 0)] * (expand.n - len(listed))

    return world


def uniform(done, expand):
    """A world of scores drawn uniformly, without an end."""
    text = done.tree.text(expand.node)
    return steps(*(Random(f"{text}{i}").random() for i in range(expand.n)))


def children(done, node):
    return [child for child in done.tree if child.parent == node.id]


def subtree(done, node):
    return [node, *(below for child in children(done, node) for below in subtree(done, child))]


def name(done, node_id):
    """The steps of a prefix, without the blanks between them."""
    return done.tree.text(node_id).replace(" ", "")


def with_rewards(world):
    """The world, and rewards of what is complete."""

    def rewarded(done, expand):
        told = []
        for step in world(done, expand):
            rng = Random(f"{done.tree.text(expand.node)}|{step.text}")
            told.append(replace(step, reward=rng.randint(0, 8) / 8) if step.terminal or expand.finish else step)
        return told

    return rewarded


def resampling(world):
    """The world, asked for as many more as the search says it lacks."""

    def asked_again(done, expand):
        told = list(world(done, expand))
        while lacking := done.num_missing(expand, told):
            told += world(done, replace(expand, first=expand.first + len(told), n=lacking))
        return told

    return asked_again


seeds = st.integers(0, 10**6)
worlds = st.builds(
    RandomWorld,
    seeds,
    words=st.sampled_from([2, 8]),
    blank=st.sampled_from([0.0, 0.3]),
    unscored=st.sampled_from([0.0, 0.4]),
    ending=st.sampled_from([0.0, 0.1, 0.4]),
    unknown=st.sampled_from([0.0, 0.1, 1.0]),
)
some_options = st.fixed_dictionaries(
    {
        "k": st.integers(1, 4),
        "max_depth": st.sampled_from([1, 2, 4, 9]),
        "expansions": st.integers(1, 25),
        "w": st.sampled_from([0.0, 0.5, 1.0]),
        "policy": st.sampled_from(["uct", "puct"]),
        "leaves": st.sampled_from([1, 2, 5]),
        "virtual_loss": st.sampled_from([0.0, 1.0, 3.0]),
        "resamples": st.integers(0, 2),
        "tau": st.sampled_from([None, 0.5, 1.0]),
    }
)
