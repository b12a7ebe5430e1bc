"""The worlds of the search bench: what they draw is what they say, and the reward model is as good as asked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

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


def test_prefixes_are_separated_with_the_requested_auc():
    recipe = WorldSettings(depth=4, rho=0.9, solved=(2.0, 2.0))
    judge = QualityEstimator(0.8, clip=1e-12)
    seen = [chain(World(recipe, seed)) for seed in range(4000)]
    for place in (0, 2):  # at every depth, whatever the errors before
        scores = np.array([judge(c[place]) for c in seen])
        assert auroc(scores, np.array([float(c[place].right) for c in seen])) == pytest.approx(0.8, abs=0.035)


def test_scores_are_calibrated_at_even_odds_and_clipped():
    seen = drawn(40_000, 2)
    judge = QualityEstimator(0.85)
    scores = np.array([judge(p) for p in seen])
    truth = np.array([p.right for p in seen])
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (scores >= low) & (scores < low + 0.1)
        sd = math.sqrt(0.25 / inside.sum())
        assert truth[inside].mean() == pytest.approx(scores[inside].mean(), abs=4 * sd)
    assert judge(prefix(True, 99.0)) == 1 - 1e-4
    assert judge(prefix(False, -99.0)) == 1e-4


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


def test_perfect_estimator_is_right_with_any_error():
    judge = QualityEstimator(1.0)
    assert {judge(p) for p in drawn(100, 3) if p.right} == {1 - 1e-4}
    assert {judge(p) for p in drawn(100, 3) if not p.right} == {1e-4}


def test_late_estimator_sees_a_fault_after_its_lag_or_at_the_end():
    for auc in (0.8, 1.0):
        judge = QualityEstimator(auc, lag=2)
        right = judge(prefix(True, 0.3))
        assert [judge(prefix(False, 0.3, age=age)) == right for age in range(4)] == [True, True, False, False]
        assert judge(prefix(False, 0.3, age=0, ended=True)) == QualityEstimator(auc)(prefix(False, 0.3)) < right


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_errors_are_standard_normal_and_correlated_along_depth_only(rho):
    recipe = WorldSettings(depth=6, rho=rho)
    worlds = [World(recipe, seed) for seed in range(3000)]
    errors = np.array([[p.error for p in chain(world)[:5]] for world in worlds])
    assert np.abs(errors.mean(axis=0)).max() < 4 / math.sqrt(3000)
    assert np.abs(errors.var(axis=0) - 1).max() < 4 * math.sqrt(2 / 3000)
    result = np.corrcoef(errors.T)
    for steps in (1, 2, 4):
        assert np.diagonal(result, steps) == pytest.approx(rho**steps, abs=4 / math.sqrt(3000))
    others = [world.step("", 1).error for world in worlds]
    assert abs(np.corrcoef(errors[:, 0], others)[0, 1]) < 4 / math.sqrt(3000)


def test_errors_do_not_depend_on_what_is_right():
    made = [world.step("", 0) for world in (World(WorldSettings(), seed) for seed in range(4000))]
    for right in (True, False):
        errors = [p.error for p in made if p.right == right]
        assert abs(np.mean(errors)) < 4 / math.sqrt(len(errors))


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


def test_rho_changes_nothing_but_the_errors():
    chains = [chain(World(WorldSettings(depth=6, rho=rho), 3)) for rho in (0.0, 0.9)]
    assert [p._replace(error=0.0) for p in chains[0]] == [p._replace(error=0.0) for p in chains[1]]
    assert chains[0] != chains[1]


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


def test_repair_has_the_given_probability():
    recipe = WorldSettings(depth=9, repair=0.3)
    pairs = [pair for s in range(1500) for c in [chain(World(recipe, s))] for pair in pairwise(c)]
    after = [b.right for a, b in pairs if not a.right]
    assert np.mean(after) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / len(after)))
    assert all(b.answer == RIGHT for _, b in pairs if b.right)


def test_wrong_answers_follow_zipf():
    recipe = WorldSettings(depth=1, spread=0, wrong=4, zipf=1.0, solved=(1.0, 3.0))
    world = World(recipe, 1)
    answers = Counter(world.step("", i).answer for i in range(6000))
    wrong = sum(count for answer, count in answers.items() if answer != RIGHT)
    assert set(answers) == {0, 1, 2, 3, 4}
    for answer in range(1, 5):
        share = (1 / answer) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
        assert answers[answer] / wrong == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / wrong))


def test_lengths_of_solutions_are_even_and_those_of_steps_log_normal():
    recipe = WorldSettings(depth=4, spread=1)
    chains = [chain(World(recipe, seed)) for seed in range(3000)]
    counts = Counter(len(c) for c in chains)
    assert set(counts) == {3, 4, 5}
    for count in counts.values():
        assert count / 3000 == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 3000))
    tokens = np.array([p.tokens for c in chains for p in c])
    assert np.median(tokens) == pytest.approx(40, abs=1)
    assert np.log(tokens).std() == pytest.approx(0.4, abs=0.02)
    assert (tokens.min(), tokens.max()) >= (8, 40)
    assert tokens.max() <= recipe.longest == 120
    assert {len(chain(World(replace(recipe, spread=0), seed))) for seed in range(50)} == {4}


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
