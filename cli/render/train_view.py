"""Live view of a count of finished items, for trainings."""

from __future__ import annotations

from rich.console import Group, RenderableType

from .console import plural
from .status import ProgressView, bar, bar_rows


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
