"""The dueling network: its size, its identity, its normalisation, and the same numbers from torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from reason.core.errors import UserError
from reason.reasoning.rlot.navigator import PARAMETERS, DuelingNetwork, Navigator, normalised
from support.torch_navigator import TorchDueling, one_torch_thread, random_weights

EVERY_STATE = np.array(list(itertools.product(range(4), repeat=7)))


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


def drawn(seed: int) -> DuelingNetwork:
    return DuelingNetwork(random_weights(seed))


def test_number_of_weights():
    assert PARAMETERS == sum(array.size for array in drawn(0).weights.values()) == 2566
    assert sum(parameter.numel() for parameter in TorchDueling().parameters()) == 2566


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_torch_for_every_state(seed):
    network = drawn(seed)
    theirs = TorchDueling().take(network.weights)
    with torch.no_grad():
        expected = theirs(torch.tensor(EVERY_STATE)).numpy()
    assert np.abs(network.q(EVERY_STATE) - expected).max() < 1e-6


def test_scores_are_normalised():
    states = np.array([[0, 1, 2, 3, 0, 1, 2]])
    assert normalised(states)[0].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1, -1, -1 / 3, 1 / 3], abs=1e-15)
    assert normalised((3,) * 7).tolist() == [[1.0] * 7]
    assert normalised(states.astype(np.int8)).dtype == np.float64


def test_navigator_rounds_to_single_precision():
    network = drawn(1)
    rounded = Navigator(network).network
    for name, array in network.weights.items():
        assert (rounded.weights[name] == array.astype(np.float32)).all()
        assert rounded.weights[name].dtype == np.float64
    huge = DuelingNetwork({**network.weights, "Linear3_val.bias": np.array([1e300])})
    with pytest.raises(UserError, match=r"Linear3_val\.bias"):
        Navigator(huge)


@pytest.mark.parametrize(
    "states",
    [[0] * 6, [[0] * 8], np.zeros((2, 2, 7)), [], [[0, 0, 0, 4, 0, 0, 0]], [[-1] + [0] * 6], [0.5] * 7, [math.nan] * 7],
)
def test_invalid_states_raise(states):
    with pytest.raises(UserError) as refused:
        drawn(0).q(states)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"Linear1.bias": None}, r"Linear1\.bias"),
        ({"Linear4.bias": np.zeros(3)}, r"Linear4\.bias"),
        ({"Linear1.weight": np.zeros((7, 32))}, r"Linear1\.weight is float64 of shape \(7, 32\)"),
        ({"Linear3_val.bias": np.array([math.nan])}, r"Linear3_val\.bias"),
        ({"Linear3_adv.bias": np.array([1, 2, 3, 4, math.inf])}, r"Linear3_adv\.bias"),
        ({"Linear3_val.bias": np.array([1])}, r"Linear3_val\.bias is int64"),
        ({"Linear3_val.bias": np.array(["1"])}, r"Linear3_val\.bias"),
    ],
)
def test_invalid_weights_raise(change, named):
    weights = {n: a for n, a in {**drawn(0).weights, **change}.items() if a is not None}
    with pytest.raises(UserError, match=named):
        DuelingNetwork(weights)
