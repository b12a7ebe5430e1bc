"""The worlds of the search bench: what they draw is what they say, and the reward model is as good as asked."""

import math

import numpy as np
import pytest
from reason.evals.statistics.calibration import auroc
from step_search_bench import RIGHT, Prefix, QualityEstimator, World, WorldSettings


def chain(world, index=0):
    """A plain chain: its prefixes."""
    made = [world.step("", index)]
    while not made[-1].ended:
        made.append(world.step(made[-1].text, 0))
    return made


def prefix(right, error, *, depth=1, age=0, ended=False):
    return Prefix("x", depth, right, age, RIGHT if right else 1, error, 9, ended)


def drawn(count, seed, rng=None):
    """Scores' raw material: right and wrong prefixes with standard normal errors."""
    rng = np.random.default_rng(seed)
    return [prefix(i % 2 == 0, float(e)) for i, e in enumerate(rng.standard_normal(count))]


@pytest.mark.parametrize("auc", [0.6, 0.7, 0.8, 0.9, 0.95])
def test_judge_has_the_requested_auc(auc):
    seen = drawn(20_000, 1)
    judge = QualityEstimator(auc, clip=1e-12)
    result = auroc(np.array([judge(p) for p in seen]), np.array([float(p.right) for p in seen]))
    # Hanley and McNeil 1982, for 10,000 of each kind
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = math.sqrt((auc * (1 - auc) + 9_999 * (q1 - auc**2 + q2 - auc**2)) / 1e8)
    assert abs(result - auc) < 4 * error
    assert error < 0.005


def test_continuations_depend_on_problem_prefix_and_index_only():
    recipe = WorldSettings(depth=5)
    one, other = World(recipe, 7), World(recipe, 7)
    first = [one.step("", i) for i in range(4)]
    deeper = [one.step(p.text, 1) for p in first]
    for i in (3, 0, 2, 1):  # in another order
        assert other.step(other.step("", i).text, 1) == deeper[i]
        assert other.step("", i) == first[i]
    assert len({p.text for p in first + deeper}) == 8
    assert World(recipe, 8).step("", 0) != first[0]
    assert one[deeper[2].text] is deeper[2]
    assert one.q == other.q


@pytest.mark.parametrize("uneven", [0.0, 4.0])
def test_plain_chain_is_right_with_the_probability_of_its_problem(uneven):
    recipe = WorldSettings(depth=5, spread=0, uneven=uneven)
    for seed in range(3):
        world = World(recipe, seed)
        assert math.prod(world.p) == pytest.approx(world.q)
        assert (max(world.p) - min(world.p) > 0.01) == bool(uneven)
        right = np.mean([chain(world, i)[-1].right for i in range(2000)])
        assert right == pytest.approx(world.q, abs=4 * math.sqrt(world.q * (1 - world.q) / 2000))
