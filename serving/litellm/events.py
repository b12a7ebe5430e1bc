"""`EventReader`: the JSON objects in a stream of server-sent events, as the bytes come in."""

from __future__ import annotations

import json
from typing import Any

from ...core.errors import BadReply

LONGEST = 64 << 20
"""Most bytes of one event: more is no reply."""
DONE = b"[DONE]"
"""What OpenAI's format sends in place of a last object."""


class EventReader:
    """Cuts bytes into events; a byte is looked at once, however they are split.

    Source: HTML Living Standard, section 9.2.6. Differs: a line ends with a line feed, before which a carriage return
    is dropped (lone carriage returns are in no provider's streams); names, ids and comments are passed over.

    Attributes:
        done: Whether the stream has said that it is complete.
    """

    def __init__(self) -> None:
        self.done = False
        self._tail = bytearray()
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The objects that a piece completes.

        Raises:
            BadReply: An event is too long, or no JSON object.
            ValueError: An event is no JSON.
        """
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._tail += piece
            if len(self._tail) > LONGEST:
                raise BadReply(f"an event of the stream has more than {LONGEST} bytes")
            return []
        if self._tail:
            lines[0] = bytes(self._tail) + lines[0]
        self._tail = bytearray(lines.pop())
        found: list[dict[str, Any]] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif line in (b"", b"\r"):
                self._dispatch(found)
        return found

    def end(self) -> list[dict[str, Any]]:
        """The object that was left without its closing empty line, if there is one.

        Raises:
            BadReply: It is no JSON object.
            ValueError: It is no JSON.
        """
        return self.feed(b"\n\n") if self._tail or self._data else []

    def _dispatch(self, found: list[dict[str, Any]]) -> None:
        if not self._data:
            return
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        if data == DONE:
            self.done = True
        elif not self.done and data:
            value = json.loads(data)
            if not isinstance(value, dict):
                raise BadReply("an event of the stream is no JSON object")
            found.append(value)
