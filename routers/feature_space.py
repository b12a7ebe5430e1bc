"""`Space`: signals as the standardised numbers that a router's lines are over, and `Line`, one such linear function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ..core.messages import Frozen
from .question_features import ENTROPY, Signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FARTHEST: Final = 4.0
"""Standard deviations from the mean at which a number is cut: beyond what training saw, a line proves nothing."""
EMBEDDING: Final = "embedding"
"""What the share of all components of the embedding is called."""

Positive = Annotated[FiniteFloat, Field(gt=0)]


class Space(Frozen):
    """How signals become numbers of mean 0 and variance 1 over the training questions.

    A signal that is not known of a question counts as average: 0. Numbers are cut at `FARTHEST`.

    Attributes:
        names: The named signals, in order; none that did not vary in training.
        means: The mean of each.
        scales: The standard deviation of each.
        support: What the entropy among them is over; "none" if it is not among them.
        embedding: The embedding model by its string; empty if its vectors are not used.
        embedding_identity: Its identity: vectors of another mean nothing here.
        centre: Mean of the training questions' vectors.
        axes: Principal components of these vectors, the one of most variance first.
        spreads: The standard deviation along each.
    """

    names: tuple[str, ...]
    means: tuple[FiniteFloat, ...]
    scales: tuple[Positive, ...]
    support: Literal["none", "full", "top_k"] = "none"
    embedding: str = ""
    embedding_identity: str = ""
    centre: tuple[FiniteFloat, ...] = ()
    axes: tuple[tuple[FiniteFloat, ...], ...] = ()
    spreads: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if not len(self.names) == len(self.means) == len(self.scales):
            raise ValueError("each named signal has a mean and a scale")
        if len(self.axes) != len(self.spreads) or any(len(axis) != len(self.centre) for axis in self.axes):
            raise ValueError("each axis has a spread, and as many numbers as the centre")
        if (ENTROPY in self.names) != (self.support != "none"):
            raise ValueError("the support says what the entropy is over, where it is among the signals")
        if bool(self.axes) != bool(self.embedding_identity):
            raise ValueError("axes are those of an embedding model")
        return self

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return len(self.names) + len(self.axes)

    def row(self, signals: Signals) -> NDArray[np.float64]:
        """The numbers of a question: the named signals, then the components, `[size]`."""
        import numpy as np

        row = np.zeros(self.size)
        for i, (name, mean, scale) in enumerate(zip(self.names, self.means, self.scales, strict=True)):
            value = signals.named.get(name)
            if value is not None and (name != ENTROPY or signals.support == self.support):
                row[i] = (value - mean) / scale
        if self.axes and len(signals.vector) == len(self.centre):
            offset = np.asarray(signals.vector) - np.asarray(self.centre)
            row[len(self.names) :] = np.asarray(self.axes) @ offset / np.asarray(self.spreads)
        found: NDArray[np.float64] = np.clip(row, -FARTHEST, FARTHEST)
        return found

    def unknown(self, signals: Signals) -> list[str]:
        """The signals that the lines are over and that are not known of a question."""
        missing = []
        if ENTROPY in self.names and (ENTROPY not in signals.named or signals.support != self.support):
            missing.append(ENTROPY)
        if self.axes and len(signals.vector) != len(self.centre):
            missing.append(EMBEDDING)
        return missing


class Line(Frozen):
    """A linear function of a space's numbers.

    Attributes:
        intercept: Its value for the average question.
        named: A weight for each named signal; empty if it is over none.
        components: A weight for each of the first components; fewer than there are, if it is over fewer.
    """

    intercept: FiniteFloat
    named: tuple[FiniteFloat, ...] = ()
    components: tuple[FiniteFloat, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether it is the same for every question."""
        return not any(self.named) and not any(self.components)

    def fits(self, space: Space) -> bool:
        """Whether it is over this space."""
        return len(self.named) in (0, len(space.names)) and len(self.components) <= len(space.axes)

    def value(self, space: Space, row: NDArray[np.float64]) -> float:
        """Its value for a row of the space."""
        return self.intercept + sum(self.shares(space, row).values())

    def shares(self, space: Space, row: NDArray[np.float64]) -> dict[str, float]:
        """What each named signal adds to the average question's value, and all components together."""
        found = {
            name: float(weight * number)
            for name, weight, number in zip(space.names if self.named else (), self.named, row, strict=False)
        }
        if self.components:
            at = len(space.names)
            numbers = row[at : at + len(self.components)]
            found[EMBEDDING] = float(sum(w * z for w, z in zip(self.components, numbers, strict=True)))
        return found


def most_telling(shares: dict[str, float], most: int = 3) -> dict[str, float]:
    """The largest shares by size, largest first; those of nothing are left out."""
    ordered = sorted(shares.items(), key=lambda share: (-abs(share[1]), share[0]))
    return {name: round(value, 4) for name, value in ordered[:most] if abs(value) >= 5e-5}


def with_telling(why: str, telling: dict[str, float]) -> str:
    """A reason with the signals that tell most behind it, in one line."""
    behind = ", ".join(f"{name} {value:+.2f}" for name, value in telling.items())
    return f"{why}; {behind}" if behind else why
