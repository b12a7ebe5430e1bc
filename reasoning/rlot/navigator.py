"""`Navigator`: a trained network that chooses the next block, its card, and its file.

    x = (s - 1.5) / 1.5
    z = relu(Linear1 x)                                       7 -> 32
    A = Linear3_adv relu(Linear2_adv z)                       32 -> 32 -> 5
    v = Linear3_val relu(Linear2_val z)                       32 -> 32 -> 1
    Q(s, a) = v + A_a - mean_a A                              2,566 weights in all

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; the dueling streams are those of Wang et al. 2016,
arXiv:1511.06581, equation 9. Names and orientation of the weights are those of the authors' program, so that weights
trained there can be loaded.

The file is safetensors with ten arrays. Its metadata has one entry, "reason.navigator": JSON with a version and the
card.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import ConfigDict, Field, FiniteFloat, JsonValue

from ...core.errors import DataError, UserError
from ...core.files import QuestionDigest, question_digest, write_file
from ...core.messages import Frozen
from .assessment import State
from .blocks import Parity, best_legal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array: TypeAlias = NDArray[np.float64]

DEFAULT: Final = "default"
"""Name of the bundled navigator."""
FORMAT: Final = 1
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
"""Shape of each array by name; matrices are (outputs, inputs)."""
PARAMETERS: Final = sum(math.prod(shape) for shape in SHAPES.values())
"""Number of weights: 2,566."""

_ENTRY: Final = "reason.navigator"
_EXPECTED: Final = "a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val"
_HOW_TO_TRAIN: Final = "training/navigator/train_navigator.py makes one; --set policy=fixed needs none"


class NavigatorCard(Frozen):
    """Origin and training of a navigator; everything has a default, so a navigator made by hand needs no card.

    Attributes:
        name: The navigator's name; by default the file's name without its suffix.
        model: Model string of the LLM it was trained with.
        model_identity: Identity of that model in the run store.
        reward: "prm", "outcome" or "potential".
        reward_model: The process reward model; empty without one.
        datasets: Datasets of its training problems.
        episodes: Training episodes.
        steps: Blocks run in training.
        problems: Number of distinct training problems.
        gamma: Discount of later rewards.
        max_blocks: Maximum blocks before the answer.
        parameters: The strategy's parameters during training.
        trained_on: `question_digest` of each problem.
        created: End of the training, ISO 8601.
        version: Version of `reason`.
        notes: Other facts.
    """

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    model: str = ""
    model_identity: str = ""
    reward: str = ""
    reward_model: str = ""
    datasets: tuple[str, ...] = ()
    episodes: int = 0
    steps: int = 0
    problems: int = 0
    seed: int = 0
    gamma: FiniteFloat = 0.9
    max_blocks: int = 5
    parity: Parity = "none"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    trained_on: tuple[QuestionDigest, ...] = ()
    created: str = ""
    version: str = ""
    notes: dict[str, JsonValue] = Field(default_factory=dict)


def normalised(states: ArrayLike) -> Array:
    """Scores from 0 to 3 as numbers from -1 to 1: (s - 1.5) / 1.5.

    Args:
        states: Scores, `[n, 7]`, or of a single state, `[7]`.

    Returns:
        `[n, 7]`.

    Raises:
        UserError: The shape is wrong, or a score is not an integer from 0 to 3.
    """
    import numpy as np

    scores = np.atleast_2d(np.asarray(states, dtype=np.float64))
    if scores.ndim != 2 or scores.shape[1] != STATE_SIZE:
        raise UserError(f"expected states of shape [n, 7], got {np.shape(states)}", hint="a state is seven scores")
    if not np.isin(scores, (0.0, 1.0, 2.0, 3.0)).all():
        raise UserError("a state has a score other than 0, 1, 2 or 3", hint="a missing score is 0")
    result: Array = (scores - 1.5) / 1.5
    return result


class DuelingNetwork:
    """The network for inference, in double precision; immutable.

    Args:
        weights: An array for each name in `SHAPES`; copied.

    Raises:
        UserError: An array is missing, superfluous, of another shape, not a float, or not finite.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        import numpy as np

        if set(weights) != set(SHAPES):
            wrong = sorted(set(weights) ^ set(SHAPES))
            raise UserError(f"missing or unknown weights: {', '.join(wrong[:4])}", hint=_EXPECTED)
        self.weights: dict[str, Array] = {}
        for name, shape in SHAPES.items():
            stored = np.asarray(weights[name])
            if stored.shape != shape or stored.dtype.kind != "f":
                raise UserError(f"{name} is {stored.dtype} of shape {stored.shape}, not {shape}", hint=_EXPECTED)
            array = np.array(stored, dtype=np.float64)
            if not np.isfinite(array).all():
                raise UserError(f"{name} has a weight that is not finite", hint=_EXPECTED)
            array.setflags(write=False)
            self.weights[name] = array

    def forward(self, states: ArrayLike) -> tuple[Array, Array]:
        """The advantage of each action, of mean 0, `[n, 5]`, and the value of each state, `[n, 1]`."""
        import numpy as np

        def linear(layer: str, inputs: Array) -> Array:
            result: Array = inputs @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]
            return result

        shared = np.maximum(linear("Linear1", normalised(states)), 0)
        advantage = linear("Linear3_adv", np.maximum(linear("Linear2_adv", shared), 0))
        value = linear("Linear3_val", np.maximum(linear("Linear2_val", shared), 0))
        return advantage - advantage.mean(axis=1, keepdims=True), value

    def q(self, states: ArrayLike) -> Array:
        """Q of each action in each state, `[n, 5]` (arguments and errors as in `normalised`)."""
        advantage, value = self.forward(states)
        return value + advantage


