"""Workers' texts side by side, in the live view: the last lines of each, as many as the terminal has room for."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from .console import printable
from .progress import Progress

LEAST_WIDTH = 24
"""Columns that a worker's text has at least; where the terminal is too narrow for all, the last are left out."""
LEAST_LINES = 4
GAP = 2


class LiveWorkers:
    """Draws what workers write; nothing where there are none.

    Args:
        progress: Where the run stands.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A column for each worker: its name, the steps that it has finished, dim, and what it is writing."""
        workers = self._progress.workers
        if workers is None:
            return
        shown = max(1, min(len(workers.names), (options.max_width + GAP) // (LEAST_WIDTH + GAP)))
        width = (options.max_width + GAP) // shown - GAP
        room = max(LEAST_LINES, options.size.height // 2)
        table = Table.grid(padding=(0, GAP, 0, 0))
        for _ in range(shown):
            table.add_column(width=width, no_wrap=True, overflow="crop")
        heads, texts = [], []
        for name, steps, writing in list(zip(workers.names, workers.steps, workers.writing, strict=True))[:shown]:
            heads.append(Text(printable(name), "bold cyan"))
            text = Text(printable("\n".join(steps)), "dim")
            text.append(("\n" if steps and writing else "") + printable(writing), "not dim")
            texts.append(Text("\n").join(text.wrap(console, width, overflow="fold")[-room:]))
        table.add_row(*heads)
        table.add_row(*texts)
        yield Text()
        yield table
        if shown < len(workers.names):
            yield Text(f"… {len(workers.names) - shown} more", "yellow")
