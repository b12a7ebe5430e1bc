"""Which files of a folder are read, and what was left out and why."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import DataError
from .folder_texts import NoText, Part, read_texts

MOST_FILE_BYTES = 10 << 20
MOST_BYTES = 1 << 30
MOST_FILES = 50_000

_NOT_DOCUMENTS = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be told of a file: that it was left out, or how it was read.

    Attributes:
        path: The file, as its source is called.
        why: What is to be told.
        left_out: Whether nothing of it is known.
    """

    path: str
    why: str
    left_out: bool = True


@dataclass(slots=True)
class FolderContents:
    """Texts of a folder.

    Attributes:
        files: (source, parts) of each file that has text, by name.
        notes: What was left out or read otherwise, each file once.
    """

    files: list[tuple[str, list[Part]]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def read_folder(
    root: Path,
    *,
    most_file_bytes: int = MOST_FILE_BYTES,
    most_bytes: int = MOST_BYTES,
    most_files: int = MOST_FILES,
    cancel: threading.Event | None = None,
    told: Callable[[int, int], None] | None = None,
) -> FolderContents:
    """Read the texts of a folder and the folders in it.

    Hidden files and folders, and those of programs (`node_modules`, `__pycache__`), are not looked at. Links to folders
    are not followed, and links to files alone if they stay within the folder.

    Args:
        root: The folder.
        most_file_bytes: A larger file is left out.
        most_bytes: Of all files together; what comes later by name is left out.
        most_files: Likewise.
        cancel: Set from another thread to stop.
        told: Told of files read and files in all.

    Raises:
        DataError: There is no such folder, or it cannot be listed.
    """
    contents = FolderContents()
    try:
        if not root.is_dir():
            raise DataError(f"{root} is no folder", hint="give a folder of documents that exists")
        name, inside = root.resolve().name, root.resolve()
        found = sorted(walk(root, contents.notes, name, cancel))
    except OSError as e:
        raise DataError(f"cannot read the folder {root}: {e.strerror or e}") from e
    taken = 0
    for number, (relative, path) in enumerate(found, 1):
        if cancel is not None and cancel.is_set():
            break
        source = f"{name}/{relative}" if name else relative
        if number > most_files:
            contents.notes.append(Note(source, f"and all after it: more than {most_files} files"))
            break
        try:
            content = read_regular(path, inside, min(most_file_bytes, most_bytes - taken), most_file_bytes)
            read = read_texts(relative, content)
        except (NoText, OSError) as e:
            contents.notes.append(Note(source, _why(e)))
        else:
            taken += len(content)
            contents.notes += [Note(source, why, left_out=False) for why in read.notes[:1]]
            if read.parts:
                contents.files.append((source, read.parts))
            elif not read.notes:
                contents.notes.append(Note(source, "it has no text"))
        if told is not None:
            told(number, len(found))
    return contents


def walk(folder: Path, notes: list[Note], name: str, cancel: threading.Event | None) -> Iterator[tuple[str, Path]]:
    """Files with their path from the root; a folder that cannot be listed is told of."""
    waiting = [("", folder)]
    while waiting and not (cancel is not None and cancel.is_set()):
        prefix, path = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as e:
            if not prefix:
                raise
            notes.append(Note(f"{name}/{prefix}", _why(e)))
            continue
        for entry in entries:
            relative = prefix + os.fsencode(entry.name).decode("utf-8", "replace")
            if entry.name.startswith(".") or entry.name in _NOT_DOCUMENTS:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((relative + "/", Path(entry.path)))
            else:
                yield relative, Path(entry.path)


def read_regular(path: Path, inside: Path, most: int, most_file: int) -> bytes:
    """The bytes of a regular file that lies in the folder."""
    if path.is_symlink():
        target = Path(os.path.realpath(path, strict=True))
        if not target.is_relative_to(inside):
            raise NoText("a link that leads out of the folder")
        if target.is_dir():
            raise NoText("a link to a folder")
    # without waiting for a writer, if it is a pipe
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise NoText("no regular file")
        if about.st_size > most_file:
            raise NoText(f"larger than {most_file >> 20} MiB" if most_file >= 1 << 20 else f"over {most_file} bytes")
        content = file.read(most + 1)
    if len(content) > most:
        raise NoText("the folder has more text than is read")
    return content


def _why(error: NoText | OSError) -> str:
    if isinstance(error, NoText):
        return str(error)
    return "a link in a circle" if error.errno == errno.ELOOP else f"it cannot be read: {error.strerror or error}"
