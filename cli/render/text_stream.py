"""Streaming of the answer's text to standard output, if the answer is a single sample."""

from __future__ import annotations

from collections.abc import Callable

from ...core.errors import ReasonError
from ...core.events import CallStarted, Event, RunStarted, StrategyNote, TextDelta
from ...core.settings import JURY
from ...reasoning.answers.extraction import has_value_answer
from .console import TextWriter


class TextStream:
    """A sink that prints the text of a run's first generation, if it is a single sample that may be the answer.

    The first generation of a search is a step of its tree, and that of a jury one of several opinions: neither is
    printed, even if another strategy chose the search or the jury. Text that a strategy releases as the run's answer
    (`TextDelta.answer_start`) is printed in any case.

    Leading white space is dropped and trailing white space held back, so that the printed text equals the answer's.

    Args:
        on_first: Called before the first text is printed, to remove the live view.
        on_closed: Called once when the reader of standard output has closed the pipe.
        show_reasoning: Whether text is printed whose only answer is a value (`has_value_answer`).
    """

    def __init__(
        self, on_first: Callable[[], None], on_closed: Callable[[], object], *, show_reasoning: bool = True
    ) -> None:
        self._show_reasoning = show_reasoning
        self._is_silent = False
        self._on_first = on_first
        self._on_closed = on_closed
        self._call: int | None = None
        self._seen_generation = False
        self._held = ""
        self.writer = TextWriter()
        self.printed = ""
        self.pipe_closed = False

    def __call__(self, event: Event) -> None:
        """Print a text delta of the sample."""
        if isinstance(event, RunStarted):
            self._seen_generation = starts_with_draft(event.strategy)
            self._is_silent = not self._show_reasoning and has_value_answer(event.question)
        elif isinstance(event, StrategyNote) and event.name in ("auto.chosen", "question.routed"):
            self._seen_generation |= starts_with_draft(str(event.data.get("chosen", "")))
        elif isinstance(event, CallStarted) and event.operation == "workers":
            self._seen_generation = True  # the generation after the workers only ends their transcript
        elif isinstance(event, CallStarted) and event.operation == "generate":
            self._call = event.number if not self._seen_generation and event.samples == 1 else None
            self._seen_generation = True
        elif isinstance(event, TextDelta) and event.answer_start is None and event.parent == self._call:
            self._print(event.text)
        elif isinstance(event, TextDelta) and event.answer_start is not None:
            self._seen_generation = True
            self._print(event.text)

    def _print(self, text: str) -> None:
        if self._is_silent:
            return
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
            self.writer.write(shown)
        except BrokenPipeError:
            self._call = None
            self.pipe_closed = True
            self._on_closed()


def starts_with_draft(strategy: str) -> bool:
    """Whether a strategy starts with a step of a tree or one of several opinions; False for unknown strategies."""
    from ...reasoning.search.core import SearchOptions
    from ...reasoning.strategy import STRATEGIES

    try:
        kind = STRATEGIES.load(strategy)
        return JURY in kind.roles or issubclass(kind.Config, SearchOptions)
    except ReasonError:
        return False
