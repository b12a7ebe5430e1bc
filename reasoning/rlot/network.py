"""The navigator's network: seven scores in, a value for each of the five blocks out; 2,566 weights, numpy alone.

    x = (s - 1.5) / 1.5
    z = relu(Linear1 x)                                       7 -> 32
    A = Linear3_adv relu(Linear2_adv z)                       32 -> 32 -> 5
    v = Linear3_val relu(Linear2_val z)                       32 -> 32 -> 1
    Q(s, a) = v + A_a - mean_a A

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; the dueling streams are those of Wang et al. 2016,
arXiv:1511.06581, equation 9. Names and orientation of the weights are those of the authors' program, so that weights
trained there can be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from ...core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array: TypeAlias = NDArray[np.float64]
    Weights: TypeAlias = Mapping[str, NDArray[Any]]

STATE_SIZE: Final = 7
ACTIONS: Final = 5
HIDDEN: Final = 32

_LAYERS: Final = {
    "Linear1": (HIDDEN, STATE_SIZE),
    "Linear2_adv": (HIDDEN, HIDDEN),
    "Linear2_val": (HIDDEN, HIDDEN),
    "Linear3_adv": (ACTIONS, HIDDEN),
    "Linear3_val": (1, HIDDEN),
}
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    name: shape
    for layer, (outputs, inputs) in _LAYERS.items()
    for name, shape in ((f"{layer}.weight", (outputs, inputs)), (f"{layer}.bias", (outputs,)))
}
"""Shape of each array of weights by name; matrices are (outputs, inputs)."""
NAMES: Final[tuple[str, ...]] = tuple(SHAPES)
"""Names of the arrays of weights, from the input to the output."""
PARAMETERS: Final = sum(math.prod(shape) for shape in SHAPES.values())
"""Number of weights: 2,566."""


@dataclass(frozen=True, slots=True)
class Activations:
    """What one pass through the network leaves behind; n states.

    Attributes:
        x: The normalised states, `[n, 7]`.
        shared: After the first layer, `[n, 32]`; not below 0, like the two that follow.
        hidden_adv: After the second layer of the advantages' stream, `[n, 32]`.
        hidden_val: After the second layer of the value's stream, `[n, 32]`.
        advantage: A less its mean, `[n, 5]`.
        value: v, `[n, 1]`.
    """

    x: Array
    shared: Array
    hidden_adv: Array
    hidden_val: Array
    advantage: Array
    value: Array

    @property
    def q(self) -> Array:
        """Q of each action, `[n, 5]`."""
        return self.value + self.advantage


def normalised(states: ArrayLike) -> Array:
    """Scores from 0 to 3 as numbers from -1 to 1: (s - 1.5) / 1.5.

    Args:
        states: States of seven scores, `[n, 7]`, or a single one, `[7]`.

    Returns:
        `[n, 7]`.

    Raises:
        UserError: The shape is another, or a score is no whole number from 0 to 3.
    """
    import numpy as np

    scores = np.asarray(states, dtype=np.float64)
    if scores.ndim == 1:
        scores = scores[None, :]
    if scores.ndim != 2 or scores.shape[1] != STATE_SIZE:
        raise UserError(f"states of shape {np.shape(states)}", hint="a state is seven scores, several are [n, 7]")
    if not np.isin(scores, (0.0, 1.0, 2.0, 3.0)).all():
        raise UserError("a state has a score that is none of 0, 1, 2, 3", hint="a score that is missing is 0")
    result: Array = (scores - 1.5) / 1.5
    return result


class DuelingNetwork:
    """The network with its weights, which never change: training makes a new one of each update.

    It calculates in double precision, whatever the weights were stored in.

    Args:
        weights: An array for each of `NAMES`, of the shape in `SHAPES`; copied.

    Raises:
        UserError: An array is missing, of another shape, no real number, or not finite; or there is one too many.
    """

    def __init__(self, weights: Weights) -> None:
        import numpy as np

        if set(weights) != set(NAMES):
            wrong = sorted(set(weights) ^ set(NAMES))
            raise UserError(f"the network's weights lack or have too much of: {', '.join(wrong)}", hint=_EXPECTED)
        kept: dict[str, Array] = {}
        for name, shape in SHAPES.items():
            given = np.asarray(weights[name])
            if given.shape != shape or given.dtype.kind != "f":
                raise UserError(f"{name} is {given.dtype} of shape {given.shape}, not {shape}", hint=_EXPECTED)
            array = np.array(given, dtype=np.float64)
            if not np.isfinite(array).all():
                raise UserError(f"{name} has a weight that is no finite number", hint=_EXPECTED)
            array.setflags(write=False)
            kept[name] = array
        self._weights = kept

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """A network before training: each weight and bias uniform in ±1/sqrt(inputs of its layer), as torch begins."""
        drawn: dict[str, Array] = {}
        for layer, (outputs, inputs) in _LAYERS.items():
            bound = 1 / math.sqrt(inputs)
            drawn[f"{layer}.weight"] = rng.uniform(-bound, bound, (outputs, inputs))
            drawn[f"{layer}.bias"] = rng.uniform(-bound, bound, (outputs,))
        return cls(drawn)

    def rounded(self) -> Self:
        """The same network with its weights rounded to single precision, in which they are stored.

        Raises:
            UserError: A weight is too large for it.
        """
        import numpy as np

        with np.errstate(over="ignore"):
            return type(self)({name: array.astype(np.float32) for name, array in self._weights.items()})

    @property
    def weights(self) -> Mapping[str, Array]:
        """The arrays by name, in the order of `NAMES`; they cannot be written to."""
        return dict(self._weights)

    @property
    def parameters(self) -> int:
        """Number of weights: 2,566."""
        return sum(array.size for array in self._weights.values())

    def forward(self, states: ArrayLike) -> Activations:
        """One pass, with all that the backward pass needs.

        Args:
            states: As `normalised` takes them.

        Raises:
            UserError: They are no states.
        """
        import numpy as np

        x = normalised(states)
        shared = np.maximum(self._linear("Linear1", x), 0)
        hidden_adv = np.maximum(self._linear("Linear2_adv", shared), 0)
        hidden_val = np.maximum(self._linear("Linear2_val", shared), 0)
        advantage = self._linear("Linear3_adv", hidden_adv)
        return Activations(
            x=x,
            shared=shared,
            hidden_adv=hidden_adv,
            hidden_val=hidden_val,
            advantage=advantage - advantage.mean(axis=1, keepdims=True),
            value=self._linear("Linear3_val", hidden_val),
        )

    def q(self, states: ArrayLike) -> Array:
        """Q of each action in each state, `[n, 5]`; what `states` may be and what is raised: see `normalised`."""
        return self.forward(states).q

    def value(self, states: ArrayLike) -> Array:
        """The value of each state, the mean of its Q, `[n]`; arguments and errors as with `q`."""
        return self.forward(states).value[:, 0]

    def advantage(self, states: ArrayLike) -> Array:
        """The advantage of each action in each state, of mean 0, `[n, 5]`; arguments and errors as with `q`."""
        return self.forward(states).advantage

    def _linear(self, layer: str, inputs: Array) -> Array:
        result: Array = inputs @ self._weights[f"{layer}.weight"].T + self._weights[f"{layer}.bias"]
        return result


def packed(network: DuelingNetwork) -> bytes:
    """All weights as they are stored, one array after the other in the order of `NAMES`: little-endian floats."""
    return b"".join(array.astype("<f4").tobytes() for array in network.weights.values())


_EXPECTED: Final = "a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val"
