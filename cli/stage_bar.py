"""`stage_bar`: how far work of several stages is, as a bar on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .console import err, moving_parts

Told = Callable[[str, int, int | None], None]
"""Hears the stage, how much of it is done, and how much there is, where that is known."""


@contextmanager
def stage_bar(lines: Told, *, of_bytes: bool = False) -> Iterator[Told]:
    """A bar that begins anew with each stage.

    Args:
        lines: Hears it instead where nothing can move.
        of_bytes: Whether it is bytes that are counted.
    """
    if not moving_parts():
        yield lines
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        shown = bar.add_task("starting", total=None)
        last = ""

        def draw(stage: str, done: int, total: int | None) -> None:
            nonlocal last
            if stage != last:
                last = stage
                bar.reset(shown, description=stage, total=total)
            bar.update(shown, completed=done, total=total)

        yield draw
