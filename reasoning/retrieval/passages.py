"""`Passage`, and how documents become passages: files, directories and texts in chunks with their exact positions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Self

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError, model_validator

from ...core.errors import DataError, UserError
from ...core.files import decoded
from ...core.messages import Frozen
from ...core.types import Document
from ..knowledge import Passage
from .chunking import split_chunks
from .readers import FileNote, TextPart, UnreadableFile, extract_text, read_regular_file, walk_files

MAX_FILE_BYTES = 64 << 20
"""Bytes of a file that is read into memory."""
MAX_PASSAGES = 400_000
"""Passages held in memory; more need a saved index."""
MAX_LINE_BYTES = 16 << 20

_MAX_TITLE_WORDS = 12
_MAX_TITLE_CHARS = 1000
_JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_INDEX_HINT = "put it into a saved index: `reason index build DIR PATH`"
_SPLIT_HINT = "split it, or make it JSON lines with one passage a line, which may be of any size"


class ChunkOptions(Frozen):
    """How documents are split.

    Attributes:
        words: Maximum words of a passage, which consists of complete sentences while they fit.
        overlap: Maximum words repeated from the previous passage.
    """

    words: Annotated[int, Field(ge=1)] = 64
    overlap: Annotated[int, Field(ge=0)] = 24

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> Self:
        if self.overlap >= self.words:
            raise ValueError(f"overlap must be less than words ({self.words}), got {self.overlap}")
        return self


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read.

    Attributes:
        path: Its path.
        source: What its passages cite: its name, preceded by the name of the directory.
        inside: The directory that links must not leave; None if the file itself was named.
    """

    path: Path
    source: str
    inside: Path | None = None

    @property
    def is_named(self) -> bool:
        """Whether the file itself was named, so that an error in it is fatal."""
        return self.inside is None


@dataclass(slots=True)
class PassageCollection:
    """Passages with unique ids in the order of their files, the number of files with text, and notes on files."""

    passages: list[Passage] = field(default_factory=list)
    num_files: int = 0
    notes: list[FileNote] = field(default_factory=list)


def document_passages(documents: Iterable[Document], chunking: ChunkOptions | None = None) -> list[Passage]:
    """Passages of documents in memory, in order.

    `text == document.text[start : start + len(text)]`. The title is the path of Markdown headings, or else the title
    that the text begins with (`text_title`), or else the name of the document. Of documents with the same name, later
    ones get a number appended.

    Raises:
        UserError: A text is too large.
    """
    passages: list[Passage] = []
    names: set[str] = set()
    for document in documents:
        if len(document.text) > MAX_FILE_BYTES:
            raise UserError(f"document {document.name!r} is larger than {_megabytes(MAX_FILE_BYTES)}", hint=_INDEX_HINT)
        name, number = document.name, 2
        while name in names:
            name, number = f"{document.name}~{number}", number + 1
        names.add(name)
        is_markdown = PurePath(document.name).suffix.lower() in (".md", ".markdown")
        part = TextPart(document.text, headings=is_markdown)
        passages += _split(part, name, PurePath(document.name).name or document.name, chunking or ChunkOptions())
    return passages


def list_source_files(paths: Sequence[Path], notes: list[FileNote]) -> list[SourceFile]:
    """The distinct files that paths name: files themselves, and all files below directories.

    Hidden entries of a directory are ignored, and links must not lead out of it.

    Args:
        paths: Files and directories.
        notes: Receives what could not be listed.

    Raises:
        DataError: A path does not exist or cannot be listed.
    """
    files_by_path: dict[Path, SourceFile] = {}
    sources: set[str] = set()
    for path in paths:
        try:
            root = path.expanduser().resolve(strict=True)
            listed = sorted(walk_files(root, notes, root.name)) if root.is_dir() else []
        except FileNotFoundError as e:
            raise DataError(f"{path} does not exist", hint="name existing files or directories") from e
        except (OSError, RuntimeError) as e:  # RuntimeError: circular links
            raise DataError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
        files = [SourceFile(at, replace_surrogates(f"{root.name}/{relative}"), root) for relative, at in listed]
        for file in files if root.is_dir() else [SourceFile(root, replace_surrogates(root.name))]:
            if file.path not in files_by_path:
                # two directories may have the same name
                source = file.source if file.source not in sources else path_text(file.path)
                sources.add(source)
                files_by_path[file.path] = SourceFile(file.path, source, file.inside)
    return list(files_by_path.values())


def file_passages(
    file: SourceFile,
    chunking: ChunkOptions,
    notes: list[FileNote],
    *,
    max_bytes: int = MAX_FILE_BYTES,
    streaming: bool = False,
) -> Iterator[Passage]:
    """The passages of one file, as they are read. Blocks.

    JSON lines (`.jsonl`, `.ndjson`) give one passage a line: fields `text`, `title` or `page`, and `id`. Other files
    are split into chunks.

    Args:
        file: The file.
        chunking: How it is split.
        notes: Receives notes on the file.
        max_bytes: A larger file is an error.
        streaming: Whether the caller does not keep the passages, so that JSON lines may be of any size.

    Raises:
        DataError: The file cannot be read, is too large, binary or damaged, or a line has no passage.
    """
    try:
        size = os.stat(file.path).st_size
        is_json_lines = file.path.suffix.lower() in _JSON_LINES_SUFFIXES
        if size > max_bytes and not (is_json_lines and streaming):
            raise DataError(
                f"{file.path} has {_megabytes(size)}, more than the {_megabytes(max_bytes)} that are read at once",
                hint=_SPLIT_HINT if streaming else _INDEX_HINT,
            )
        if is_json_lines:
            yield from _json_lines_passages(file.path, file.source, notes)
            return
        content = read_regular_file(file.path, file.inside or file.path.parent, max_bytes)
        read = extract_text(file.path.name, content)
    except UnreadableFile as e:
        raise DataError(f"cannot read {file.path} as text: {e}", hint="give text, Markdown, HTML, JSON or PDF") from e
    except OSError as e:
        raise DataError(f"cannot read {file.path}: {e.strerror or e}") from e
    notes += [FileNote(file.source, note, skipped=False) for note in read.notes]
    for part in read.parts:
        source = f"{file.source}#{part.name}" if part.name else file.source
        clean_part = TextPart(replace_surrogates(part.text), part.name, part.headings)
        yield from _split(clean_part, source, replace_surrogates(file.path.name), chunking)


