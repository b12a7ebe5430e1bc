"""`Navigator`: a trained network that chooses the next block, its card, and its file.

    x = (s - 1.5) / 1.5
    z = relu(Linear1 x)                                       7 -> 32
    A = Linear3_adv relu(Linear2_adv z)                       32 -> 32 -> 5
    v = Linear3_val relu(Linear2_val z)                       32 -> 32 -> 1
    Q(s, a) = v + A_a - mean_a A                              2,566 weights in all

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; the dueling streams are those of Wang et al. 2016,
arXiv:1511.06581, equation 9. Names and orientation of the weights are those of the authors' program, so that weights
trained there can be loaded.

The file is safetensors with ten arrays. Its metadata has one entry, "reason.navigator": JSON with a version, the card,
and a SHA-256 checksum of weights and card.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, FiniteFloat, JsonValue, ValidationError

from ...core.errors import DataError, UserError
from ...core.files import QuestionDigest, question_digest, write_file
from ...core.messages import Frozen
from .assessment import State
from .blocks import MaskMode, RefineMode, best_legal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


FORMAT: Final = 1


class NavigatorCard(Frozen):
    """Origin and training of a navigator; everything has a default, so a navigator made by hand needs no card.

    Attributes:
        format: Version of the card's format.
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

    format: Literal[1] = FORMAT
    name: str = ""
    model: str = ""
    model_identity: str = ""
    reward: str = ""
    reward_model: str = ""
    datasets: tuple[str, ...] = ()
    episodes: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=0)] = 0
    problems: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    gamma: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.9
    max_blocks: Annotated[int, Field(ge=1)] = 5
    mask_mode: MaskMode = "mask"
    refine_mode: RefineMode = "append"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    trained_on: tuple[QuestionDigest, ...] = ()
    created: str = ""
    version: str = ""
    notes: dict[str, JsonValue] = Field(default_factory=dict)


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
"""Shape of each array by name; matrices are (outputs, inputs)."""
NAMES: Final[tuple[str, ...]] = tuple(SHAPES)
"""Names of the arrays, from the input to the output."""
PARAMETERS: Final = sum(math.prod(shape) for shape in SHAPES.values())
"""Number of weights: 2,566."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Intermediate results of a forward pass over n states.

    Attributes:
        x: The normalised states, `[n, 7]`.
        shared: After the first layer, `[n, 32]`; not negative, like the two that follow.
        hidden_adv: After the second layer of the advantage stream, `[n, 32]`.
        hidden_val: After the second layer of the value stream, `[n, 32]`.
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
        states: Scores, `[n, 7]`, or of a single state, `[7]`.

    Returns:
        `[n, 7]`.

    Raises:
        UserError: The shape is wrong, or a score is not an integer from 0 to 3.
    """
    import numpy as np

    scores = np.asarray(states, dtype=np.float64)
    if scores.ndim == 1:
        scores = scores[None, :]
    if scores.ndim != 2 or scores.shape[1] != STATE_SIZE:
        raise UserError(f"expected states of shape [n, 7], got {np.shape(states)}", hint="a state is seven scores")
    if not np.isin(scores, (0.0, 1.0, 2.0, 3.0)).all():
        raise UserError("a state has a score other than 0, 1, 2 or 3", hint="a missing score is 0")
    result: Array = (scores - 1.5) / 1.5
    return result


