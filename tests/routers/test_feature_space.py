"""Signals as numbers, and lines over them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.routers.features import (
    EMBEDDING,
    ENTROPY,
    FARTHEST,
    FeatureSpace,
    LinearModel,
    QuestionFeatures,
    top_contributions,
)

AXES = ((1.0, 0.0, 0.0), (0.0, 0.6, 0.8))
SPACE = FeatureSpace(
    names=("length", ENTROPY),
    means=(2.0, 1.0),
    scales=(0.5, 0.25),
    support="full",
    embedding="test/words",
    embedding_identity="words-1",
    centre=(0.1, 0.2, 0.3),
    axes=AXES,
    spreads=(0.5, 2.0),
)


def test_features_are_standardised_and_projected():
    row = SPACE.row(QuestionFeatures({"length": 3.0, ENTROPY: 0.75, "other": 9.0}, "full", (0.6, 0.2, 1.3)))
    assert row == pytest.approx([2.0, -1.0, 1.0, 0.4])


def test_missing_features_count_as_the_mean():
    row = SPACE.row(QuestionFeatures({"length": 3.0}))
    assert row == pytest.approx([2.0, 0, 0, 0])
    assert SPACE.unknown(QuestionFeatures({"length": 3.0})) == [ENTROPY, EMBEDDING]
    other_scale = QuestionFeatures({"length": 3.0, ENTROPY: 0.75}, "top_k", (0.6, 0.2, 1.3))
    assert SPACE.row(other_scale)[1] == 0
    assert SPACE.unknown(other_scale) == [ENTROPY]
    assert SPACE.unknown(QuestionFeatures({ENTROPY: 0.7}, "full", (0.6, 0.2, 1.3))) == []


@given(st.floats(-1e9, 1e9))
def test_features_are_clamped_to_the_training_range(length):
    assert np.abs(SPACE.row(QuestionFeatures({"length": length}))).max() <= FARTHEST


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(0, 2))
def test_shares_and_intercept_sum_to_the_value(weights, components):
    line = LinearModel(intercept=0.5, named=tuple(weights[:2]), components=tuple(weights[2 : 2 + components]))
    row = np.array([1.0, -2.0, 0.5, 3.0])
    assert line.fits(SPACE)
    assert line.value(SPACE, row) == pytest.approx(0.5 + row[: 2 + components] @ weights[: 2 + components])
    assert line.constant == (not any(weights[: 2 + components]))
    assert set(line.shares(SPACE, row)) == {"length", ENTROPY, *([EMBEDDING] if components else [])}


def test_contributions_are_sorted_and_complete():
    assert top_contributions({"a": 0.1, "b": -2.0, "c": 0.0, "d": 0.3}, 2) == {"b": -2.0, "d": 0.3}
    assert list(top_contributions({"a": 0.1, "c": 0.0, "b": 0.1})) == ["a", "b"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"means": (2.0,)}, "a mean and a scale"),
        ({"spreads": (0.5,)}, "a spread"),
        ({"centre": (0.1, 0.2)}, "as many numbers"),
        ({"support": "none"}, "support"),
        ({"embedding_identity": ""}, "embedding model"),
        ({"scales": (0.5, 0.0)}, "greater than 0"),
    ],
)
def test_inconsistent_feature_spaces_are_rejected(changed, why):
    with pytest.raises(ValidationError, match=why):
        FeatureSpace.model_validate({**SPACE.model_dump(), **changed})
