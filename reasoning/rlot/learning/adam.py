"""`Adam`: the optimizer, as torch defines it.

    m = m + (1 - b1)(g - m);  v = b2 v + (1 - b2) g²
    w = w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; b1 = 0.9, b2 = 0.999, eps = 1e-8 as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ..network import SHAPES

if TYPE_CHECKING:
    from ..network import Array

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-8


class Adam:
    """The running moments of the gradients of the network's weights.

    Attributes:
        first: Running mean of the gradients, by the name of the weights.
        second: Running mean of their squares.
        updates: Updates so far, t.
    """

    def __init__(self) -> None:
        import numpy as np

        self.first: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.second: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.updates = 0

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], lr: float) -> dict[str, Array]:
        """One update.

        Args:
            weights: The weights before, by name; they stay as they are.
            gradients: Of the loss, by the same names.
            lr: The learning rate of this update.

        Returns:
            The weights after it.
        """
        import numpy as np

        self.updates += 1
        size = lr / (1 - BETA_1**self.updates)
        root = math.sqrt(1 - BETA_2**self.updates)
        updated: dict[str, Array] = {}
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += (1 - BETA_1) * (gradient - first)
            second *= BETA_2
            second += (1 - BETA_2) * gradient * gradient
            updated[name] = weights[name] - size * first / (np.sqrt(second) / root + EPSILON)
        return updated
