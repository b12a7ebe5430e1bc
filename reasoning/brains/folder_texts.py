"""What of a file is text: plain text and Markdown, HTML, JSON, JSON lines, tables, PDF; each in its parts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import PurePath
from typing import Any

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


class NoText(Exception):
    """A file that cannot be read as text; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
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
class ReadFile:
    """A file's texts, and what is to be told of reading it."""

    parts: list[Part]
    notes: list[str]


def read_texts(name: str, content: bytes) -> ReadFile:
    """The texts of a file.

    Args:
        name: Its name, whose suffix tells its kind; one of no known kind is plain text if it looks like that.
        content: Its bytes.

    Raises:
        NoText: It is binary, damaged or needs a package that is not there.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in BINARY_SUFFIXES:
        raise NoText("a binary file")
    if suffix == ".pdf":
        return ReadFile([page for page in _pages(content) if page.text.strip()], [])
    notes: list[str] = []
    text = _decoded(content, notes)
    if suffix in (".html", ".htm", ".xhtml"):
        parts = [Part(_of_html(text), headings=True)]
    elif suffix in (".jsonl", ".ndjson"):
        parts = list(_records(text, notes))
    elif suffix == ".json":
        parts = _of_json(text, notes)
    elif suffix in (".csv", ".tsv"):
        parts = list(_rows(text, "\t" if suffix == ".tsv" else ",", notes))
    else:
        parts = [Part(text, headings=suffix in (".md", ".markdown", ".mdx", ".qmd"))]
    return ReadFile([part for part in parts if part.text.strip()], notes)


def _decoded(content: bytes, notes: list[str]) -> str:
    """Bytes as text: UTF-8, UTF-16 with its mark, or else Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as e:
            raise NoText("its UTF-16 is broken") from e
    head = content[:_LOOKED_AT]
    odd = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    if b"\0" in head or 10 * odd > len(head):
        raise NoText("a binary file")
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
        raise NoText("its HTML is broken") from e
    lines = [" ".join(line.split()) for line in "".join(reader.pieces).split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    return "\n".join(kept).strip()


# -- records


def _records(text: str, notes: list[str]) -> Iterator[Part]:
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
                yield Part(found, str(number))
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        notes.append(f"{len(broken)} lines are no text and no JSON object with a field `text`: {shown}")


def _of_json(text: str, notes: list[str]) -> list[Part]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        notes.append("it is no valid JSON and was read as plain text")
        return [Part(text)]
    if isinstance(value, list):
        texts = [_text_of(member) for member in value[:_MOST_RECORDS]]
        if any(texts):
            return [Part(found, str(i)) for i, found in enumerate(texts, 1) if found]
    found = _text_of(value)
    return [Part(text if found is None else found)]


def _text_of(value: Any) -> str | None:
    """The text of a record, under its title."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    title = value.get("title")
    text: str = value["text"]
    return f"{title.strip()}\n\n{text}" if isinstance(title, str) and title.strip() else text


def _rows(text: str, delimiter: str, notes: list[str]) -> Iterator[Part]:
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
            yield Part("; ".join(cells), str(number))
    except csv.Error as e:
        notes.append(f"it is read up to line {reader.line_num} alone: {e}")


def _pages(content: bytes) -> Iterator[Part]:
    try:
        import pypdf
    except ModuleNotFoundError as e:
        raise NoText("reading PDF needs the package pypdf: pip install pypdf") from e
    try:
        pages = pypdf.PdfReader(io.BytesIO(content)).pages
        for number in range(1, min(len(pages), _MOST_PAGES) + 1):
            yield Part(pages[number - 1].extract_text() or "", str(number))
    except Exception as e:  # a damaged PDF makes the library raise whatever its parsing meets
        raise NoText(f"a damaged PDF: {type(e).__name__}") from e
