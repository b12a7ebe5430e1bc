"""`EventReader`: the JSON objects in a stream of server-sent events, as the bytes come in."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from ...core.errors import BadReply

LONGEST = 64 << 20
"""Most bytes of one event: more is no reply."""
DONE = b"[DONE]"
"""What OpenAI's format sends in place of a last object."""
_EMPTY = (b"", b"\r")


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
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:])
            elif data and line in _EMPTY:
                whole = data[0] if len(data) == 1 else b"\n".join(data)
                data.clear()
                self._take(whole.strip(), found)
        return found

    def end(self) -> list[dict[str, Any]]:
        """The object that was left without its closing empty line, if there is one.

        Raises:
            BadReply: It is no JSON object.
            ValueError: It is no JSON.
        """
        return self.feed(b"\n\n") if self._tail or self._data else []

    def _take(self, data: bytes, found: list[dict[str, Any]]) -> None:
        if data == DONE:
            self.done = True
        elif data and not self.done:
            value = from_json(data)
            if not isinstance(value, dict):
                raise BadReply("an event of the stream is no JSON object")
            found.append(value)
