"""The methods of the search bench: one world for all, honest accounting, and results that can be had another way."""

from collections import Counter

import numpy as np
import pytest
from accuracy_curves import needed
from step_search_bench import METHODS, RIGHT, QualityEstimator, World, WorldSettings, trial


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


# -- cost at equal accuracy


def test_cost_of_an_accuracy_is_interpolated_in_its_logarithm():
    cost, accuracy = np.array([[100.0, 400.0, 1600.0]] * 5), np.array([[0.2, 0.4, 0.6]] * 5)
    result = needed(cost, accuracy, np.array([0.3, 0.4, 0.55, 0.1, 0.7]))
    assert result[:4] == pytest.approx([200, 400, 400 * 4**0.75, 100])
    assert np.isinf(result[4])
    # points in any order, and a curve that falls: where it is first there
    assert needed(np.array([[400.0, 100.0]]), np.array([[0.4, 0.2]]), np.array([0.3]))[0] == pytest.approx(200)
    assert needed(cost[:1], np.array([[0.2, 0.5, 0.3]]), np.array([0.35]))[0] == pytest.approx(200)
