"""`AnswerTime`: what is kept of a time limit, so that the answer can still be asked for behind the steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.run import Run


class AnswerTime:
    """The time of a run that belongs to its final answer."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._slowest_s = 0.0

    @property
    def kept_s(self) -> float:
        """Seconds kept for the answer: a tenth of the time limit, or what the slowest call so far took."""
        return max(self._slowest_s, (self._run.ledger.budget.seconds or 0.0) / 10)

    def took(self, seconds: float) -> None:
        """Note how long a call took."""
        self._slowest_s = max(self._slowest_s, seconds)

    @contextmanager
    def cutting(self, enough: asyncio.Event | None = None) -> Iterator[asyncio.Event | None]:
        """An event that is set where the time for the answer begins.

        Args:
            enough: Set then; None makes one where there is a time limit.

        Raises:
            BudgetExceeded: It has begun.
        """
        ledger = self._run.ledger
        left = ledger.remaining_seconds()
        if left is None:
            yield enough
            return
        if left <= self.kept_s:
            raise ledger.exceeded("seconds")
        event = enough or asyncio.Event()
        timer = asyncio.get_running_loop().call_later(left - self.kept_s, event.set)
        try:
            yield event
        finally:
            timer.cancel()
