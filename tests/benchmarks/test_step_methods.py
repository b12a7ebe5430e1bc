"""The methods of the search bench: one world for all, honest accounting, and results that can be had another way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from accuracy_curves import AccuracyCurve, Ratio, needed, saving
from reason.reasoning.search.astar import AStarOptions, AStarSearch
from step_search_bench import METHODS, RIGHT, QualityEstimator, World, WorldSettings, credit, play, trial


def direct(world, n):
    """`n` plain chains without any search: their answers, lengths and last prefixes."""
    ends, tokens = [], 0
    for i in range(n):
        at = world.step("", i)
        tokens += at.tokens
        while not at.ended:
            at = world.step(at.text, 0)
            tokens += at.tokens
        ends.append(at)
    return ends, tokens


@pytest.mark.parametrize("n", [1, 2, 8, 16])
def test_self_consistency_and_best_of_n_equal_direct_simulation(n):
    judge = QualityEstimator(0.8)
    for seed in range(40):
        world = World(WorldSettings(depth=4), seed)
        ends, tokens = direct(World(WorldSettings(depth=4), seed), n)
        votes = Counter(end.answer for end in ends)
        first = [answer for answer, count in votes.items() if count == max(votes.values())]
        voted = trial(METHODS["chains"], n, world, None)
        assert (voted.credits, voted.tokens, voted.passes) == (((RIGHT in first) / len(first),), tokens, 0)
        sampled = trial(METHODS["best-of-N"], n, world, judge)
        assert sampled.credits[0] == max(ends, key=judge).right
        assert (sampled.tokens, sampled.passes) == (tokens, n)


@pytest.mark.parametrize("name", METHODS)
def test_tokens_and_passes_are_those_of_the_tree(name):
    method, n = METHODS[name], 8
    for seed in range(5):
        world = World(WorldSettings(depth=4), seed)
        search = play(method.make(n, world.recipe, seed), world, QualityEstimator(0.7) if method.scored else None)
        own = [node for node in search.tree if node.parent is not None and getattr(node, "copied_from", None) is None]
        assert search.cost.gen_tokens == sum(node.tokens for node in own)
        assert search.cost.prm_passes == sum(node.score is not None for node in own)
        assert search.cost.duplicates == search.cost.empties == 0
        assert all(world[node.text].ended == node.terminal for node in own)
        assert search.outcome().chosen.terminal


def test_search_is_deterministic():
    for name, method in METHODS.items():
        judge = QualityEstimator(0.7) if method.scored else None
        runs = [trial(method, 8, World(WorldSettings(depth=4), 5), judge) for _ in range(2)]
        assert (name, runs[0]) == (name, runs[1])


@pytest.mark.parametrize("edge_cost", ["rise", "fall", "abs", "none"])
def test_best_first_with_an_oracle_needs_as_many_expansions_as_steps(edge_cost):
    recipe, met = WorldSettings(depth=6, spread=0, solved=(3.0, 1.0)), 0
    for seed in range(60):
        world = World(recipe, seed)
        search = play(AStarSearch(AStarOptions(k=4, edge_cost=edge_cost)), world, QualityEstimator(1.0))
        chosen = search.outcome().chosen
        # whether every prefix on the way had a right continuation, from a world of its own
        at = [World(recipe, seed)]
        prefix = ""
        for _ in range(6):
            right = [p for p in (at[0].step(prefix, i) for i in range(4)) if p.right]
            if not right:
                break
            prefix = right[0].text
        else:
            met += 1
            assert search.cost.expansions == 6
            assert world[chosen.text].right
            assert chosen.text == prefix
            assert search.cost.prm_passes == 24
    assert met > 30


def test_credit_of_a_vote():
    assert credit([(0, 1), (1, 1), (0, 1)]) == 1
    assert credit([(1, 1), (2, 0.5), (2, 0.6), (0, 1)]) == 0
    assert credit([(0, 0.3), (1, 0.1), (1, 0.2), (2, 0.3)]) == pytest.approx(1 / 3)
    assert credit([(None, 9), (0, 1)]) == 1
    assert credit([(None, 9)]) == credit([]) == 0


def test_best_first_search_keeps_its_token_limit():
    for seed in range(20):
        world = World(WorldSettings(depth=12, rho=0.0), seed)
        search = play(METHODS["A* fall"].make(4, world.recipe, seed), world, QualityEstimator(0.6))
        assert search.cost.gen_tokens <= search.options.limits.gen_tokens


# -- cost at equal accuracy


def curve(credit_by_size, tokens, sizes=(1, 2, 4)):
    """A curve whose problems are all alike."""
    rows = np.ones((5, 1))
    return AccuracyCurve(sizes, rows * np.array(credit_by_size), rows * np.array(tokens), rows * np.array(tokens))


def test_cost_of_an_accuracy_is_interpolated_in_its_logarithm():
    cost, accuracy = np.array([[100.0, 400.0, 1600.0]] * 5), np.array([[0.2, 0.4, 0.6]] * 5)
    result = needed(cost, accuracy, np.array([0.3, 0.4, 0.55, 0.1, 0.7]))
    assert result[:4] == pytest.approx([200, 400, 400 * 4**0.75, 100])
    assert np.isinf(result[4])
    # points in any order, and a curve that falls: where it is first there
    assert needed(np.array([[400.0, 100.0]]), np.array([[0.4, 0.2]]), np.array([0.3]))[0] == pytest.approx(200)
    assert needed(cost[:1], np.array([[0.2, 0.5, 0.3]]), np.array([0.35]))[0] == pytest.approx(200)


def test_ratios_of_cost():
    curves = {
        "slow": curve([0.2, 0.4, 0.6], [100.0, 400.0, 1600.0]),
        "fast": curve([0.2, 0.6, 0.6], [50.0, 200.0, 800.0]),
        "lost": curve([0.2, 0.3, 0.3], [50.0, 200.0, 800.0]),
    }
    assert str(saving(curves, "fast", "slow", "slow", 4)) == "8.0 [8.0, 8.0]"
    assert str(saving(curves, "lost", "slow", "slow", 4)) == "not reached"
    assert str(saving(curves, "fast", "lost", "slow", 4)) == "only it"
    assert str(saving(curves, "lost", "lost", "slow", 4)) == "neither"
    assert str(Ratio(1.5, 0.0, np.inf)) == "1.5 [0.0, ∞]"
    # the first size is left out of passes, except for the goal itself
    assert saving(curves, "fast", "slow", "slow", 1).value == pytest.approx(2)
    assert saving(curves, "fast", "slow", "slow", 1, passes=True).value == pytest.approx(0.5)
