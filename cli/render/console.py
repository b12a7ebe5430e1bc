"""Output to the terminal: results go to standard output, everything else to standard error.

Colour and animation appear only on a terminal, and only if `NO_COLOR` is not set.
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
    from rich.table import Table

PIPE_WIDTH = 160
"""Columns of a table in a pipe or file."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Console on standard output, for results."""
    return _console(stderr=False)


def err() -> Console:
    """Console on standard error, for everything but results."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width)


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
    return live


def is_debug() -> bool:
    """Whether tracebacks are printed: `REASON_DEBUG` is set, and not to 0."""
    return os.environ.get("REASON_DEBUG", "0") not in ("", "0")


def write(text: str) -> None:
    """Write text to standard output unchanged, except that a terminal gets no control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write text to standard output, ended by one line break."""
    write(text if text.endswith("\n") else text + "\n")


def write_json(value: dict[str, Any]) -> None:
    """Write one JSON object to standard output."""
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
    err().print(line, soft_wrap=True)


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


def megabytes(size_bytes: int) -> str:
    """A size in decimal megabytes or gigabytes."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


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
