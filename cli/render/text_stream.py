"""Text on standard output as it is generated, where the answer is a single sample."""

from __future__ import annotations

from collections.abc import Callable

from ...core.errors import ReasonError
from ...core.events import CallStarted, Event, RunStarted, StrategyNote, TextDelta
from ...core.settings import JURY
from .console import write


class TextStream:
    """A sink that prints the text of a run's first generation, if that is a single sample and may be the answer.

    What a search generates first is a step of its tree, and what a jury does is one opinion of several: neither is
    printed, whoever chose the strategy.

    Leading white space is dropped and trailing white space held back, so that what was printed is the answer's text.

    Args:
        on_first: Called before the first text is printed, to clear the screen of moving parts.
        on_closed: Called once when nobody reads standard output any more.
    """

    def __init__(self, on_first: Callable[[], None], on_closed: Callable[[], object]) -> None:
        self._on_first = on_first
        self._on_closed = on_closed
        self._call: int | None = None
        self._seen_generation = False
        self._held = ""
        self.printed = ""
        self.pipe_closed = False

    def __call__(self, event: Event) -> None:
        """Print a text delta of the sample."""
        if isinstance(event, RunStarted):
            self._seen_generation = drafts(event.strategy)
        elif isinstance(event, StrategyNote) and event.name in ("auto.chosen", "question.routed"):
            self._seen_generation |= drafts(str(event.data.get("chosen", "")))
        elif isinstance(event, CallStarted) and event.operation == "workers":
            self._seen_generation = True  # what is generated behind them ends their transcript
        elif isinstance(event, CallStarted) and event.operation == "generate":
            self._call = event.number if not self._seen_generation and event.samples == 1 else None
            self._seen_generation = True
        elif isinstance(event, TextDelta) and event.parent == self._call:
            self._print(event.text)

    def _print(self, text: str) -> None:
        text = self._held + text
        if not self.printed:
            text = text.lstrip()
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if not shown:
            return
        if not self.printed:
            self._on_first()
        self.printed += shown
        try:
            write(shown)
        except BrokenPipeError:
            self._call = None
            self.pipe_closed = True
            self._on_closed()


def drafts(strategy: str) -> bool:
    """Whether a strategy begins with a step of a tree or an opinion of several; False of one that is not known here."""
    from ...reasoning.search.core import SearchOptions
    from ...reasoning.strategy import STRATEGIES

    try:
        kind = STRATEGIES.load(strategy)
        return JURY in kind.roles or issubclass(kind.Config, SearchOptions)
    except ReasonError:
        return False
