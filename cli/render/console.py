"""The two sides of the terminal: the answer goes to standard output, all else to standard error.

Colours and moving parts only where a person looks: a terminal, and `NO_COLOR` not set.

Tables and JSON on standard output, and sizes for people.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


PIPE_WIDTH = 160
"""Columns of a table that goes into a pipe or file, where no terminal says how wide it is."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Console on standard output, for tables."""
    return _console(stderr=False)


def err() -> Console:
    """Console on standard error, for everything that is not the answer."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width)


def moving_parts() -> bool:
    """Whether standard error can show something that moves: a terminal, not a dumb one, `NO_COLOR` not set."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def moving_picture(render: Callable[[], RenderableType], frames_per_s: float) -> Live | None:
    """A picture on standard error that has begun to move; None where nothing can."""
    if not moving_parts():
        return None
    from rich.live import Live

    picture = Live(
        get_renderable=render,
        console=err(),
        refresh_per_second=frames_per_s,
        transient=True,
        redirect_stdout=False,
    )
    picture.start()
    return picture


def debugging() -> bool:
    """Whether the user wants tracebacks: `REASON_DEBUG` is set to anything but 0."""
    return os.environ.get("REASON_DEBUG", "0") not in ("", "0")


def write(text: str) -> None:
    """Put text on standard output as it is; only a terminal is spared its control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Put text on standard output, ended by one line break."""
    write(text if text.endswith("\n") else text + "\n")


def printable(text: str) -> str:
    """The text without control characters but tab and line break: what a model says must not steer the terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def say(message: str, *, label: str = "", style: str = "") -> None:
    """One line on standard error.

    Args:
        message: What to say; line breaks become spaces.
        label: Word in front, set off by a colon and coloured, for example "error".
        style: Its colour, as rich names it.
    """
    from rich.text import Text

    line = Text()
    if label:
        line.append(f"{label}: ", style=style)
    line.append(printable(" ".join(message.split())))
    err().print(line, soft_wrap=True)


def plain_table(*columns: str) -> Any:
    """A table without lines; the first column is never broken, and one called "size" stands to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold", justify="right" if column == "size" else "left")
    return table


def megabytes(size_bytes: int) -> str:
    """A size for people, in powers of ten as disks are sold."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def write_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    write_line(json.dumps(value, ensure_ascii=False))
