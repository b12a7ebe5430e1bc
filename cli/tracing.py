"""`--trace FILE`: where a run's events go beside the screen, by the file's ending."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import StoreError, UserError
from ..core.event_sinks import JsonlSink, MemorySink
from ..core.events import Sink
from ..core.store import RunStatus


@contextmanager
def open_trace(path: Path | None, status: RunStatus | None = None) -> Iterator[tuple[Sink, ...]]:
    """The sinks that write a trace; the file is complete when the context is left, however it is left.

    Args:
        path: The file; None writes nothing.
        status: How the run stands, as the store has it, for a page.

    Raises:
        UserError: The file's ending is neither .jsonl nor .html.
        StoreError: The file cannot be written.
    """
    if path is None:
        yield ()
    elif path.suffix == ".jsonl":
        with JsonlSink(path) as sink:
            yield (sink,)
    elif path.suffix in (".html", ".htm"):
        memory = MemorySink()
        _write(path, "")  # tells now, not after the run, that it cannot be written
        try:
            yield (memory,)
        finally:
            from ..sidecar.viewer.page import trace_html

            _write(path, trace_html(memory.events, status))
    else:
        raise UserError(f"--trace {str(path)!r} is neither .jsonl nor .html", hint="choose one of these endings")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
