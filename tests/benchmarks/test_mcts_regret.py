"""The bench of Monte Carlo tree search: its trees have the values they claim, and its searches are read off rightly."""

import itertools
import math

import mcts_regret
import pytest
from mcts_regret import (
    BEST,
    BRANCHING,
    DEPTH,
    KnownTree,
    read_search,
)


def test_value_of_a_node_is_the_largest_reward_below_it(monkeypatch):
    monkeypatch.setattr(mcts_regret, "DEPTH", 5)
    for seed in range(5):
        tree = KnownTree(seed, "coin")
        rewards = {path: tree.value(path) for path in itertools.product(range(BRANCHING), repeat=5)}
        assert max(rewards.values()) == BEST
        for depth in range(5):
            for path in itertools.product(range(BRANCHING), repeat=depth):
                below = max(reward for leaf, reward in rewards.items() if leaf[:depth] == path)
                assert tree.value(path) == below
                assert tree.finished(path) <= below
        assert len(set(rewards.values())) > 100


@pytest.mark.parametrize("noise", ["coin", "beta"])
def test_scores_are_unbiased_and_fixed(noise):
    tree = KnownTree(3, noise)
    paths = list(itertools.product(range(BRANCHING), repeat=7))
    scores = [tree.score(path) for path in paths]
    assert scores == [KnownTree(3, noise).score(path) for path in paths]
    assert all(0 <= score <= 1 for score in scores)
    assert (set(scores) <= {0.0, 1.0}) == (noise == "coin")
    bias = math.fsum(scores) / len(paths) - math.fsum(map(tree.value, paths)) / len(paths)
    assert abs(bias) < 0.03


def test_readings_of_a_search():
    tree = KnownTree(0, "beta")
    values = tree.below(())
    best = values.index(BEST)
    worst = values.index(min(values))
    leaf = (worst,) * DEPTH
    nodes = [(0,), (1,), (2,), *(leaf[:n] for n in range(2, DEPTH + 1))]
    seen = read_search(tree, nodes)
    assert (seen.deepest, seen.depth) == (DEPTH, (3 + sum(range(2, DEPTH + 1))) / len(nodes))
    assert seen.best == 1 / len(nodes)
    assert seen.step_regret == BEST - min(values)
    assert seen.answer_regret == BEST - tree.value(leaf)
    unfinished = read_search(tree, [(best,), (best, 0)])
    assert (unfinished.step_regret, unfinished.best) == (0.0, 1.0)
    assert unfinished.answer_regret == BEST - tree.finished((best, 0))
