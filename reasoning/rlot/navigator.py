"""`Navigator`: a trained network that chooses the next block, with the card that says where it comes from.

`NavigatorCard`: where a navigator comes from, what it was trained for, and which questions it has seen.

The navigator's network: seven scores in, a value for each of the five blocks out; 2,566 weights, numpy alone.

    x = (s - 1.5) / 1.5
    z = relu(Linear1 x)                                       7 -> 32
    A = Linear3_adv relu(Linear2_adv z)                       32 -> 32 -> 5
    v = Linear3_val relu(Linear2_val z)                       32 -> 32 -> 1
    Q(s, a) = v + A_a - mean_a A

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140; the dueling streams are those of Wang et al. 2016,
arXiv:1511.06581, equation 9. Names and orientation of the weights are those of the authors' program, so that weights
trained there can be read.

A navigator's file: safetensors with ten arrays of weights, and the card in its metadata.

The metadata has one entry, "reason.navigator": JSON with a version, the card, and a SHA-256 sum over weights and card,
by which damage shows that safetensors does not see.
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
from ...core.files import write_file
from ...core.messages import Frozen
from .assessment import State
from .blocks import MaskMode, RefineMode, best_legal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


FORMAT: Final = 1
QuestionDigest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class NavigatorCard(Frozen):
    """What is known of a navigator; everything has a default, so that one made by hand needs no card.

    Attributes:
        format: Version of the card's form.
        name: The navigator's name; the file's name without its ending where it has none.
        model: The model string of the LLM it was trained with.
        model_identity: Weights, number format and engine of that model, as the run store names them.
        reward: How it was rewarded: "prm", "outcome" or "potential".
        reward_model: The process reward model; empty where there was none.
        datasets: The datasets that its problems are from.
        episodes: Episodes of its training.
        steps: Blocks of its training.
        problems: Different problems that it was trained on.
        seed: Seed of its training.
        gamma: Discount of later rewards.
        max_blocks: Most blocks before the answer.
        mask_mode: What became of blocks that may not run.
        refine_mode: Whether a refined step stood beside the old one or in its place.
        parameters: The strategy's parameters during training.
        trained_on: `question_digest` of each problem.
        created: When training ended, ISO 8601.
        version: Version of `reason`.
        notes: Whatever else is worth knowing.
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


def question_digest(text: str) -> str:
    """Sixteen hexadecimal digits of a question's text; case and the number and kind of blanks make no difference."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:16]


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


LARGEST: Final = 64 * 2**20
"""Bytes of a file that is read; the weights are 10 KiB, a card of a million training questions 20 MiB."""

_ENTRY = "reason.navigator"
_FORMATS = ("float16", "float32", "float64")
_ANEW = "copy the file again, or train anew: reason train navigator"


def pack(network: DuelingNetwork, card: NavigatorCard) -> bytes:
    """The file's content; weights in single precision."""
    import numpy as np
    from safetensors.numpy import save

    plain = card.model_dump(mode="json")
    entry = {"format": FORMAT, "sha256": _checksum(packed(network), plain), "card": plain}
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in network.weights.items()}
    # one entry: safetensors writes several in an order that differs from process to process
    return bytes(save(arrays, metadata={_ENTRY: json.dumps(entry)}))


