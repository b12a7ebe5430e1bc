"""`MovingView`: a picture on standard error that moves while work goes on; where nothing can, a line now and then."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner

from .console import moving_picture, say

FRAMES_PER_S = 4
PLAIN_EVERY_S = 30.0
"""Seconds between two plain lines where nothing can move; the gap doubles up to half an hour."""
BAR_WIDTH = 28


class MovingView(ABC):
    """Draws where long work stands: a context manager.

    Args:
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._note = "loading the model"
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        self._gap = PLAIN_EVERY_S
        self._next_plain = clock() + self._gap

    def __enter__(self) -> Self:
        self._live = moving_picture(self.render, FRAMES_PER_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """Show what is going on beside."""
        self._note = text

    def pulled(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a model's files are; called from another thread."""
        self._note = f"{stage} {done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f} MB" if total else "")

    @abstractmethod
    def render(self) -> RenderableType:
        """The view as it is now."""

    @abstractmethod
    def line(self) -> str:
        """The same in one line."""

    def _plain(self) -> None:
        """A line now and then, where nothing can move."""
        if self._live is None and self._clock() >= self._next_plain:
            self._gap = min(2 * self._gap, 1800.0)
            self._next_plain = self._clock() + self._gap
            say(self.line())
