"""A terminal's screen as far as the live view needs one: text, line breaks, moving up, erasing a line."""

from __future__ import annotations

import codecs
import re

_CUT = re.compile(r"\x1b(?:\[[0-9;?]*)?")
_PIECE = re.compile(r"\x1b\[(?P<numbers>[0-9;?]*)(?P<what>[A-Za-z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")


class Screen:
    """What is seen after some output.

    Attributes:
        lines: The lines, the first at the top; colours are dropped.
    """

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._cut = ""

    def show(self, received: bytes) -> None:
        """Take in output, which may be cut anywhere.

        Raises:
            ValueError: It has a sequence that this screen does not know.
        """
        output, self._cut, at = self._cut + self._decoder.decode(received), "", 0
        while at < len(output):
            piece = _PIECE.match(output, at)
            if piece is None and _CUT.fullmatch(output, at):
                self._cut = output[at:]
                return
            if piece is None:
                raise ValueError(f"not known: {output[at : at + 12]!r}")
            at = piece.end()
            if piece["text"]:
                line = self.lines[self._row].ljust(self._column)
                end = self._column + len(piece["text"])
                self.lines[self._row] = line[: self._column] + piece["text"] + line[end:]
                self._column = end
            elif piece["control"] == "\r":
                self._column = 0
            elif piece["control"] == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            else:
                self._do(piece["what"], piece["numbers"])

    def _do(self, what: str, numbers: str) -> None:
        match what, numbers:
            case "A", _:
                self._row = max(0, self._row - int(numbers or 1))
            case "K", "2":
                self.lines[self._row] = ""
            case ("m", _) | ("h" | "l", "?25"):
                pass
            case _:
                raise ValueError(f"not known: CSI {numbers}{what}")
