"""`Navigator`: a trained network that chooses the next block, with the card that says where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final, TypeAlias

from ...core.errors import DataError, UserError
from ...core.whole_files import write_bytes
from .aspects import State
from .blocks import best_legal
from .navigator_card import NavigatorCard, question_digest
from .navigator_file import LARGEST, pack, unpack
from .network import DuelingNetwork, packed

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
    write_bytes(Path(path), pack(navigator.network, navigator.card))


def _navigator(raw: bytes, file: str, name: str) -> Navigator:
    weights, card = unpack(raw, file)
    try:
        network = DuelingNetwork(weights)
        navigator = Navigator(network, card if card.name else card.model_copy(update={"name": name}))
    except UserError as e:
        raise DataError(f"{file} is no navigator: {e.message}", hint=e.hint or _MADE_BY) from e
    return navigator
