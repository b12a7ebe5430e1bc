"""Which files of a folder are read, and what was left out and why.

What of a file is text: plain text and Markdown, HTML, JSON, JSON lines, tables, PDF; each in its parts.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePath
from typing import Any

from ...core.errors import DataError

# fmt: off
BINARY_SUFFIXES = frozenset([
    ".7z", ".a", ".avi", ".bin", ".bmp", ".bz2", ".class", ".db", ".dll", ".doc", ".docx", ".dylib", ".exe",
    ".faiss", ".gguf", ".gif", ".gz", ".ico", ".jar", ".jpeg", ".jpg", ".mkv", ".mov", ".mp3", ".mp4", ".npy",
    ".npz", ".o", ".odt", ".ogg", ".onnx", ".otf", ".parquet", ".pickle", ".pkl", ".png", ".ppt", ".pptx", ".pt",
    ".pyc", ".rar", ".safetensors", ".so", ".sqlite", ".sqlite3", ".tar", ".tgz", ".tif", ".tiff", ".ttf", ".wasm",
    ".wav", ".webm", ".webp", ".whl", ".woff", ".woff2", ".xls", ".xlsx", ".xz", ".zip", ".zst",
])
# fmt: on
"""Files that are no text by their names; others are looked at."""

_LOOKED_AT = 8192
_MOST_PAGES = 5000
_MOST_RECORDS = 200_000
_SILENT = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object"})
# fmt: off
_BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "head", "header", "hr", "li", "main", "nav", "ol", "option", "p",
    "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul",
])
# fmt: on


class UnreadableFile(Exception):
    """A file that cannot be read as text; the message says why."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text within a file.

    Attributes:
        text: The text.
        name: Which part of the file, counted from 1: a record, row or page; empty for the whole file.
        headings: Whether lines that begin with `#` are headings.
    """

    text: str
    name: str = ""
    headings: bool = False


@dataclass(slots=True)
class FileText:
    """A file's texts, and what is to be told of reading it."""

    parts: list[TextPart]
    notes: list[str]


