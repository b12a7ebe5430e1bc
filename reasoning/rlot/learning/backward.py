"""The loss of a batch and its gradient, backwards through the dueling network by hand.

The loss is mean_n (Q(s_n, a_n) - y_n)². With d = dL/dQ, which is 0 but for the actions taken, the dueling sum gives
dL/dv = sum_a d and dL/dA = d - mean_a d; the rest is the chain rule through linear layers and relu, whose slope at 0
is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from ..network import Array, DuelingNetwork


def loss_and_gradients(
    network: DuelingNetwork, states: ArrayLike, actions: NDArray[np.int64], targets: Array
) -> tuple[float, dict[str, Array]]:
    """The mean squared error of the actions' values, and its gradient.

    Args:
        network: The online network.
        states: `[n, 7]`, scores from 0 to 3.
        actions: The actions taken, `[n]`.
        targets: What their values should be, `[n]`.

    Returns:
        The loss; the gradient by the name of the weights, of their shapes.
    """
    import numpy as np

    weights = network.weights
    passed = network.forward(states)
    rows = np.arange(len(actions))
    errors = passed.q[rows, actions] - targets
    d_q = np.zeros_like(passed.advantage)
    d_q[rows, actions] = 2 * errors / len(errors)

    d_adv = d_q - d_q.mean(axis=1, keepdims=True)
    d_val = d_q.sum(axis=1, keepdims=True)
    d_hidden_adv = (d_adv @ weights["Linear3_adv.weight"]) * (passed.hidden_adv > 0)
    d_hidden_val = (d_val @ weights["Linear3_val.weight"]) * (passed.hidden_val > 0)
    d_shared = d_hidden_adv @ weights["Linear2_adv.weight"] + d_hidden_val @ weights["Linear2_val.weight"]
    d_shared *= passed.shared > 0

    gradients: dict[str, Array] = {}
    for layer, inputs, outputs in (
        ("Linear1", passed.x, d_shared),
        ("Linear2_adv", passed.shared, d_hidden_adv),
        ("Linear2_val", passed.shared, d_hidden_val),
        ("Linear3_adv", passed.hidden_adv, d_adv),
        ("Linear3_val", passed.hidden_val, d_val),
    ):
        gradients[f"{layer}.weight"] = outputs.T @ inputs
        gradients[f"{layer}.bias"] = outputs.sum(axis=0)
    with np.errstate(over="ignore"):  # an endless loss is the caller's to see
        return float(np.mean(errors * errors)), gradients
