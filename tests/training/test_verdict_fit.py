"""The fit of a verdict model: what it may learn, and how its thresholds are chosen."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from reason.core.errors import UserError
from reason.verify.davinci.features import FEATURE_NAMES
from reason.verify.types import Support
from scipy.optimize import minimize
from scipy.special import logsumexp
from verdict_fit import (
    LABELS,
    MAX_THRESHOLD,
    MIN_THRESHOLD,
    REFUTED_FACTOR,
    SIGNS,
    VerdictExample,
    choose_threshold,
    fit_verdict_model,
)

ZERO = dict.fromkeys(FEATURE_NAMES, 0.0)


def minimize_multinomial(features: np.ndarray, golds: np.ndarray, signs: np.ndarray, *, penalty: float) -> np.ndarray:
    """Weights `[2, 1 + features]` of a multinomial regression with classes of equal weight, by a general minimiser.

    Args:
        features: `[examples, features]`; those that never vary are not scaled.
        golds: Class of each example: 0 and 1 have weights, 2 is the reference.
        signs: Sign of each weight, `[2, features]`.
        penalty: L2 penalty on the weights of standardised features.
    """
    weights = np.zeros(len(golds))
    for label in range(3):
        weights[golds == label] = 1 / (golds == label).sum() / 3
    mean = weights @ features
    scale = np.sqrt(weights @ (features - mean) ** 2)
    scale[scale < 1e-9] = 1.0
    design = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    size = design.shape[1]

    def loss(theta: np.ndarray) -> float:
        logits = np.column_stack([design @ theta[:size], design @ theta[size:], np.zeros(len(design))])
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        slopes = np.concatenate([theta[1:size], theta[size + 1 :]])
        return float(-weights @ logs[np.arange(len(golds)), golds] + penalty / 2 * slopes @ slopes)

    bounds = []
    for row in signs:
        bounds += [(None, None), *((0, None) if sign > 0 else (None, 0) for sign in row)]
    options = {"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, np.zeros(2 * size), method="L-BFGS-B", bounds=bounds, options=options).x.reshape(2, size)
    slopes = found[:, 1:] / scale
    return np.column_stack([found[:, 0] - slopes @ mean, slopes])


def vector(**values: float) -> tuple[float, ...]:
    named = {name.replace(" ", "_").replace(",", ""): name for name in FEATURE_NAMES}
    return tuple((ZERO | {named[key]: value for key, value in values.items()}).values())


def examples(n: int = 300, datasets: tuple[str, ...] = ("a", "b", "c"), seed: int = 0) -> list[VerdictExample]:
    """A judge that is right more often the larger its ratio, and a mark that false claims have."""
    rng = random.Random(seed)
    results = []
    for i in range(n):
        gold = LABELS[i % 3]
        toward = {"supports": (2.0, -1.5), "refutes": (-1.5, 2.0), "neutral": (-2.0, -2.0)}[gold]
        s, r = (mean + rng.gauss(0, 1.5) for mean in toward)
        missing = float(rng.random() < (0.5 if gold != "supports" else 0.05))
        features = vector(supports=s, refutes=r, number_missing=missing, words_found=0.5)
        results.append(VerdictExample(features, gold, datasets[(i // 3) % len(datasets)], f"g{i // 9}"))
    return results


def test_the_fit_has_the_lowest_loss_of_all_weights_with_the_features_signs():
    data = examples(270)  # as many of each dataset and label, so that all weigh the same
    model = fit_verdict_model(data, judge="j").model
    ours = np.array([[b, *w.values()] for b, w in zip(model.intercepts, (model.supports, model.refutes), strict=True)])
    theirs = minimize_multinomial(
        np.array([e.features for e in data]),
        np.array([LABELS.index(e.gold) for e in data]),
        np.array(SIGNS),
        penalty=1e-2,
    )
    assert ours == pytest.approx(theirs, abs=2e-4)


def test_no_weight_has_the_wrong_sign_whatever_the_data_say():
    reversed_labels = {"supports": "refutes", "refutes": "supports", "neutral": "neutral"}
    data = [replace(e, gold=reversed_labels[e.gold]) for e in examples()]
    model = fit_verdict_model(data, judge="j").model
    for weights, signs in zip((model.supports, model.refutes), SIGNS, strict=True):
        assert all(weight * sign >= 0 for weight, sign in zip(weights.values(), signs, strict=True))


def test_it_does_not_depend_on_the_order_of_examples():
    data = examples()
    first = fit_verdict_model(data, judge="j")
    again = fit_verdict_model(data[::-1], judge="j")
    assert again.model == first.model
    assert again.held_out == first.held_out[::-1]


def test_a_dataset_counts_once_however_large_it_is():
    data = examples()
    more = [*data, *(replace(e, group=f"{e.group}+") for e in data if e.dataset == "a" for _ in range(4))]
    one, other = (fit_verdict_model(d, judge="j").model for d in (data, more))
    assert list(other.supports.values()) == pytest.approx(list(one.supports.values()), abs=1e-6)


def test_held_out_probabilities_are_by_a_fit_without_the_dataset():
    data = examples()
    fitted = fit_verdict_model(data, judge="j")
    without = fit_verdict_model([e for e in data if e.dataset != "b"], judge="j").model
    for example, probs in zip(data, fitted.held_out, strict=True):
        if example.dataset == "b":
            assert probs == pytest.approx(without.probabilities(example.features), abs=1e-9)


def test_of_one_dataset_no_group_is_on_both_sides():
    data = examples(datasets=("a",))
    changed = [replace(e, gold="neutral") if e.group == "g0" else e for e in data]
    before, after = (fit_verdict_model(d, judge="j").held_out for d in (data, changed))
    own = [i for i, e in enumerate(data) if e.group == "g0"]
    assert [before[i] for i in own] == [after[i] for i in own]


def test_disputed_claims_are_not_fitted_to_but_must_not_be_called_supported():
    data = examples()
    sure = vector(supports=9.0, refutes=-9.0, words_found=0.5)
    disputed = [VerdictExample(sure, "disputed", "a", f"d{i}") for i in range(30)]
    plain, more = fit_verdict_model(data, judge="j").model, fit_verdict_model([*data, *disputed], judge="j").model
    assert more.supports == pytest.approx(plain.supports)
    assert more.supported > plain.supported


# -- thresholds


def claims(dataset: str, others: list[float], right: int = 5) -> tuple[list[VerdictExample], list[Support]]:
    """Neutral claims that are called supported with these probabilities, and some supported ones."""
    rows = [VerdictExample(vector(), "neutral", dataset, str(i)) for i in range(len(others))]
    rows += [VerdictExample(vector(), "supports", dataset, f"r{i}") for i in range(right)]
    return rows, [Support(p, (1 - p) / 2, (1 - p) / 2) for p in [*others, *[0.99] * right]]


def test_the_threshold_is_the_smallest_that_keeps_the_bound_on_every_dataset():
    rows, probs = claims("a", [0.7, 0.66, 0.6, *[0.1] * 37])  # 2 of 40 may pass
    assert choose_threshold(rows, probs, "supports", 0.05) == math.nextafter(0.6, 1)
    more, other = claims("b", [0.9, 0.8, *[0.1] * 18])  # 1 of 20 may pass
    assert choose_threshold([*rows, *more], [*probs, *other], "supports", 0.05) == math.nextafter(0.8, 1)


def test_a_threshold_is_at_least_a_half_and_never_shuts_everything_out():
    rows, probs = claims("a", [0.4] * 20)
    assert choose_threshold(rows, probs, "supports", 0.05) == MIN_THRESHOLD
    rows, probs = claims("a", [0.999] * 20)
    assert choose_threshold(rows, probs, "supports", 0.05) == MAX_THRESHOLD


def test_the_scores_of_each_dataset_keep_the_bound():
    bound = 0.02
    model = fit_verdict_model(examples(900), judge="j", max_false_supported=bound).model
    assert [s.part for s in model.scores] == ["a", "b", "c"]
    assert max(s.false_supported for s in model.scores) <= bound
    assert max(s.false_refuted for s in model.scores) <= REFUTED_FACTOR * bound
    assert all(s.claims == 300 and 0 < s.decided < 1 for s in model.scores)


# -- what is refused


def test_too_little_or_one_sided_data_are_refused():
    with pytest.raises(UserError, match="at least 40 claims that are not disputed, got 30"):
        fit_verdict_model(examples(30), judge="j")
    with pytest.raises(UserError, match="no example has the gold label 'refutes'"):
        fit_verdict_model([e for e in examples() if e.gold != "refutes"], judge="j")
    with pytest.raises(UserError, match=r"must be in \(0, 0\.5\), got 1"):
        fit_verdict_model(examples(), judge="j", max_false_supported=1.0)
