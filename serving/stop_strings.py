"""`StopStrings`: the text of a sample up to a stop string, while it is generated."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Withholds possible starts of stop strings in a text that is being generated.

    Attributes:
        text: All text that is certain.
        stop_reason: The stop string that was completed, the first in the text if a piece completed several; "" if none.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.text = ""
        self.stop_reason = ""

    def push(self, piece: str) -> str:
        """Take a piece; returns the text that is now certain."""
        pending = self._held + piece
        matches = [(start, s) for s in self._stops if (start := pending.find(s)) >= 0]
        if matches:
            end, self.stop_reason = min(matches, key=lambda match: match[0])
            certain, self._held = pending[:end], ""
        else:
            keep = max((_overlap(pending, s) for s in self._stops), default=0)
            certain, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += certain
        return certain

    def finish(self) -> str:
        """The rest, at the end of the text."""
        rest, self._held = self._held, ""
        self.text += rest
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
