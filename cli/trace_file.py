"""`--trace FILE`: the events of a run in a file, as JSON Lines or in a format that plugs in, such as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import StoreError, UserError
from ..core.events import Event, JsonlSink, MemorySink, Sink
from ..core.registry import Registry
from ..core.store.protocol import RunStatus

FORMATS: Registry[Callable[[Sequence[Event], RunStatus | None], str]] = Registry("reason.trace_formats", "trace format")
"""Functions from a run's events and status to the text of a file, by the file's suffix."""


@contextmanager
def open_trace(path: Path | None, status: RunStatus | None = None) -> Iterator[tuple[Sink, ...]]:
    """The sinks that write a trace; the file is complete when the context exits, also by an exception.

    Args:
        path: The file; None writes none.
        status: Status of the run in the store, for a page.

    Raises:
        UserError: No format has the suffix.
        StoreError: The file cannot be written.
    """
    suffix = "" if path is None else path.suffix.removeprefix(".")
    if path is None:
        yield ()
    elif suffix == "jsonl":
        with JsonlSink(path) as sink:
            yield (sink,)
    elif suffix in FORMATS.names():
        render, memory = FORMATS.load(suffix), MemorySink()
        _write(path, "")  # fails before the run if the file is not writable
        try:
            yield (memory,)
        finally:
            _write(path, render(memory.events, status))
    else:
        suffixes = " or ".join(f".{name}" for name in ("jsonl", *FORMATS.names()))
        raise UserError(f"--trace {str(path)!r} does not end in {suffixes}", hint="choose one of these suffixes")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
