"""Which documents of an index are new, changed or gone, and reading those into its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import DataError
from ...reasoning.brains.folder_files import Note
from ..evidence import Passage
from .documents import Cutting, SourceFile, file_passages, find_files, path_text
from .passage_rows import PassageRows

_CHUNK = 1 << 20
_TOLD_EVERY = 500


@dataclass(slots=True)
class Changes:
    """What reading has changed.

    Attributes:
        new: Sources of documents that were not there.
        changed: Sources of documents whose content is another.
        same: How many documents were not read again.
        missing: Sources of documents whose files are no longer there, or no longer named.
        removed: Whether the missing ones were taken out.
        notes: What was left out or read otherwise, and why.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    same: int = 0
    missing: list[str] = field(default_factory=list)
    removed: bool = False
    notes: list[Note] = field(default_factory=list)


def read_documents(
    rows: PassageRows,
    paths: Sequence[Path],
    cutting: Cutting,
    step: Callable[[str, int, int | None], None],
    *,
    whole: bool,
    prune: bool,
) -> Changes:
    """Bring the rows to what files hold now. Blocks.

    Args:
        rows: The rows.
        paths: Files and folders.
        cutting: How they are cut.
        step: Told of the stage, and how much of it is done; may raise to stop.
        whole: Whether the paths are all that the index is to have; if not, documents elsewhere are no concern.
        prune: Whether documents whose files are gone are taken out.

    Raises:
        DataError: A path is not there, or a named file cannot be read. What was read before it stays.
    """
    changes = Changes(removed=prune)
    rows.drop_half_read()
    files = find_files(paths, changes.notes)
    step("reading", 0, None)
    read = 0
    for file in files:
        path = path_text(file.path)
        known = rows.document(path)
        try:
            digest = _digest(file, step)
            if known is not None and known.digest == digest:
                changes.same += 1
                continue
            named = SourceFile(file.path, rows.free_source(path, file.source), file.inside)
            passages = file_passages(named, cutting, changes.notes, indexing=True)
            count = rows.put(path, named.source, digest, _told(passages, read, step))
        except DataError as e:
            rows.drop_half_read()
            if file.named:
                raise
            changes.notes.append(Note(file.source, e.message))
            continue
        read += count
        if known is not None:
            changes.changed.append(named.source)
        elif count:
            changes.new.append(named.source)
    _find_missing(rows, paths, files, changes, whole=whole)
    return changes


def _find_missing(
    rows: PassageRows, paths: Sequence[Path], files: Iterable[SourceFile], changes: Changes, *, whole: bool
) -> None:
    there = {path_text(file.path) for file in files}
    roots = [path_text(path.expanduser().resolve()) for path in paths]
    for document in list(rows.documents()):
        concerned = whole or any(Path(document.path).is_relative_to(root) for root in roots)
        if concerned and document.path not in there:
            changes.missing.append(document.source)
            if changes.removed:
                rows.take_out(document.number)


def _digest(file: SourceFile, step: Callable[[str, int, int | None], None]) -> str:
    hashed = hashlib.sha256()
    try:
        # what is no regular file is refused when it is read
        if file.path.is_file():
            with file.path.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    hashed.update(chunk)
                    step("", 0, None)
    except OSError as e:
        raise DataError(f"cannot read {file.path}: {e.strerror or e}") from e
    return hashed.hexdigest()


def _told(passages: Iterator[Passage], before: int, step: Callable[[str, int, int | None], None]) -> Iterator[Passage]:
    for count, passage in enumerate(passages, before + 1):
        if count % _TOLD_EVERY == 0:
            step("reading", count, None)
        yield passage