class DuelingNetwork:
    """The network with its weights, in double precision; immutable.

    Args:
        weights: An array for each of `NAMES`, of the shape in `SHAPES`; copied.

    Raises:
        UserError: An array is missing, superfluous, of another shape, not a float, or not finite.
    """

    def __init__(self, weights: Weights) -> None:
        import numpy as np

        if set(weights) != set(NAMES):
            wrong = sorted(set(weights) ^ set(NAMES))
            raise UserError(f"missing or unknown weights: {', '.join(wrong)}", hint=_EXPECTED)
        arrays: dict[str, Array] = {}
        for name, shape in SHAPES.items():
            stored = np.asarray(weights[name])
            if stored.shape != shape or stored.dtype.kind != "f":
                raise UserError(f"{name} is {stored.dtype} of shape {stored.shape}, not {shape}", hint=_EXPECTED)
            array = np.array(stored, dtype=np.float64)
            if not np.isfinite(array).all():
                raise UserError(f"{name} has a weight that is not finite", hint=_EXPECTED)
            array.setflags(write=False)
            arrays[name] = array
        self._weights = arrays

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        """An untrained network: each weight uniform in ±1/sqrt(inputs of its layer), as in torch."""
        arrays: dict[str, Array] = {}
        for layer, (outputs, inputs) in _LAYERS.items():
            bound = 1 / math.sqrt(inputs)
            arrays[f"{layer}.weight"] = rng.uniform(-bound, bound, (outputs, inputs))
            arrays[f"{layer}.bias"] = rng.uniform(-bound, bound, (outputs,))
        return cls(arrays)

    def rounded(self) -> Self:
        """The same network with its weights rounded to single precision, in which they are stored.

        Raises:
            UserError: A weight overflows.
        """
        import numpy as np

        with np.errstate(over="ignore"):
            return type(self)({name: array.astype(np.float32) for name, array in self._weights.items()})

    @property
    def weights(self) -> Mapping[str, Array]:
        """The read-only arrays by name, in the order of `NAMES`."""
        return dict(self._weights)

    @property
    def parameters(self) -> int:
        """Number of weights: 2,566."""
        return sum(array.size for array in self._weights.values())

    def forward(self, states: ArrayLike) -> Activations:
        """One pass with all intermediate results (raises as `normalised`)."""
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
        """Q of each action in each state, `[n, 5]` (arguments and errors as in `normalised`)."""
        return self.forward(states).q

    def value(self, states: ArrayLike) -> Array:
        """The value of each state, the mean of its Q, `[n]`."""
        return self.forward(states).value[:, 0]

    def advantage(self, states: ArrayLike) -> Array:
        """The advantage of each action in each state, of mean 0, `[n, 5]`."""
        return self.forward(states).advantage

    def _linear(self, layer: str, inputs: Array) -> Array:
        result: Array = inputs @ self._weights[f"{layer}.weight"].T + self._weights[f"{layer}.bias"]
        return result


def packed(network: DuelingNetwork) -> bytes:
    """All weights as little-endian floats, in the order of `NAMES`."""
    return b"".join(array.astype("<f4").tobytes() for array in network.weights.values())


_EXPECTED: Final = "a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val"


MAX_FILE_BYTES: Final = 64 * 2**20
"""Maximum size of a file; the weights have 10 KiB, a card of a million training questions 20 MiB."""

_ENTRY = "reason.navigator"
_FORMATS = ("float16", "float32", "float64")
_RETRAIN = "copy the file again, or train a new navigator: reason train navigator"


def pack(network: DuelingNetwork, card: NavigatorCard) -> bytes:
    """The content of a navigator's file; weights in single precision."""
    import numpy as np
    from safetensors.numpy import save

    plain = card.model_dump(mode="json")
    entry = {"format": FORMAT, "sha256": _checksum(packed(network), plain), "card": plain}
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in network.weights.items()}
    # one entry: safetensors writes several in an order that differs from process to process
    return bytes(save(arrays, metadata={_ENTRY: json.dumps(entry)}))


