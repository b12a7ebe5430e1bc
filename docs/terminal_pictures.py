"""The terminal pictures of README and `docs/gallery.md`: real commands in a pseudo-terminal, as animated SVG.

    python docs/terminal_pictures.py [NAME …]

Needs the extra `local`, and pyte (a terminal emulator, from PyPI). Runs each command with a run store of its own,
and writes `docs/images/terminal-NAME.svg`. A picture ends in the last state of the terminal, and
shows only that where the reader prefers reduced motion. Waits of more than a second are shortened to one.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import pyte

IMAGES: Final = Path(__file__).parent / "images"
COLUMNS: Final = 100
MAX_LINES: Final = 44
PATIENCE_S: Final = 300.0
FRAME_S: Final = 0.6
"""Changes within this time are one frame."""
MAX_WAIT_S: Final = 1.0
LAST_S: Final = 6.0
TYPING_S: Final = 0.8
MOVING: Final = re.compile(r"[\u2800-\u28ff]|\d+(\.\d)? s\b")
CELL: Final = (8.4, 18.0)
"""Width and height of a character in pixels."""
MARGIN: Final = 14.0
FOREGROUND: Final = "#d8dee9"
BACKGROUND: Final = "#1b1f27"
COLOURS: Final = {
    "default": FOREGROUND,
    "black": "#5c6370",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#e6e6e6",
}
DOCUMENT: Final = (
    "The Golden Gate Bridge opened on 27 May 1937. It is 2,737 metres long. Joseph Strauss was its chief engineer.\n"
)
CLAIMS: Final = "The Golden Gate Bridge opened in 1937. It is 1,900 metres long.\n"
PICTURES: Final[dict[str, tuple[str, ...]]] = {
    "vote": (
        'reason ask "What is the capital of France?" -s self-consistency --set n=8 --seed 1',
        "reason runs list",
    ),
    "verify": ("reason verify --answer answer.txt --docs notes/",),
    "search": (
        'reason ask "What is 17 * 23?" -s coat --set max_step_tokens=40 --set expansions=6 --seed 3 --show-reasoning',
    ),
    "eval": ("reason eval sums.jsonl --map question=q -s cot --set max_tokens=200 --seeds 2 --out one",),
}


class Span(NamedTuple):
    """Characters of one style in a line."""

    column: int
    text: str
    colour: str
    bold: bool


Screen = tuple[tuple[Span, ...], ...]


class Frame(NamedTuple):
    """A state of the terminal from a time on, in seconds."""

    at_s: float
    lines: Screen


class Recording:
    """The states of a terminal in which commands run one after the other."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(COLUMNS, MAX_LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._clock_s = 0.0
        self.frames: list[Frame] = []

    def run(self, command: str, directory: Path, environment: dict[str, str]) -> None:
        """Type a command, run it, and record what it shows."""
        self._stream.feed(b"\x1b[1;32m$\x1b[0m ")
        self._keep()
        self._stream.feed(command.encode())
        self._clock_s += TYPING_S
        self._keep()
        self._stream.feed(b"\r\n")
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", MAX_LINES, COLUMNS, 0, 0))
        process = subprocess.Popen(  # noqa: S603
            shlex.split(command), cwd=directory, env=environment, stdin=follower, stdout=follower, stderr=follower,
            start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        end = time.monotonic() + PATIENCE_S
        last = time.monotonic()
        while True:
            if time.monotonic() > end:
                process.kill()
                raise TimeoutError(command)
            if not select.select([leader], [], [], FRAME_S)[0]:
                self._keep()
                continue
            try:
                data = os.read(leader, 65536)
            except OSError:  # the last process that had the terminal has ended
                break
            if not data:
                break
            now = time.monotonic()
            self._clock_s = min(self._clock_s + now - last, self.frames[-1].at_s + MAX_WAIT_S)
            last = now
            self._stream.feed(data)
            if self._clock_s - self.frames[-1].at_s >= FRAME_S:
                self._keep()
        os.close(leader)
        process.wait()
        self._keep()
        if self._screen.cursor.x:
            self._stream.feed(b"\r\n")

    def _keep(self) -> None:
        lines = _lines(self._screen)
        if not self.frames or _still(self.frames[-1].lines) != _still(lines):
            self.frames.append(Frame(self._clock_s, lines))


def _still(lines: Screen) -> Screen:
    """The lines without what moves while nothing happens: the spinner and the seconds of a progress line."""
    return tuple(tuple(span._replace(text=MOVING.sub("", span.text)) for span in spans) for spans in lines)


def _lines(screen: pyte.Screen) -> Screen:
    lines = []
    for number in range(screen.lines):
        row = screen.buffer[number]
        cells = [row[column] for column in range(screen.columns)]
        spans = []
        styled = groupby(range(len(cells)), key=lambda i: (cells[i].fg, cells[i].bold))
        for (colour, bold), group in styled:
            columns = list(group)
            text = "".join(cells[i].data for i in columns)
            if text.strip():
                spans.append(Span(columns[0], text.rstrip(), colour, bold))
        lines.append(tuple(spans))
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def svg(frames: list[Frame], label: str) -> str:
    """The frames as one picture: each is shown for its time, and the last one for `LAST_S` more."""
    height = max(len(frame.lines) for frame in frames)
    size = (COLUMNS * CELL[0] + 2 * MARGIN, height * CELL[1] + 2 * MARGIN)
    total = frames[-1].at_s + LAST_S
    rules, groups = [], []
    for number, frame in enumerate(frames):
        body = "".join(_line(i, spans) for i, spans in enumerate(frame.lines))
        is_last = number == len(frames) - 1
        groups.append(f'<g id="f{number}" opacity="{1 if is_last else 0}">{body}</g>')
        start = 100 * frame.at_s / total
        end = 100.0 if is_last else 100 * frames[number + 1].at_s / total
        shown = f"{start:.3f}%{{opacity:1}}{end:.3f}%{{opacity:{1 if is_last else 0}}}"
        before = "" if number == 0 else "0%{opacity:0}"
        after = "" if is_last else "100%{opacity:0}"
        rules.append(f"@keyframes k{number}{{{before}{shown}{after}}}")
        rules.append(f"#f{number}{{animation:k{number} {total:.2f}s step-end infinite}}")
    style = "".join(rules)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title><style>text{{font:14px ui-monospace,'
        f"SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}"
        f"@media (prefers-reduced-motion:no-preference){{{style}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>{"".join(groups)}</svg>\n'
    )


def _line(number: int, spans: tuple[Span, ...]) -> str:
    y = MARGIN + (number + 0.75) * CELL[1]
    return "".join(
        f'<text x="{MARGIN + span.column * CELL[0]:.1f}" y="{y:.1f}" textLength="{len(span.text) * CELL[0]:.1f}" '
        f'fill="{COLOURS.get(span.colour, FOREGROUND)}" font-weight="{"bold" if span.bold else "normal"}">'
        f"{escape(span.text)}</text>"
        for span in spans
    )


def main() -> None:
    """Write the named pictures, or all of them."""
    for name in sys.argv[1:] or list(PICTURES):
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            (directory / "notes").mkdir()
            (directory / "notes" / "bridge.md").write_text(DOCUMENT)
            (directory / "answer.txt").write_text(CLAIMS)
            rows = (f'{{"id": "s{i}", "q": "What is {i} + {i + 1}?", "answer": "{2 * i + 1}"}}\n' for i in range(1, 7))
            (directory / "sums.jsonl").write_text("".join(rows))
            environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")}
            environment |= {"TERM": "xterm-256color", "XDG_DATA_HOME": str(directory / "data")}
            (directory / "data" / "reason").mkdir(parents=True)
            (directory / "data" / "reason" / "first-answer").touch()  # no tip for new users
            environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
            recording = Recording()
            for command in PICTURES[name]:
                recording.run(command, directory, environment)
        path = IMAGES / f"terminal-{name}.svg"
        path.write_text(svg(recording.frames, f"A terminal: {'; '.join(PICTURES[name])}"))
        print(f"{path.name}: {len(recording.frames)} frames, {path.stat().st_size // 1024} KiB")  # noqa: T201


if __name__ == "__main__":
    main()
