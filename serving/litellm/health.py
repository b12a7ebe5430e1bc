"""`Health`: whether an endpoint is to be asked, by what became of the requests it had. Pure: the time is given."""

from __future__ import annotations

from dataclasses import dataclass

IN_A_ROW = 3
"""Failures in a row after which an endpoint is left alone; fewer may be chance."""
LONGEST_S = 60.0
"""Longest time that an endpoint is left alone of our own accord, in seconds."""


@dataclass
class Health:
    """One endpoint's health.

    After failures in a row, or when it asks for it, an endpoint is left alone for a while. Then a single request tries
    it; if that succeeds, all may come again, else it is left alone for twice as long.

    Attributes:
        cooldown_s: Seconds that it is left alone at first.
        last_error: Why its last failed request failed.
    """

    cooldown_s: float = 1.0
    last_error: Exception | None = None
    _row: int = 0
    _rests: int = 0
    _until: float | None = None
    _trying: bool = False

    def usable(self, now: float) -> bool:
        """Whether the next request may be sent to it."""
        return self._until is None or (now >= self._until and not self._trying)

    def due_s(self, now: float) -> float | None:
        """Seconds until it may be tried; None while a request tries it already."""
        if self._until is None:
            return 0.0
        return None if self._trying else max(0.0, self._until - now)

    def begin(self) -> bool:
        """A request is sent to it; whether that one tries an endpoint that was left alone."""
        self._trying = tries = self._until is not None
        return tries

    def succeeded(self) -> None:
        """It has answered."""
        self._row = self._rests = 0
        self._until, self._trying = None, False

    def failed(self, now: float, error: Exception, *, rest_s: float | None = None, hard: bool = False) -> None:
        """A request failed through no fault of its own.

        Args:
            now: The time in seconds, by any clock that only goes forward.
            error: Why.
            rest_s: Seconds that it wants to be left alone; None if it did not say.
            hard: Whether the next request must fail too (a refused key), so that one failure is enough.
        """
        self.last_error = error
        tried, self._trying = self._trying, False
        if rest_s is not None:
            if rest_s > 0:
                self._until = max(self._until or 0.0, now + rest_s)
            elif tried:
                self._until = now
            return
        self._row += 1
        if self._until is not None and not tried:
            return  # it was under way when the endpoint was given up: that is known already
        if tried or hard or self._row >= IN_A_ROW:
            self._until = now + min(LONGEST_S, self.cooldown_s * 2.0 ** min(self._rests, 30))
            self._rests += 1

    def abandoned(self) -> None:
        """A request that tried it was cancelled: another one may."""
        self._trying = False