def read_passages(
    paths: Sequence[Path],
    chunking: ChunkOptions | None = None,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_passages: int = MAX_PASSAGES,
) -> PassageCollection:
    """All passages of files and directories, in memory. Blocks.

    A file that cannot be read is an error if it was named, and a note within a directory.

    Raises:
        DataError: A path does not exist, a named file cannot be read, or no file has text.
        UserError: There are more than `max_passages`.
    """
    collection = PassageCollection()
    ids: set[str] = set()
    for file in list_source_files(paths, collection.notes):
        before = len(collection.passages)
        try:
            for passage in file_passages(file, chunking or ChunkOptions(), collection.notes, max_bytes=max_file_bytes):
                unique = passage if passage.id not in ids else passage.model_copy(update={"id": position_id(passage)})
                ids.add(unique.id)
                collection.passages.append(unique)
                if len(collection.passages) > max_passages:
                    raise UserError(
                        f"there are more than {max_passages:,} passages",
                        hint="save them with `reason index build DIR PATH`",
                    )
        except DataError as e:
            if file.is_named:
                raise
            del collection.passages[before:]
            collection.notes.append(FileNote(file.source, e.message))
        else:
            collection.num_files += len(collection.passages) > before
    if not collection.passages:
        raise no_text_error(paths, collection.notes)
    return collection


def no_text_error(paths: Sequence[Path], notes: Sequence[FileNote]) -> DataError:
    """The error for paths without any text."""
    skipped = f"; {len(notes)} files were skipped, the first: {notes[0].path}: {notes[0].reason}" if notes else ""
    path_list = ", ".join(str(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")
    return DataError(
        f"there is no text in {path_list or 'no path'}{skipped}", hint="give files or directories of documents"
    )


def position_id(passage: Passage) -> str:
    """An id made of the source and the characters, which no other passage has."""
    start = passage.start or 0
    return f"{passage.source}:{start}-{start + len(passage.text)}"


def path_text(path: Path) -> str:
    """A path as text that can be stored; undecodable bytes are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def replace_surrogates(text: str) -> str:
    """The text with "?" for lone surrogates, which JSON may contain and no file can hold; the length is unchanged."""
    return text.encode("utf-8", "replace").decode("utf-8")


def text_title(text: str) -> str:
    """The title that a plain text begins with: a short first line without a stop, before a blank one. Empty if none."""
    line, _, rest = text[:_MAX_TITLE_CHARS].lstrip().partition("\n")
    line = " ".join(line.split())
    is_title = bool(line) and len(line.split()) <= _MAX_TITLE_WORDS and line[0] != "#" and line[-1] not in ".!?:;,|"
    return line if is_title and rest.startswith(("\n", "\r\n")) else ""


def _split(part: TextPart, source: str, name: str, chunking: ChunkOptions) -> Iterator[Passage]:
    """The chunks of a text; their title is the path of headings, the text's title, or the name of the document."""
    title = text_title(part.text) or name
    for chunk in split_chunks(part.text, words=chunking.words, overlap=chunking.overlap, headings=part.headings):
        text = part.text[chunk.start : chunk.end]
        passage = Passage(id="?", source=source, text=text, title=chunk.heading or title, start=chunk.start)
        yield passage.model_copy(update={"id": position_id(passage)})


def _megabytes(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size} bytes"


# -- JSON lines


def _json_lines_passages(path: Path, source: str, notes: list[FileNote]) -> Iterator[Passage]:
    """One passage a line, read one at a time; the source of each is the file and the line: `facts.jsonl#12`."""
    blank = 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path} line {number}"
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(f"{where} is longer than {MAX_LINE_BYTES >> 20} MB", hint="one passage a line")
            line = decoded(raw, where)
            if number == 1:
                line = line.removeprefix("\ufeff")
            if not line.strip():
                continue
            record = _parse_record(line, where)
            text = replace_surrogates(record.text)
            if not text.strip():
                blank += 1
                continue
            position = f"{source}#{number}"
            title = " ".join(replace_surrogates(record.title or record.page or "").split())
            passage_id = "" if record.id is None else replace_surrogates(str(record.id))
            yield Passage(id=passage_id or position, source=position, text=text, title=title, start=0)
    if blank:
        notes.append(FileNote(source, f"{blank} lines have an empty text", skipped=False))


class _Record(BaseModel):
    text: StrictStr
    title: StrictStr | None = None
    page: StrictStr | None = None
    id: StrictStr | StrictInt | None = None


def _parse_record(line: str, where: str) -> _Record:
    try:
        value = json.loads(line)
        value = {"text": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise ValueError("it is neither an object nor a string")
        return _Record.model_validate(value)
    except (ValueError, RecursionError) as e:
        problem = str(e)
        if isinstance(e, ValidationError):
            first = e.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(
            f"{where} is no passage: {problem}", hint="one JSON object a line: text, and title or page, and id"
        ) from e
