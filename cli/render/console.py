"""Output to the terminal: results go to standard output, everything else to standard error.

Colour and animation appear only on a terminal, and only if `NO_COLOR` is not set.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

PIPE_WIDTH = 20_000
"""Columns in a pipe or file, where next to nothing is wrapped or truncated."""

_WORDS = re.compile(r"\n|[^\S\n]+|\S+")
_PADDING = re.compile(r" +(?=\n)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Console on standard output, for results."""
    return _console(stderr=False)


class _Redrawn:
    """The live display on standard error: what is printed while it is shown goes above it."""

    live: Live | None = None


def err() -> Console:
    """Console on standard error, for everything but results."""
    live = _Redrawn.live
    return _console(stderr=True) if live is None or not live.is_started else live.console


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr, highlight=False)
    plain: Any = _Unpadded(stream)
    width = None if "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=plain, highlight=False, width=width)


class _Unpadded:
    """A pipe or file, whose lines get no spaces at their ends: those that fill a table's last column."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_PADDING.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def can_animate() -> bool:
    """Whether standard error can be redrawn: a terminal that is not dumb, without `NO_COLOR`."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def start_live(render: Callable[[], RenderableType], frames_per_s: float) -> Live | None:
    """A started live display on standard error; None if it cannot be redrawn."""
    if not can_animate():
        return None
    from rich.live import Live

    live = Live(
        get_renderable=render,
        console=err(),
        refresh_per_second=frames_per_s,
        transient=True,
        redirect_stdout=False,
    )
    live.start()
    _Redrawn.live = live
    return live


def is_debug() -> bool:
    """Whether tracebacks are printed: `REASON_DEBUG` is set, and not to 0."""
    return os.environ.get("REASON_DEBUG", "0") not in ("", "0")


class Written:
    """What this process has written to standard output.

    Attributes:
        any: Whether a result, or a part of it, is there.
    """

    any = False


def write(text: str) -> None:
    """Write text to standard output unchanged, except that a terminal gets no control characters."""
    Written.any = True
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


class TextWriter:
    """Writes growing text to standard output; on a terminal, lines break between words at its width.

    Lines of code blocks are not broken. The last word is held back until it is complete.
    """

    def __init__(self) -> None:
        self._width = out().width if sys.stdout.isatty() else None
        self._column = 0
        self._spaces = self._word = self._line = ""
        self._is_code = False

    def write(self, text: str) -> None:
        """Write a piece of the text."""
        if self._width is None:
            write(text)
            return
        from rich.cells import cell_len

        written: list[str] = []
        for part in _WORDS.findall(printable(text)):
            if part != "\n" and not part.isspace():
                self._word += part
                continue
            written.append(self._complete_word(cell_len))
            if part == "\n":
                if self._line.lstrip().startswith("```"):
                    self._is_code = not self._is_code
                written.append("\n")
                self._column, self._spaces, self._line = 0, "", ""
            else:
                self._spaces += part
        write("".join(written))

    def write_line(self, text: str) -> None:
        """Write the end of the text, and a line break after it."""
        self.write(text if text.endswith("\n") else text + "\n")

    def _complete_word(self, cell_len: Callable[[str], int]) -> str:
        """The word that has ended, after its spaces or a line break."""
        word, self._word = self._word, ""
        if not word:
            return ""
        assert self._width is not None
        spaces, self._spaces = self._spaces, ""
        size = cell_len(spaces) + cell_len(word)
        if self._column and not self._is_code and self._column + size > self._width:
            self._column, self._line = cell_len(word), word
            return "\n" + word
        self._column, self._line = self._column + size, self._line + spaces + word
        return spaces + word


def write_line(text: str) -> None:
    """Write text to standard output, ended by one line break."""
    write(text if text.endswith("\n") else text + "\n")


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values as a table of two columns, without the empty ones."""
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        if value.strip():
            table.add_row(name, printable(value.strip()))
    out().print(table)


def write_json(value: Any) -> None:
    """Write a value as one line of JSON to standard output."""
    write_line(json.dumps(value, ensure_ascii=False))


def say(message: str, *, label: str = "", style: str = "") -> None:
    """Print one line to standard error.

    Args:
        message: The message; line breaks become spaces.
        label: Prefix before a colon, for example "error".
        style: Colour of the prefix, as a rich style.
    """
    from rich.text import Text

    line = Text()
    if label:
        line.append(f"{label}: ", style=style)
    line.append(one_line(message))
    print_line(err(), line)


def print_line(console: Console, line: Text) -> None:
    """Print one line; on a terminal, a long one breaks between words."""
    console.print(line, soft_wrap=not console.is_terminal)


def confirm_removal(what: str, *, yes: bool) -> bool:
    """Ask on the terminal whether something may be removed; `yes` skips the question.

    Raises:
        UserError: The question cannot be asked, since standard input is not a terminal.
    """
    if yes:
        return True
    import typer

    from ...core.errors import UserError

    if not sys.stdin.isatty():
        raise UserError(f"cannot ask whether to remove {what}: standard input is not a terminal", hint="pass --yes")
    confirmed: bool = typer.confirm(f"Remove {what}?", err=True)
    if not confirmed:
        say("nothing was removed")
    return confirmed


def plain_table(*columns: str, right: str = "size") -> Table:
    """A table without lines; its first column is never wrapped.

    Args:
        columns: The headings.
        right: Headings of right-aligned columns, separated by "|".
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        justify = "right" if column in right.split("|") else "left"
        table.add_column(column, no_wrap=i == 0, overflow="fold", justify=justify)  # type: ignore[arg-type]
    return table


def printable(text: str) -> str:
    """The text without control characters except tab and line break, since model output must not control a terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The printable text on one line."""
    return printable(" ".join(text.split()))


def truncate(text: str, max_chars: int) -> str:
    """The text, cut to `max_chars` characters with an ellipsis."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 node`, `2 nodes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def byte_size(size_bytes: int, scale: int | None = None) -> str:
    """A size in decimal gigabytes, megabytes or kilobytes.

    Args:
        scale: The size whose unit is used; None is the size itself.
    """
    scale = size_bytes if scale is None else scale
    if scale >= 1e9:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.1f} MB" if scale >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def age(seconds: float) -> str:
    """A time span in its largest unit: `40 s`, `5 min`, `3 h`, `12 d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def duration(seconds: float) -> str:
    """A duration, rounded: `89 s`, `10 min`, `2.0 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
