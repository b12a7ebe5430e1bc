"""Document readers: which files of a directory are read, and the text of each: Markdown, HTML, JSON, tables, PDF."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePath
from typing import Any

# fmt: off
_BLOCK_TAGS = frozenset([
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "head", "header", "hr", "li", "main", "nav", "ol", "option", "p",
    "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul",
])
# fmt: on
_HIDDEN_TAGS = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object"})
_INLINE_BREAKS = ("br", "li", "tr", "td", "th", "option")
_IGNORED_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_SNIFFED_BYTES = 8192
_MAX_PAGES = 5000
_MAX_RECORDS = 200_000


class UnreadableFile(Exception):
    """A file that cannot be read as text; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text within a file.

    Attributes:
        text: The text.
        name: Number of the record, row or page, from 1; empty for the complete file.
        headings: Whether lines that begin with `#` are headings.
    """

    text: str
    name: str = ""
    headings: bool = False


@dataclass(slots=True)
class FileText:
    """The texts of a file, and notes on how it was read."""

    parts: list[TextPart]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class FileNote:
    """Why a file was skipped, or how it was read."""

    path: str
    reason: str
    skipped: bool = True


def walk_files(root: Path, notes: list[FileNote], name: str) -> Iterator[tuple[str, Path]]:
    """Files below a directory with their relative paths; a subdirectory that cannot be listed becomes a note."""
    pending = [("", root)]
    while pending:
        prefix, path = pending.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as e:
            if not prefix:
                raise
            notes.append(FileNote(f"{name}/{prefix}", f"cannot be read: {e.strerror or e}"))
            continue
        for entry in entries:
            relative = prefix + os.fsencode(entry.name).decode("utf-8", "replace")
            if entry.name.startswith(".") or entry.name in _IGNORED_DIRECTORIES:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((relative + "/", Path(entry.path)))
            else:
                yield relative, Path(entry.path)


def read_regular_file(path: Path, inside: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file within a directory.

    Raises:
        UnreadableFile: It is a link out of the directory, not a regular file, or too large.
        OSError: It cannot be read.
    """
    if path.is_symlink():
        target = Path(os.path.realpath(path, strict=True))
        if not target.is_relative_to(inside):
            raise UnreadableFile("a link out of the directory")
        if target.is_dir():
            raise UnreadableFile("a link to a directory")
    # non-blocking, in case it is a pipe without a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile("not a regular file")
        is_large = status.st_size > max_bytes  # is not read
        content = b"" if is_large else file.read(max_bytes + 1)
    if is_large or len(content) > max_bytes:
        raise UnreadableFile(f"larger than {max_bytes >> 20} MiB")
    return content


# -- formats


def extract_text(name: str, content: bytes) -> FileText:
    """The texts of a file; its suffix decides the format, and an unknown suffix is plain text if it looks like text.

    Raises:
        UnreadableFile: It is binary or damaged, or a package for its format is not installed.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix == ".pdf":
        return FileText([page for page in _pdf_pages(content) if page.text.strip()], [])
    notes: list[str] = []
    text = _decode(content, notes)
    if suffix in (".html", ".htm", ".xhtml"):
        parts = [TextPart(_html_text(text), headings=True)]
    elif suffix == ".json":
        parts = _json_records(text, notes)
    elif suffix in (".csv", ".tsv"):
        parts = list(_table_rows(text, "\t" if suffix == ".tsv" else ",", notes))
    else:
        parts = [TextPart(text, headings=suffix in (".md", ".markdown", ".mdx", ".qmd"))]
    return FileText([part for part in parts if part.text.strip()], notes)


def _decode(content: bytes, notes: list[str]) -> str:
    """Bytes as UTF-8, UTF-16 with a byte order mark, or else Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as e:
            raise UnreadableFile("invalid UTF-16") from e
    head = content[:_SNIFFED_BYTES]
    control = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    if b"\0" in head or 10 * control > len(head):
        raise UnreadableFile("a binary file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        notes.append(f"byte {e.start + 1} is not UTF-8; read as Windows-1252")
        return content.decode("cp1252", "replace")


class _HtmlTextParser(HTMLParser):
    """Collects the visible text; headings become Markdown headings."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN_TAGS:
            self._hidden.append(tag)
        elif level := _heading_level(tag):
            self.pieces.append("\n\n" + "#" * level + " ")
        elif tag in _BLOCK_TAGS:
            self.pieces.append("\n" if tag in _INLINE_BREAKS else "\n\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _HIDDEN_TAGS:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif _heading_level(tag) or (tag in _BLOCK_TAGS and tag not in _INLINE_BREAKS[1:]):
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            # a run of whitespace in the source is one space
            left, right = data[:1].isspace(), data[-1:].isspace()
            words = " ".join(data.split())
            self.pieces.append(f"{' ' * left}{words}{' ' * right}" if words else " ")


def _heading_level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


def _html_text(text: str) -> str:
    parser = _HtmlTextParser()
    try:
        parser.feed(text)
        parser.close()
    except (AssertionError, RecursionError, ValueError) as e:
        raise UnreadableFile("invalid HTML") from e
    lines = [" ".join(line.split()) for line in "".join(parser.pieces).split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()


def _json_records(text: str, notes: list[str]) -> list[TextPart]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        notes.append("invalid JSON, read as plain text")
        return [TextPart(text)]
    if isinstance(value, list):
        records = [_record_text(member) for member in value[:_MAX_RECORDS]]
        if any(records):
            return [TextPart(record, str(i)) for i, record in enumerate(records, 1) if record]
    record = _record_text(value)
    return [TextPart(text if record is None else record)]


def _record_text(value: Any) -> str | None:
    """The text of a record, preceded by its title."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    title = value.get("title")
    text: str = value["text"]
    return f"{title.strip()}\n\n{text}" if isinstance(title, str) and title.strip() else text


def _table_rows(text: str, delimiter: str, notes: list[str]) -> Iterator[TextPart]:
    """Each row as `column: value` pairs."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = next(reader, [])
        for number, row in enumerate(reader, 1):
            if number > _MAX_RECORDS:
                notes.append(f"rows from {number} on are skipped")
                return
            columns = [*names, *(f"column {i + 1}" for i in range(len(names), len(row)))]
            cells = [f"{n.strip()}: {v.strip()}" for n, v in zip(columns, row, strict=False) if v.strip()]
            yield TextPart("; ".join(cells), str(number))
    except csv.Error as e:
        notes.append(f"read only up to line {reader.line_num}: {e}")


def _pdf_pages(content: bytes) -> Iterator[TextPart]:
    try:
        import pypdf
    except ModuleNotFoundError as e:
        raise UnreadableFile("reading PDF needs the package pypdf: pip install pypdf") from e
    try:
        pages = pypdf.PdfReader(io.BytesIO(content)).pages
        for number in range(1, min(len(pages), _MAX_PAGES) + 1):
            yield TextPart(pages[number - 1].extract_text() or "", str(number))
    except Exception as e:  # the library raises arbitrary exceptions on a damaged PDF
        raise UnreadableFile(f"a damaged PDF: {type(e).__name__}") from e