def unpack(raw: bytes, file: str) -> tuple[dict[str, NDArray[np.float64]], NavigatorCard]:
    """The weights, checked only for names and dtype, and the card.

    Args:
        file: The file's name, for errors.

    Raises:
        DataError: The content is truncated, damaged, not safetensors, of a later version, or holds other arrays.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged or not a safetensors file", hint=_RETRAIN) from e
    if set(arrays) != set(SHAPES):
        other = ", ".join(sorted(arrays)[:4]) or "nothing"
        raise DataError(
            f"{file} is not a navigator: it holds {other}",
            hint="a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val",
        )
    for name, array in arrays.items():
        if array.dtype.name not in _FORMATS:
            raise DataError(f"{file} is not a navigator: {name} is {array.dtype}", hint=f"store it as {_FORMATS[1]}")
    weights = {name: array.astype(np.float64) for name, array in arrays.items()}
    return weights, _card(header.get("__metadata__", {}).get(_ENTRY), weights, file)


def _card(entry: str | None, weights: dict[str, NDArray[np.float64]], file: str) -> NavigatorCard:
    if entry is None:
        return NavigatorCard()
    try:
        data: Any = json.loads(entry)
        version, sha256, card = data["format"], data["sha256"], data["card"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"the card of the navigator {file} is damaged", hint=_RETRAIN) from e
    if version != FORMAT:
        raise DataError(
            f"the navigator {file} has format {version}; this version of reason reads {FORMAT}",
            hint="train a new navigator, or use the version of reason that wrote it",
        )
    if sha256 != _checksum(b"".join(weights[name].astype("<f4").tobytes() for name in SHAPES), card):
        raise DataError(f"the navigator {file} is damaged: its checksum is wrong", hint=_RETRAIN)
    try:
        return NavigatorCard.model_validate_json(json.dumps(card))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        raise DataError(f"the card of the navigator {file} is damaged: {where}: {first['msg']}", hint=_RETRAIN) from e


def _checksum(weights: bytes, card: Any) -> str:
    text = json.dumps(card, sort_keys=True)
    return hashlib.sha256(weights + text.encode(errors="surrogatepass")).hexdigest()


__all__ = ["DEFAULT", "Navigator", "NavigatorCard", "load_navigator", "save_navigator"]

DEFAULT: Final = "default"
"""Name of the bundled navigator."""

ActionValues: TypeAlias = tuple[float, float, float, float, float]
_DEFAULT_FILE = "default.safetensors"
_HOW_TO_TRAIN = "reason train navigator makes one"


class Navigator:
    """Chooses the next block by a self-assessment.

    Args:
        network: Its weights; rounded to single precision, as they are stored.
        card: Its origin.

    Raises:
        UserError: A weight overflows single precision.
    """

    def __init__(self, network: DuelingNetwork, card: NavigatorCard | None = None) -> None:
        self.network = network.rounded()
        self.card = card or NavigatorCard()
        self._trained_on = frozenset(self.card.trained_on)

    def q(self, state: State) -> ActionValues:
        """The expected discounted reward of each block.

        Raises:
            UserError: The state is not seven scores from 0 to 3.
        """
        reason, decompose, debate, refine, terminate = self.network.q([state])[0].tolist()
        return reason, decompose, debate, refine, terminate

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
        return hashlib.sha256(packed(self.network)).hexdigest()[:16]


def load_navigator(source: Path | str) -> Navigator:
    """Load a navigator.

    Args:
        source: Its file, or "default" for the bundled one. Weights of the authors' program without a card get one with
            only the file's name.

    Raises:
        DataError: The file is missing, unreadable, damaged, or holds something else; names the file.
    """
    if source == DEFAULT:
        resource = resources.files(__package__).joinpath(_DEFAULT_FILE)
        if not resource.is_file():
            raise DataError(
                f"this installation has no default navigator: {resource} is missing",
                hint=f"{_HOW_TO_TRAIN}, and --set navigator=FILE uses it; --set policy=fixed needs none",
            )
        return _parse(resource.read_bytes(), str(resource), DEFAULT)
    path = Path(source).expanduser()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is too large for a navigator", hint=_HOW_TO_TRAIN)
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no navigator {path}", hint=_HOW_TO_TRAIN) from e
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise DataError(f"cannot read the navigator {path}: {why}", hint=_HOW_TO_TRAIN) from e
    return _parse(raw, str(path), path.stem)


def save_navigator(navigator: Navigator, path: Path) -> None:
    """Write a navigator as safetensors, atomically; equal navigators give equal bytes.

    Raises:
        StoreError: It cannot be written; an existing file stays.
    """
    write_file(Path(path), pack(navigator.network, navigator.card))


def _parse(raw: bytes, file: str, name: str) -> Navigator:
    weights, card = unpack(raw, file)
    try:
        network = DuelingNetwork(weights)
        navigator = Navigator(network, card if card.name else card.model_copy(update={"name": name}))
    except UserError as e:
        raise DataError(f"{file} is not a navigator: {e.message}", hint=e.hint or _HOW_TO_TRAIN) from e
    return navigator