class Navigator:
    """Chooses the next block by a self-assessment.

    Args:
        network: Its weights; rounded to single precision, as they are stored.
        card: Its origin.

    Raises:
        UserError: A weight overflows single precision.
    """

    def __init__(self, network: DuelingNetwork, card: NavigatorCard | None = None) -> None:
        import numpy as np

        with np.errstate(over="ignore"):
            self.network = DuelingNetwork({name: a.astype(np.float32) for name, a in network.weights.items()})
        self.card = card or NavigatorCard()
        self._trained_on = frozenset(self.card.trained_on)

    def q(self, state: State) -> tuple[float, ...]:
        """The expected discounted reward of each block.

        Raises:
            UserError: The state is not seven scores from 0 to 3.
        """
        return tuple(self.network.q([state])[0].tolist())

    def choose(self, state: State, legal: Sequence[bool]) -> int:
        """The legal block of the highest value; ties go to the lowest number.

        Raises:
            UserError: None is legal, or the state is invalid.
        """
        return best_legal(self.q(state), legal)

    def knows(self, question_text: str) -> bool:
        """Whether it was trained on this question."""
        return question_digest(question_text) in self._trained_on

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the weights."""
        content = b"".join(array.astype("<f4").tobytes() for array in self.network.weights.values())
        return hashlib.sha256(content).hexdigest()[:16]


def load_navigator(source: Path | str) -> Navigator:
    """Load a navigator.

    Args:
        source: Its file, or "default" for the bundled one. Weights of the authors' program without a card get one with
            only the file's name.

    Raises:
        DataError: The file is missing, unreadable, damaged, or holds something else; names the file.
    """
    is_bundled = source == DEFAULT
    path = resources.files(__package__) / "default.safetensors" if is_bundled else Path(source).expanduser()
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no navigator {path}", hint=_HOW_TO_TRAIN) from e
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise DataError(f"cannot read the navigator {path}: {why}", hint=_HOW_TO_TRAIN) from e
    return _parse(raw, str(path), DEFAULT if is_bundled else Path(source).stem)


def save_navigator(navigator: Navigator, path: Path) -> None:
    """Write a navigator as safetensors, atomically; equal navigators give equal bytes.

    Raises:
        StoreError: It cannot be written; an existing file stays.
    """
    import numpy as np
    from safetensors.numpy import save

    entry = json.dumps({"format": FORMAT, "card": navigator.card.model_dump(mode="json")})
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in navigator.network.weights.items()}
    # one entry: safetensors writes several in an order that differs from process to process
    write_file(Path(path), save(arrays, metadata={_ENTRY: entry}))


def _parse(raw: bytes, file: str, name: str) -> Navigator:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        entry = json.loads(header.get("__metadata__", {}).get(_ENTRY, "null"))
        card = NavigatorCard() if entry is None else NavigatorCard.model_validate_json(json.dumps(entry["card"]))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged or not a navigator", hint=_HOW_TO_TRAIN) from e
    if entry is not None and entry.get("format") != FORMAT:
        raise DataError(
            f"the navigator {file} has format {entry.get('format')}; this version of reason reads {FORMAT}",
            hint="train a new navigator, or use the version of reason that wrote it",
        )
    try:
        return Navigator(DuelingNetwork(arrays), card if card.name else card.model_copy(update={"name": name}))
    except UserError as e:
        raise DataError(f"{file} is not a navigator: {e.message}", hint=e.hint or _HOW_TO_TRAIN) from e
