"""The worlds of the search bench: what they draw is what they say, and the reward model is as good as asked."""

from __future__ import annotations

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


def test_scores_by_hand():
    # AUC = Phi(1) gives d' = sqrt(2); without an error the log-likelihood ratio is d'^2 / 2 = 1
    auc = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert QualityEstimator(auc)(prefix(True, 0.0)) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-9)
    assert QualityEstimator(auc)(prefix(False, 0.0)) == pytest.approx(1 / (1 + math.exp(1)), abs=1e-9)
    assert QualityEstimator(auc)(prefix(False, 1.0)) == pytest.approx(1 / (1 + math.exp(1 - math.sqrt(2))), abs=1e-9)
    # d' halves with each step: sqrt(2) / 4 at depth 3, so the ratio is 1 / 16
    assert QualityEstimator(auc, fade=0.5)(prefix(True, 0.0, depth=3)) == pytest.approx(
        1 / (1 + math.exp(-1 / 16)), abs=1e-9
    )
    assert QualityEstimator(0.5)(prefix(True, 3.0)) == QualityEstimator(0.5)(prefix(False, -3.0)) == 0.5


def test_late_estimator_sees_a_fault_after_its_lag_or_at_the_end():
    for auc in (0.8, 1.0):
        judge = QualityEstimator(auc, lag=2)
        right = judge(prefix(True, 0.3))
        assert [judge(prefix(False, 0.3, age=age)) == right for age in range(4)] == [True, True, False, False]
        assert judge(prefix(False, 0.3, age=0, ended=True)) == QualityEstimator(auc)(prefix(False, 0.3)) < right


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


def test_prefix_stays_wrong_and_keeps_its_wrong_answer():
    recipe = WorldSettings(depth=8, solved=(1.0, 3.0))
    for seed in range(200):
        at = World(recipe, seed)[""]
        for p in chain(World(recipe, seed)):
            assert p.depth == at.depth + 1
            if at.right and not p.right:
                assert (p.age, p.answer != RIGHT) == (0, True)
            elif not at.right:
                assert (p.right, p.answer, p.age) == (False, at.answer, at.age + 1)
            else:
                assert (p.answer, p.age) == (RIGHT, 0)
            at = p


def test_forced_answer_is_the_rest_of_a_plain_chain():
    recipe = WorldSettings(depth=6)
    world = World(recipe, 11)
    whole = chain(world, 2)
    forced = world.rest("", 2, 10_000)
    assert (forced.answer, forced.right, forced.ended) == (whole[-1].answer, whole[-1].right, True)
    assert forced.tokens == sum(p.tokens for p in whole)
    assert world[forced.text] == forced
    cut = world.rest("", 2, forced.tokens - 1)
    assert (cut.answer, cut.right, cut.tokens) == (None, False, forced.tokens - 1)
    assert world.rest(whole[1].text, 0, 10_000).tokens == sum(p.tokens for p in whole[2:])