def extract_text(name: str, content: bytes) -> FileText:
    """The texts of a file.

    Args:
        name: Its name, whose suffix tells its kind; one of no known kind is plain text if it looks like that.
        content: Its bytes.

    Raises:
        NoText: It is binary, damaged or needs a package that is not there.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in BINARY_SUFFIXES:
        raise UnreadableFile("a binary file")
    if suffix == ".pdf":
        return FileText([page for page in _pages(content) if page.text.strip()], [])
    notes: list[str] = []
    text = _decoded(content, notes)
    if suffix in (".html", ".htm", ".xhtml"):
        parts = [TextPart(_of_html(text), headings=True)]
    elif suffix in (".jsonl", ".ndjson"):
        parts = list(_records(text, notes))
    elif suffix == ".json":
        parts = _of_json(text, notes)
    elif suffix in (".csv", ".tsv"):
        parts = list(_rows(text, "\t" if suffix == ".tsv" else ",", notes))
    else:
        parts = [TextPart(text, headings=suffix in (".md", ".markdown", ".mdx", ".qmd"))]
    return FileText([part for part in parts if part.text.strip()], notes)


def _decoded(content: bytes, notes: list[str]) -> str:
    """Bytes as text: UTF-8, UTF-16 with its mark, or else Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as e:
            raise UnreadableFile("its UTF-16 is broken") from e
    head = content[:_LOOKED_AT]
    odd = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    if b"\0" in head or 10 * odd > len(head):
        raise UnreadableFile("a binary file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        notes.append(f"byte {e.start + 1} is not UTF-8: it was read as Windows-1252")
        return content.decode("cp1252", "replace")


# -- HTML


class _Html(HTMLParser):
    """Collects what a reader sees; headings become Markdown's."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        elif _level(tag):
            self.pieces.append("\n\n" + "#" * _level(tag) + " ")
        elif tag in _BLOCKS:
            self.pieces.append("\n" if tag in ("br", "li", "tr", "td", "th", "option") else "\n\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SILENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        elif _level(tag) or (tag in _BLOCKS and tag not in ("li", "tr", "td", "th", "option")):
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            # blanks and line ends of the source mean one blank
            left, right = data[:1].isspace(), data[-1:].isspace()
            words = " ".join(data.split())
            self.pieces.append(f"{' ' * left}{words}{' ' * right}" if words else " ")


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


def _of_html(text: str) -> str:
    reader = _Html()
    try:
        reader.feed(text)
        reader.close()
    except (AssertionError, RecursionError, ValueError) as e:
        raise UnreadableFile("its HTML is broken") from e
    lines = [" ".join(line.split()) for line in "".join(reader.pieces).split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()


# -- records


def _records(text: str, notes: list[str]) -> Iterator[TextPart]:
    broken: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if number > _MOST_RECORDS:
            notes.append(f"the lines from {number} on are left out")
            break
        if line.strip():
            try:
                found = _text_of(json.loads(line))
            except (ValueError, RecursionError):
                found = None
            if found is None:
                broken.append(number)
            else:
                yield TextPart(found, str(number))
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        notes.append(f"{len(broken)} lines are no text and no JSON object with a field `text`: {shown}")


def _of_json(text: str, notes: list[str]) -> list[TextPart]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        notes.append("it is no valid JSON and was read as plain text")
        return [TextPart(text)]
    if isinstance(value, list):
        texts = [_text_of(member) for member in value[:_MOST_RECORDS]]
        if any(texts):
            return [TextPart(found, str(i)) for i, found in enumerate(texts, 1) if found]
    found = _text_of(value)
    return [TextPart(text if found is None else found)]


def _text_of(value: Any) -> str | None:
    """The text of a record, under its title."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    title = value.get("title")
    text: str = value["text"]
    return f"{title.strip()}\n\n{text}" if isinstance(title, str) and title.strip() else text


def _rows(text: str, delimiter: str, notes: list[str]) -> Iterator[TextPart]:
    """Each row as `column: value` for all its columns."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = next(reader, [])
        for number, row in enumerate(reader, 1):
            if number > _MOST_RECORDS:
                notes.append(f"the rows from {number} on are left out")
                return
            named = [*names, *(f"column {i + 1}" for i in range(len(names), len(row)))]
            cells = [f"{n.strip()}: {v.strip()}" for n, v in zip(named, row, strict=False) if v.strip()]
            yield TextPart("; ".join(cells), str(number))
    except csv.Error as e:
        notes.append(f"it is read up to line {reader.line_num} alone: {e}")


def _pages(content: bytes) -> Iterator[TextPart]:
    try:
        import pypdf
    except ModuleNotFoundError as e:
        raise UnreadableFile("reading PDF needs the package pypdf: pip install pypdf") from e
    try:
        pages = pypdf.PdfReader(io.BytesIO(content)).pages
        for number in range(1, min(len(pages), _MOST_PAGES) + 1):
            yield TextPart(pages[number - 1].extract_text() or "", str(number))
    except Exception as e:  # a damaged PDF makes the library raise whatever its parsing meets
        raise UnreadableFile(f"a damaged PDF: {type(e).__name__}") from e


MAX_FILE_BYTES = 10 << 20
MAX_BYTES = 1 << 30
MAX_FILES = 50_000

_NOT_DOCUMENTS = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


@dataclass(frozen=True, slots=True)
class FileNote:
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
class DirectoryContents:
    """Texts of a folder.

    Attributes:
        files: (source, parts) of each file that has text, by name.
        notes: What was left out or read otherwise, each file once.
    """

    files: list[tuple[str, list[TextPart]]] = field(default_factory=list)
    notes: list[FileNote] = field(default_factory=list)


def read_directory(
    root: Path,
    *,
    most_file_bytes: int = MAX_FILE_BYTES,
    most_bytes: int = MAX_BYTES,
    most_files: int = MAX_FILES,
    cancel: threading.Event | None = None,
    told: Callable[[int, int], None] | None = None,
) -> DirectoryContents:
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
    contents = DirectoryContents()
    try:
        if not root.is_dir():
            raise DataError(f"{root} is no folder", hint="give a folder of documents that exists")
        name, inside = root.resolve().name, root.resolve()
        found = sorted(walk_files(root, contents.notes, name, cancel))
    except OSError as e:
        raise DataError(f"cannot read the folder {root}: {e.strerror or e}") from e
    taken = 0
    for number, (relative, path) in enumerate(found, 1):
        if cancel is not None and cancel.is_set():
            break
        source = f"{name}/{relative}" if name else relative
        if number > most_files:
            contents.notes.append(FileNote(source, f"and all after it: more than {most_files} files"))
            break
        try:
            content = read_regular_file(path, inside, min(most_file_bytes, most_bytes - taken), most_file_bytes)
            read = extract_text(relative, content)
        except (UnreadableFile, OSError) as e:
            contents.notes.append(FileNote(source, _why(e)))
        else:
            taken += len(content)
            contents.notes += [FileNote(source, why, left_out=False) for why in read.notes[:1]]
            if read.parts:
                contents.files.append((source, read.parts))
            elif not read.notes:
                contents.notes.append(FileNote(source, "it has no text"))
        if told is not None:
            told(number, len(found))
    return contents


def walk_files(
    folder: Path, notes: list[FileNote], name: str, cancel: threading.Event | None
) -> Iterator[tuple[str, Path]]:
    """Files with their path from the root; a folder that cannot be listed is told of."""
    waiting = [("", folder)]
    while waiting and not (cancel is not None and cancel.is_set()):
        prefix, path = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as e:
            if not prefix:
                raise
            notes.append(FileNote(f"{name}/{prefix}", _why(e)))
            continue
        for entry in entries:
            relative = prefix + os.fsencode(entry.name).decode("utf-8", "replace")
            if entry.name.startswith(".") or entry.name in _NOT_DOCUMENTS:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((relative + "/", Path(entry.path)))
            else:
                yield relative, Path(entry.path)


def read_regular_file(path: Path, inside: Path, most: int, most_file: int) -> bytes:
    """The bytes of a regular file that lies in the folder."""
    if path.is_symlink():
        target = Path(os.path.realpath(path, strict=True))
        if not target.is_relative_to(inside):
            raise UnreadableFile("a link that leads out of the folder")
        if target.is_dir():
            raise UnreadableFile("a link to a folder")
    # without waiting for a writer, if it is a pipe
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise UnreadableFile("no regular file")
        if about.st_size > most_file:
            raise UnreadableFile(
                f"larger than {most_file >> 20} MiB" if most_file >= 1 << 20 else f"over {most_file} bytes"
            )
        content = file.read(most + 1)
    if len(content) > most:
        raise UnreadableFile("the folder has more text than is read")
    return content


def _why(error: UnreadableFile | OSError) -> str:
    if isinstance(error, UnreadableFile):
        return str(error)
    return "a link in a circle" if error.errno == errno.ELOOP else f"it cannot be read: {error.strerror or error}"
