"""The bench of Monte Carlo tree search: its trees have the values they claim, and its searches are read off rightly."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import mcts_regret
import pytest
from mcts_regret import (
    ADAPTIVE,
    BEST,
    BRANCHING,
    CHANCES,
    DEPTH,
    EIGHT,
    UCT,
    Bandit,
    KnownTree,
    Panel,
    draw,
    entries,
    ours,
    play_all,
    predicted,
    read_search,
    regrets,
)
from reason.reasoning.search.mcts import uct


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


def test_smaller_budget_gives_the_first_part_of_a_larger_one():
    for entry in entries():
        if entry.name == ADAPTIVE:
            continue  # draws by chance
        tree = KnownTree(1, "coin")
        whole, part = entry.player(tree, 60).nodes, entry.player(tree, 25).nodes
        assert (len(part), whole[:75]) == (75, part)


def test_depth_and_visits_grow_with_the_expansions_and_regret_falls():
    result = play_all([replace(entry, seldom=400) for entry in entries() if entry.name in (UCT, EIGHT)], "beta", 12)
    for by in result.values():
        means = {
            name: [sum(getattr(one, name) for one in reads) / len(reads) for reads in by.values()]
            for name in ("depth", "deepest", "best", "answer_regret")
        }
        for name in ("depth", "deepest", "best"):
            assert means[name] == sorted(means[name])
        assert means["deepest"][0] > 2
        assert means["answer_regret"] == sorted(means["answer_regret"], reverse=True)
    assert regrets(result).count(UCT) == 6


def test_arms_have_equal_bounds_at_the_predicted_visits():
    for nodes in (300, 3000):
        visits = predicted(nodes, 1.0)
        assert sum(visits) == pytest.approx(nodes)
        worth = [uct(v, n, nodes, 1.0) for v, n in zip(CHANCES, visits, strict=True)]
        assert worth == pytest.approx([worth[0]] * 3)


def test_worse_arms_of_a_bandit_get_a_falling_share():
    shares = []
    for n in (50, 400):
        paths = ours(max_depth=1000)(Bandit(2, CHANCES), n).nodes
        shares.append(sum(path[0] > 0 for path in paths) / len(paths))
    assert shares[1] < shares[0] / 2


def test_drawing_is_well_formed_and_has_every_curve():
    panel = Panel("regret", 1.0, (0, 1), {UCT: {20: 0.5, 100: 0.25}})
    text = draw([[panel, panel]])
    assert text.count("<g ") == text.count("</g>") == 2
    assert text.count('<path d="M4.3 60.0L') == 2  # half way down, at 20 expansions
    assert "&lt;" not in text
