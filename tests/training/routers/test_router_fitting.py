"""Lines as complex as they have to be, and no more."""

import numpy as np
import pytest
from fitting import (
    feature_matrix,
    fit_linear,
    fit_logistic,
    fit_right,
    fit_tokens,
    make_space,
)
from reason.routers.features import ENTROPY, QuestionFeatures
from scipy.special import expit


def cases(n, seed=0, width=12):
    """Questions with two signals and a vector, of which `telling` moves everything and `idle` nothing."""
    rng = np.random.default_rng(seed)
    signals = [
        QuestionFeatures(
            {"telling": float(a), "idle": float(b), "same": 1.0}, None, tuple(map(float, rng.normal(size=width)))
        )
        for a, b in rng.normal(size=(n, 2))
    ]
    return signals, rng


def names(n):
    return [f"q{i}" for i in range(n)]


def test_a_space_has_what_varies_in_standard_units():
    signals, _ = cases(50)
    space = make_space(signals, embedding="test/words", embedding_identity="words-1", components=5)
    assert space.names == ("telling", "idle")
    assert len(space.axes) == 5
    x = feature_matrix(space, signals)
    assert np.allclose(x.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(x.std(axis=0), 1, atol=1e-6)
    assert np.allclose(x[:, 2:].T @ x[:, 2:] / 50, np.eye(5), atol=1e-5)  # components are uncorrelated
    assert all(a >= b for a, b in zip(space.spreads, space.spreads[1:], strict=False))
    assert np.allclose(np.array(space.axes) @ np.array(space.axes).T, np.eye(5), atol=1e-6)
    assert make_space(signals).axes == ()  # no vectors without their model's identity


def test_an_entropy_on_two_scales_is_left_out_and_one_missing_is_averaged_over():
    def one(entropy, support):
        return QuestionFeatures({"a": entropy * 2, **({ENTROPY: entropy} if support else {})}, support)

    mixed = [one(1.0, "full"), one(2.0, "top_k"), one(3.0, "full")]
    assert make_space(mixed).names == ("a",)
    result = make_space([one(1.0, "full"), one(9.0, None), one(3.0, "full")])
    assert (result.names, result.support) == (("a", ENTROPY), "full")
    assert result.means[1] == 2.0


def test_a_signal_is_found_and_has_its_size():
    signals, rng = cases(600)
    space = make_space(signals, embedding="w", embedding_identity="w-1")
    x = feature_matrix(space, signals)
    y = (rng.random(600) < expit(-0.5 + 1.5 * x[:, 0])).astype(float)
    result = fit_right(space, x, y, names(600))
    assert not result.constant
    assert result.named[0] == pytest.approx(1.5, abs=0.4)
    assert abs(result.named[1]) < 0.3
    tokens = np.exp(4 + 0.5 * x[:, 0] + rng.normal(scale=0.4, size=600)) - 1
    model = fit_tokens(space, x, tokens, names(600))
    assert model.line.named[0] == pytest.approx(0.5, abs=0.1)
    predicted = np.array([model.expected(space, row) for row in x])
    assert predicted.mean() == pytest.approx(tokens.mean(), rel=0.05)  # without the smearing it is 8 per cent too small


def test_a_constant_expects_the_mean_number_of_tokens():
    signals, rng = cases(80)
    space = make_space(signals)
    tokens = rng.integers(10, 400, size=80).astype(float)
    model = fit_tokens(make_space([]), np.zeros((80, 0)), tokens, names(80))
    assert model.line.constant
    assert model.expected(space, np.zeros(2)) == pytest.approx(tokens.mean())


def test_fits_of_shares_are_statsmodels_and_shrink_with_the_penalty():
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.random(60)
    b, w = fit_logistic(x, y, 1e-9)
    expected = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit().params
    assert np.allclose([b, *w], expected, atol=1e-5)
    assert np.abs(fit_logistic(x, y, 1000.0)[1]).max() < np.abs(w).max()
    b, w = fit_linear(x, y, 7.0)
    ridge = np.linalg.lstsq(
        np.vstack([sm.add_constant(x), np.sqrt(7.0) * np.eye(4)[1:]]), np.concatenate([y, np.zeros(3)]), rcond=None
    )[0]
    assert np.allclose([b, *w], ridge)


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_targets_of_one_kind_give_jeffreys_share(kind):
    b, w = fit_logistic(np.ones((9, 2)), np.full(9, kind), 1.0)
    assert not w.any()
    assert expit(b) == pytest.approx(0.95 if kind else 0.05)
    assert fit_logistic(np.zeros((4, 0)), np.array([1.0, 0, 0, 0]), 1.0)[0] == pytest.approx(np.log(1 / 3))
