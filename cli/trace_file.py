"""`--trace FILE`: the events of a run in a file, as JSON Lines or as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import StoreError, UserError
from ..core.events import JsonlSink, MemorySink, Sink
from ..core.store.protocol import RunStatus


@contextmanager
def open_trace(path: Path | None, status: RunStatus | None = None) -> Iterator[tuple[Sink, ...]]:
    """The sinks that write a trace; the file is complete when the context exits, also by an exception.

    Args:
        path: The file; None writes none.
        status: Status of the run in the store, for a page.

    Raises:
        UserError: The suffix is neither .jsonl nor .html.
        StoreError: The file cannot be written.
    """
    if path is None:
        yield ()
    elif path.suffix == ".jsonl":
        with JsonlSink(path) as sink:
            yield (sink,)
    elif path.suffix in (".html", ".htm"):
        memory = MemorySink()
        _write(path, "")  # fails before the run if the file is not writable
        try:
            yield (memory,)
        finally:
            from ..sidecar.viewer.page import trace_html

            _write(path, trace_html(memory.events, status))
    else:
        raise UserError(f"--trace {str(path)!r} ends in neither .jsonl nor .html", hint="choose one of these suffixes")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
