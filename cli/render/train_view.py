"""Live views of trainings: steps of an entailment model, counts of finished items."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue
from rich.console import Group, RenderableType

from .console import plural
from .status import ProgressView, bar, bar_rows


class StepView(ProgressView):
    """The last point of a learning curve.

    Args:
        title: The command.
        epochs: Number of epochs.
    """

    def __init__(self, title: str, epochs: int) -> None:
        super().__init__()
        self._title, self._epochs = title, epochs
        self._point: Mapping[str, JsonValue] = {}

    def noted(self, point: Mapping[str, JsonValue]) -> None:
        """Show a new point; called from the training's thread."""
        self._point, self._note = dict(point), ""
        self._plain()

    def line(self) -> str:
        if not self._point:
            return self._note or "training"
        values = ", ".join(f"{name} {value}" for name, value in self._point.items() if name not in ("epoch", "step"))
        return f"step {self._point['step']}, epoch {self._point['epoch']} of {self._epochs}: {values}"

    def render(self) -> RenderableType:
        title = self.title(self._title)
        if self._point:
            title.add_row("", self.line())
        return title


class CountView(ProgressView):
    """A count of finished items.

    Args:
        title: The work.
        noun: The item, in the singular.
    """

    def __init__(self, title: str, noun: str) -> None:
        super().__init__()
        self._title, self._noun = title, noun
        self._done = self._total = 0

    def count(self, done: int, total: int) -> None:
        """Show the count."""
        self._note, self._done, self._total = "", done, total
        self._plain()

    def line(self) -> str:
        return f"{self._done:,} of {plural(self._total, self._noun)} done" if self._total else self._note

    def render(self) -> RenderableType:
        title = self.title(self._title)
        if not self._total:
            return title
        rows = bar_rows()
        rows.add_row(f"{self._noun}s", bar(self._done, self._total, "green"), f"{self._done:,}/{self._total:,}")
        return Group(title, rows)
