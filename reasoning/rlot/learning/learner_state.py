"""Reading a learner's state again: every part is looked at before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import JsonValue

from ....core.errors import DataError
from ..network import SHAPES, DuelingNetwork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..network import Array

    LearnerState: TypeAlias = Mapping[str, NDArray[Any] | JsonValue]

DAMAGED = "the state is damaged, or of another version of reason; train anew"


def below(state: LearnerState, part: str) -> dict[str, NDArray[Any] | JsonValue]:
    """The entries whose names begin with a part and a full stop, by what follows."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def count(state: LearnerState, name: str) -> int:
    """A whole number from 0.

    Raises:
        DataError: It is missing, or something else.
    """
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"the learner's state has {value!r} as {name}", hint=DAMAGED)
    return value


def arrays(state: LearnerState, part: str) -> dict[str, Array]:
    """An array of double precision for each array of weights, copied.

    Raises:
        DataError: One is missing, of another shape or kind, or not finite.
    """
    import numpy as np

    loaded: dict[str, Array] = {}
    for name, shape in SHAPES.items():
        array = state.get(f"{part}.{name}")
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.float64:
            raise DataError(f"the learner's {part}.{name} is missing or of another shape or kind", hint=DAMAGED)
        if not np.isfinite(array).all():
            raise DataError(f"the learner's {part}.{name} is not finite", hint=DAMAGED)
        loaded[name] = array.copy()
    return loaded


def network(state: LearnerState, part: str) -> DuelingNetwork:
    """A network out of its arrays.

    Raises:
        DataError: See `arrays`.
    """
    return DuelingNetwork(arrays(state, part))


def generator_state(rng: np.random.Generator) -> JsonValue:
    """Where a stream of random numbers stands, for JSON; its numbers have up to 128 bits."""
    value: JsonValue = dict(rng.bit_generator.state)
    return value


def generator(state: LearnerState, name: str) -> np.random.Generator:
    """A stream of random numbers that goes on where another one stood.

    Raises:
        DataError: It is missing, or something else.
    """
    import numpy as np

    bits = np.random.PCG64()
    stands: Any = state.get(name)
    try:
        bits.state = stands
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise DataError(f"the learner's stream of random numbers {name} is damaged", hint=DAMAGED) from e
    return np.random.Generator(bits)
