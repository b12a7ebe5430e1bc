"""The tables of recorded trees and step scores: what they count, on rows made for the tests."""

import game24
import numpy as np
import pytest
import step_rewards

TREE = {
    "question_id": "p",
    "value_samples": 3,
    "nodes": [
        {"id": 0, "parent": None, "depth": 0, "thought": "", "value": None, "selected": True},
        {"id": 1, "parent": 0, "depth": 1, "thought": "a", "value": 60.0, "selected": True, "solvable": True},
        {"id": 2, "parent": 0, "depth": 1, "thought": "b", "value": 3.0, "selected": False, "solvable": False},
        {"id": 3, "parent": 1, "depth": 2, "thought": "c", "value": 3.0, "solvable": None, "correct": True},
        {"id": 4, "parent": 1, "depth": 2, "thought": "d", "value": 60.0, "solvable": None, "correct": False},
    ],
}


def test_reading_counts_opened_nodes_and_bounds_success():
    trees = game24.recorded_trees([TREE])
    assert game24.kept_states(trees[0], 1) == [4]
    assert not game24.any_kept_right(trees[0], 1)
    narrow, wide = (game24.read_search(trees, game24.beam(width)) for width in (1, 2))
    assert (narrow.opened[0], narrow.valued[0], narrow.left[0]) == (2, 4, 0)
    assert (narrow.right[0], narrow.any_right[0], narrow.upper[0]) == (0, 1, 1)
    assert (wide.opened[0], wide.left[0]) == (3, 1)
    seeded = game24.read_search(trees, game24.particles(1), range(100, 140))
    assert 0 < seeded.left[0] < 1
    assert seeded.upper[0] == pytest.approx(seeded.any_right[0] + seeded.left[0])


def test_any_of_n_is_the_expectation_over_orders():
    assert game24.any_of([True, False, False, False], 1) == pytest.approx(0.25)
    assert game24.any_of([True, False, False, False], 2) == pytest.approx(0.5)
    assert game24.any_of([False] * 4, 4) == 0


def solution(number, correct, scores, lines=None, error=None):
    return {
        "question_id": str(number),
        "split_group": str(number),
        "solution_correct": correct,
        "first_error_step": error,
        "lines_per_step": lines or [1] * len(scores),
        "step_scores": {"m": scores},
    }


def test_auc_counts_pairs_in_order_and_ties_as_half():
    rows = [
        solution(i, c, s) for i, (c, s) in enumerate([(True, [0.9]), (True, [0.5]), (False, [0.5]), (False, [0.1])])
    ]
    data = step_rewards.labelled(rows, ["m"], "invalid")
    assert step_rewards.auc(data.good, data.ranks["min"]) == pytest.approx(3.5 / 4)


def test_exchange_test_agrees_with_plain_exchanges(monkeypatch):
    monkeypatch.setattr(step_rewards, "RESAMPLES", 400)
    rng = np.random.default_rng(1)
    good, groups = rng.random(24) < 0.5, np.arange(24) // 2
    ranks = {how: np.array([rng.permutation(24) + 3 * good]) for how in ("a", "b")}
    data = step_rewards.Labelled(good, groups, ranks)
    swaps = (np.random.default_rng(step_rewards.SEED).random((400, 12)) < 0.5)[:, groups]
    differences = [
        step_rewards.auc(good, np.where(swap, ranks["b"], ranks["a"]))
        - step_rewards.auc(good, np.where(swap, ranks["a"], ranks["b"]))
        for swap in swaps
    ]
    observed = step_rewards.auc(good, ranks["a"]) - step_rewards.auc(good, ranks["b"])
    expected = (np.sum(np.abs(differences) >= abs(observed) - 1e-12) + 1) / 401
    assert step_rewards.exchange_test(data, "a", "b") == pytest.approx(expected)


def test_first_error_is_the_first_step_below_the_threshold():
    rows = [solution(0, True, [0.9, 0.8]), solution(1, False, [0.9, 0.4, 0.1], error=2)]
    scores = [step_rewards.step_scores(row, "m") for row in rows]
    assert step_rewards.located(rows, scores, 0.5).tolist() == [1, 1]
    assert step_rewards.located(rows, scores, 0.2).tolist() == [1, 0]
    assert step_rewards.located(rows, scores, 0.95).tolist() == [0, 0]
    assert step_rewards.balanced(np.array([True, False]), np.array([1.0, 0.5])) == pytest.approx(2 / 3)


def test_threshold_of_a_fold_is_fitted_on_the_others():
    rows = [solution(i, i % 2 == 0, [0.7] if i % 2 == 0 else [0.3], error=None if i % 2 == 0 else 1) for i in range(20)]
    right, thresholds = step_rewards.cross_fitted(rows, [step_rewards.step_scores(row, "m") for row in rows])
    assert right.all()
    assert all(0.3 < t <= 0.7 for t in thresholds)
    assert len(thresholds) == step_rewards.FOLDS
