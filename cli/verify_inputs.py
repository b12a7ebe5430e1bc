"""What `reason verify` is given, read and checked: the answer, saved indexes; and the page that it writes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError, StoreError, UserError
from .inputs import MAX_CONTEXT_BYTES, STDIN

if TYPE_CHECKING:
    from ..agents.verify_text import TextVerification


def read_answer(path: Path) -> str:
    """The text that is to be verified; `-` is standard input.

    Raises:
        UserError: It is empty, or no text.
        DataError: The file cannot be read, or is too large.
    """
    name = "standard input" if str(path) == STDIN else str(path)
    try:
        if str(path) == STDIN:
            raw = sys.stdin.buffer.read(MAX_CONTEXT_BYTES + 1)
        else:
            with path.expanduser().open("rb") as file:
                raw = file.read(MAX_CONTEXT_BYTES + 1)
    except FileNotFoundError as e:
        raise DataError(f"there is no answer file {name!r}", hint="check --answer") from e
    except OSError as e:
        raise DataError(f"cannot read the answer {name!r}: {e.strerror}", hint="check --answer") from e
    if len(raw) > MAX_CONTEXT_BYTES:
        raise DataError(
            f"the answer {name!r} is larger than {MAX_CONTEXT_BYTES // 1_000_000} MB", hint="verify it in parts"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"the answer {name!r} is not UTF-8 text (byte {e.start})", hint="convert it to UTF-8") from e
    if "\0" in text:
        raise UserError(f"the answer {name!r} is binary", hint="convert it to a text file")
    if not text.strip():
        raise UserError(f"the answer {name!r} is empty", hint="give the text that is to be verified")
    return text


def check_documents(answer: Path, paths: Sequence[Path]) -> Sequence[Path]:
    """The documents, none of which is the answer itself.

    Raises:
        UserError: The answer is among them, and would be its own evidence.
    """
    if str(answer) != STDIN:
        real = answer.expanduser().resolve()
        for path in paths:
            place = path.expanduser().resolve()
            if place == real or place in real.parents:
                raise UserError(
                    f"the answer {str(answer)!r} is among the documents of {str(path)!r}, and would support itself",
                    hint="put it elsewhere, or name the documents one by one",
                )
    return paths


def check_indexes(folders: Sequence[Path]) -> Sequence[Path]:
    """The folders, all of them saved indexes.

    Raises:
        DataError: One is none, is not finished, or damaged.
    """
    if folders:
        from ..reasoning.retrieval.index.manifest import published

        for folder in folders:
            published(folder.expanduser())
    return folders


@contextmanager
def open_page(path: Path | None) -> Iterator[Callable[[TextVerification], None]]:
    """What writes the page; that it cannot be written is told now, and not after the work.

    Raises:
        StoreError: The file cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    _write(path, "")

    def write(found: TextVerification) -> None:
        from ..sidecar.viewer.page import verification_html

        _write(path, verification_html(found))

    yield write


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the page to {path}: {e.strerror}", hint="choose another --html") from e
