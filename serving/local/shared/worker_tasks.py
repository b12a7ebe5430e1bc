"""Workers on the engine's thread: beginning a group, a pass of it, and its end.

Each of them is a step of its own: none is batched with what else the engine does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....core.errors import ReasonError
from ...workers import Drawn
from ..prefixes import Prefixes
from .gang import Gang, Step


@dataclass(eq=False)
class OpenTask:
    """Begins a group.

    Attributes:
        make: Makes it.
        columns: Columns that it takes.
        told: Takes the group, whose columns are the taker's to give back.
        failed: Takes the error.
    """

    make: Callable[[], Gang]
    columns: int
    told: Callable[[Gang], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Take room and begin."""
        prefixes.lend(self.columns)
        try:
            gang = self.make()
        except BaseException:
            prefixes.lend(-self.columns)
            raise
        if self.cancelled:
            prefixes.lend(-gang.close())
        self.told(gang)

    def fail(self, error: ReasonError) -> None:
        """There is no group."""
        self.failed(error)


@dataclass(eq=False)
class PassTask:
    """One pass of a group.

    Attributes:
        gang: The group.
        step: What it reads.
        told: Takes what was drawn.
        failed: Takes the error.
    """

    gang: Gang
    step: Step
    told: Callable[[list[Drawn | None]], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Take room and run it."""
        self.gang.check_length(self.step)
        more = self.gang.growth(self.step)
        prefixes.lend(more)
        self.gang.lent += more
        self.told(self.gang.run(self.step))

    def fail(self, error: ReasonError) -> None:
        """Nothing was drawn."""
        self.failed(error)


@dataclass(eq=False)
class CloseTask:
    """Gives back the room of a group, which nobody uses any more."""

    gang: Gang
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Give it back, once."""
        prefixes.lend(-self.gang.close())

    def fail(self, error: ReasonError) -> None:
        """Nobody waits for it."""