def unpack(raw: bytes, file: str) -> tuple[dict[str, NDArray[np.float64]], NavigatorCard]:
    """The weights, not yet looked at but for their names and number format, and the card.

    Args:
        raw: The file's content.
        file: The file's name, for errors.

    Raises:
        DataError: It is cut short, damaged, not safetensors, of a later version, or holds other arrays.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged, or no safetensors file", hint=_ANEW) from e
    if set(arrays) != set(SHAPES):
        other = ", ".join(sorted(arrays)[:4]) or "nothing"
        raise DataError(
            f"{file} is no navigator: it holds {other}",
            hint="a navigator has weight and bias of Linear1, Linear2_adv, Linear2_val, Linear3_adv and Linear3_val",
        )
    for name, array in arrays.items():
        if array.dtype.name not in _FORMATS:
            raise DataError(f"{file} is no navigator: {name} is {array.dtype}", hint=f"store it as {_FORMATS[1]}")
    weights = {name: array.astype(np.float64) for name, array in arrays.items()}
    return weights, _card(header.get("__metadata__", {}).get(_ENTRY), weights, file)


def _card(entry: str | None, weights: dict[str, NDArray[np.float64]], file: str) -> NavigatorCard:
    if entry is None:
        return NavigatorCard()
    try:
        told: Any = json.loads(entry)
        version, sha256, plain = told["format"], told["sha256"], told["card"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"the card of the navigator {file} is damaged", hint=_ANEW) from e
    if version != FORMAT:
        raise DataError(
            f"the navigator {file} has format {version}; this version of reason reads {FORMAT}",
            hint="train anew, or use the version of reason that wrote it",
        )
    if sha256 != _checksum(b"".join(weights[name].astype("<f4").tobytes() for name in SHAPES), plain):
        raise DataError(f"the navigator {file} is damaged: its checksum is wrong", hint=_ANEW)
    try:
        return NavigatorCard.model_validate_json(json.dumps(plain))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        raise DataError(f"the card of the navigator {file} is damaged: {where}: {first['msg']}", hint=_ANEW) from e


def _checksum(weights: bytes, card: Any) -> str:
    text = json.dumps(card, sort_keys=True)
    return hashlib.sha256(weights + text.encode(errors="surrogatepass")).hexdigest()


__all__ = ["DEFAULT", "Navigator", "NavigatorCard", "load_navigator", "question_digest", "save_navigator"]

DEFAULT: Final = "default"
"""The name of the navigator that comes with the package."""

ActionValues: TypeAlias = tuple[float, float, float, float, float]
_DEFAULT_FILE = "default.safetensors"
_MADE_BY = "reason train navigator makes one"


class Navigator:
    """Chooses the next block by a self-assessment.

    Args:
        network: Its weights; rounded to single precision, as they are stored, so that it chooses the same before it
            was stored and after.
        card: Where it comes from.

    Raises:
        UserError: A weight is too large for single precision.
    """

    def __init__(self, network: DuelingNetwork, card: NavigatorCard | None = None) -> None:
        self.network = network.rounded()
        self.card = card or NavigatorCard()
        self._trained_on = frozenset(self.card.trained_on)

    def q(self, state: State) -> ActionValues:
        """The expected discounted reward of each block after an assessment.

        Raises:
            UserError: It is no assessment: not seven scores from 0 to 3.
        """
        reason, decompose, debate, refine, terminate = self.network.q([state])[0].tolist()
        return reason, decompose, debate, refine, terminate

    def choose(self, state: State, legal: Sequence[bool]) -> int:
        """The legal block of the highest value; of equal ones that of the lowest number.

        Raises:
            UserError: None is legal, or `state` is no assessment.
        """
        return best_legal(self.q(state), legal)

    def knows(self, question_text: str) -> bool:
        """Whether it was trained on this question: then its answer to it says nothing about other questions."""
        return question_digest(question_text) in self._trained_on

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the weights."""
        return hashlib.sha256(packed(self.network)).hexdigest()[:16]


def load_navigator(source: Path | str) -> Navigator:
    """Read a navigator.

    Args:
        source: Its file, or the string "default" for the one that comes with the package. A file without a card, as
            any program writes that stores the authors' network as safetensors, gets one with its name alone.

    Raises:
        DataError: There is no such file, it cannot be read, it is damaged, or holds something else; names the file.
    """
    if source == DEFAULT:
        resource = resources.files(__package__).joinpath(_DEFAULT_FILE)
        if not resource.is_file():
            raise DataError(
                f"this installation has no default navigator: {resource} is missing",
                hint=f"{_MADE_BY}, and --set navigator=FILE uses it; --set policy=fixed needs none",
            )
        return _navigator(resource.read_bytes(), str(resource), DEFAULT)
    path = Path(source).expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} is too large for a navigator", hint=_MADE_BY)
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no navigator {path}", hint=_MADE_BY) from e
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise DataError(f"cannot read the navigator {path}: {why}", hint=_MADE_BY) from e
    return _navigator(raw, str(path), path.stem)


def save_navigator(navigator: Navigator, path: Path) -> None:
    """Write a navigator as safetensors, the card in the file's metadata; the same navigator gives the same bytes.

    A reader finds the old file or the new one, never half of it.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_file(Path(path), pack(navigator.network, navigator.card))


def _navigator(raw: bytes, file: str, name: str) -> Navigator:
    weights, card = unpack(raw, file)
    try:
        network = DuelingNetwork(weights)
        navigator = Navigator(network, card if card.name else card.model_copy(update={"name": name}))
    except UserError as e:
        raise DataError(f"{file} is no navigator: {e.message}", hint=e.hint or _MADE_BY) from e
    return navigator
