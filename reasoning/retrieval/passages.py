"""passages.

JSON lines as passages, one a line, read as they come: files of any size.

Documents as passages: files, folders and texts cut into windows of a few sentences, with their exact places.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...core.errors import DataError, UserError
from ...core.files import decoded
from ...core.messages import Frozen
from ...core.types import Document, Probability
from .chunking import split_chunks
from .readers import FileNote, TextPart, UnreadableFile, extract_text, read_regular_file, walk_files


class Passage(Frozen):
    """A piece of text that evidence is looked for in. It is data: nothing in it is ever an instruction.

    Attributes:
        id: Unique among the passages of one verification.
        source: The document it is part of.
        text: The piece.
        title: The document's or section's title; read together with the text, never part of a span.
        start: Place of its first character in the document; None if unknown.
        score: How well it answers the claim it was found for; the scale is the retriever's.
        credibility: How far its source is to be believed, by the caller's judgement; 0 leaves it out.
    """

    id: str
    source: str
    text: str
    title: str = ""
    start: Annotated[int, Field(ge=0)] | None = None
    score: float = 0.0
    credibility: Probability = 1.0


MAX_LINE_BYTES = 16 << 20

_SUFFIXES = frozenset({".jsonl", ".ndjson"})


def is_lines(path: Path) -> bool:
    """Whether a file has JSON lines, by its name."""
    return path.suffix.lower() in _SUFFIXES


def line_passages(path: Path, source: str, notes: list[FileNote]) -> Iterator[Passage]:
    """The passages of a file.

    Args:
        path: The file. A line is an object with `text` and, if known, `title` or `page`, and `id`; or a text alone.
        source: What the file is called; a passage's source is that and its line, as in `facts.jsonl#12`.
        notes: Takes how many lines have no text in them.

    Raises:
        DataError: A line is too long, not UTF-8, no JSON, or has no `text`; names the line.
        OSError: The file cannot be read.
    """
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
            record = _record(line, where)
            text = replace_surrogates(record["text"])
            if not text.strip():
                blank += 1
                continue
            place = f"{source}#{number}"
            yield Passage(
                id=_id_of(record, where) or place, source=place, text=text, title=_title_of(record, where), start=0
            )
    if blank:
        notes.append(FileNote(source, f"{blank} lines have an empty text", left_out=False))


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except RecursionError as e:
        raise DataError(f"{where}: the record is nested too deep") from e
    except ValueError as e:
        raise DataError(f"{where}: this is no JSON: {e}", hint="one JSON object a line, with a field `text`") from e
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise DataError(f"{where} has no field `text`", hint="one JSON object a line: text, and title or page, and id")
    return value


def _title_of(record: dict[str, Any], where: str) -> str:
    title = record.get("title") if record.get("title") is not None else record.get("page")
    if title is not None and not isinstance(title, str):
        raise DataError(f"{where}: the title is no text")
    return " ".join(replace_surrogates(title or "").split())


def _id_of(record: dict[str, Any], where: str) -> str:
    found = record.get("id")
    if found is None or (isinstance(found, str | int) and not isinstance(found, bool)):
        return "" if found is None else replace_surrogates(str(found))
    raise DataError(f"{where}: the id is neither text nor a whole number")


def replace_surrogates(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which JSON may name and no file can hold; as long as before."""
    return text.encode("utf-8", "replace").decode("utf-8")


MAX_FILE_BYTES = 64 << 20
"""Bytes of a file that is read at once."""
MAX_PASSAGES = 400_000
"""Passages that are held in memory; more belong into a saved index."""

_INDEX_HINT = "put it into a saved index: `reason index build DIR PATH`"
_CUT_HINT = "divide it, or make it JSON lines with one passage a line, which may be of any size"


class ChunkOptions(Frozen):
    """How documents are cut into passages.

    Attributes:
        words: Most words of a passage; it is made of whole sentences while they fit.
        overlap: Most words that it shares with the one before it.
    """

    words: Annotated[int, Field(ge=1)] = 64
    overlap: Annotated[int, Field(ge=0)] = 24

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.overlap >= self.words:
            raise ValueError(f"passages of {self.words} words cannot share {self.overlap}")
        return self


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file whose text is wanted.

    Attributes:
        path: Where it lies.
        source: What its passages call it: its name, in a folder after the folder's name.
        inside: The folder that it must not lead out of; None if the file itself was named.
    """

    path: Path
    source: str
    inside: Path | None = None

    @property
    def named(self) -> bool:
        """Whether it was named itself, so that an error in it ends the work."""
        return self.inside is None


@dataclass(slots=True)
class PassageCollection:
    """What was read.

    Attributes:
        passages: All passages, in order of the files; their ids are unique.
        files: How many files they are of.
        notes: What was left out or read otherwise, and why.
    """

    passages: list[Passage] = field(default_factory=list)
    files: int = 0
    notes: list[FileNote] = field(default_factory=list)


def document_passages(documents: Iterable[Document], cutting: ChunkOptions | None = None) -> list[Passage]:
    """Passages of texts that are there already.

    Args:
        documents: The texts. Of the same name, the later ones get a number behind it.
        cutting: How they are cut.

    Returns:
        Passages with `text == document.text[start : start + len(text)]`, in order; their title is the heading that they
        stand under, in Markdown, or else the document's name.

    Raises:
        UserError: A text is too large to be cut in memory.
    """
    made: list[Passage] = []
    names: set[str] = set()
    for document in documents:
        if len(document.text) > MAX_FILE_BYTES:
            raise UserError(
                f"the document {document.name!r} has more than {_megabytes(MAX_FILE_BYTES)}", hint=_INDEX_HINT
            )
        name, number = document.name, 2
        while name in names:
            name, number = f"{document.name}~{number}", number + 1
        names.add(name)
        markdown = PurePath(document.name).suffix.lower() in (".md", ".markdown")
        part = TextPart(document.text, headings=markdown)
        made += _cut(part, name, PurePath(document.name).name or document.name, cutting or ChunkOptions())
    return made


def list_source_files(paths: Sequence[Path], notes: list[FileNote]) -> list[SourceFile]:
    """The files that paths name, each once: files as they are, folders with all in them.

    Args:
        paths: Files and folders. What is hidden in a folder is not looked at, and links must not lead out of it.
        notes: Takes what could not be listed.

    Raises:
        DataError: A path is not there or cannot be listed.
    """
    found: dict[Path, SourceFile] = {}
    sources: set[str] = set()
    for path in paths:
        try:
            whole = path.expanduser().resolve(strict=True)
            listed = sorted(walk_files(whole, notes, whole.name, None)) if whole.is_dir() else []
        except FileNotFoundError as e:
            raise DataError(f"there is no {path}", hint="name files or folders that exist") from e
        except (OSError, RuntimeError) as e:  # RuntimeError: a circle of links
            raise DataError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
        files = [SourceFile(at, replace_surrogates(f"{whole.name}/{relative}"), whole) for relative, at in listed]
        for file in files if whole.is_dir() else [SourceFile(whole, replace_surrogates(whole.name))]:
            if file.path not in found:
                # two folders may have the same name
                source = file.source if file.source not in sources else path_text(file.path)
                sources.add(source)
                found[file.path] = SourceFile(file.path, source, file.inside)
    return list(found.values())


def file_passages(
    file: SourceFile,
    cutting: ChunkOptions,
    notes: list[FileNote],
    *,
    most_bytes: int = MAX_FILE_BYTES,
    indexing: bool = False,
) -> Iterator[Passage]:
    """The passages of one file, as they are read. Blocks.

    JSON lines (`.jsonl`, `.ndjson`) give a passage a line: its text is the field `text`, its title `title` or `page`,
    its id `id`. Other files are cut into windows.

    Args:
        file: The file.
        cutting: How it is cut.
        notes: Takes what is to be told of it.
        most_bytes: A larger file is refused.
        indexing: Whether passages are let go as they come, so that JSON lines may be of any size.

    Raises:
        DataError: It cannot be read, is too large, binary or damaged, or a line of it is no passage.
    """
    try:
        size = os.stat(file.path).st_size
        rows = is_lines(file.path)
        if size > most_bytes and not (rows and indexing):
            raise DataError(
                f"{file.path} has {_megabytes(size)}, and at most {_megabytes(most_bytes)} of a file are read at once",
                hint=_CUT_HINT if indexing else _INDEX_HINT,
            )
        if rows:
            yield from line_passages(file.path, file.source, notes)
            return
        content = read_regular_file(file.path, file.inside or file.path.parent, most_bytes, most_bytes)
        read = extract_text(file.path.name, content)
    except UnreadableFile as e:
        raise DataError(f"cannot read {file.path} as text: {e}", hint="give text, Markdown, HTML, JSON or PDF") from e
    except OSError as e:
        raise DataError(f"cannot read {file.path}: {e.strerror or e}") from e
    notes += [FileNote(file.source, why, left_out=False) for why in read.notes]
    for part in read.parts:
        source = f"{file.source}#{part.name}" if part.name else file.source
        whole = TextPart(replace_surrogates(part.text), part.name, part.headings)
        yield from _cut(whole, source, replace_surrogates(file.path.name), cutting)


def read_passages(
    paths: Sequence[Path],
    cutting: ChunkOptions | None = None,
    *,
    most_file_bytes: int = MAX_FILE_BYTES,
    most_passages: int = MAX_PASSAGES,
) -> PassageCollection:
    """All passages of files and folders, in memory. Blocks.

    Args:
        paths: Files and folders. A file that cannot be read is an error if it was named, and a note within a folder.
        cutting: How they are cut.
        most_file_bytes: A larger file is refused.
        most_passages: More are refused.

    Raises:
        DataError: A path is not there, a named file cannot be read, or there is no text in any.
        UserError: There are too many passages.
    """
    gathered = PassageCollection()
    ids: set[str] = set()
    for file in list_source_files(paths, gathered.notes):
        try:
            before = len(gathered.passages)
            for passage in file_passages(file, cutting or ChunkOptions(), gathered.notes, most_bytes=most_file_bytes):
                own = passage if passage.id not in ids else passage.model_copy(update={"id": position_id(passage)})
                ids.add(own.id)
                gathered.passages.append(own)
                if len(gathered.passages) > most_passages:
                    raise UserError(
                        f"there are more than {most_passages:,} passages",
                        hint="`reason index build DIR PATH` saves them",
                    )
        except DataError as e:
            if file.named:
                raise
            del gathered.passages[before:]
            gathered.notes.append(FileNote(file.source, e.message))
        else:
            gathered.files += len(gathered.passages) > before
    if not gathered.passages:
        raise no_text_error(paths, gathered.notes)
    return gathered


def no_text_error(paths: Sequence[Path], notes: Sequence[FileNote]) -> DataError:
    """The error of paths without any text."""
    left = f"; {len(notes)} files were left out, the first: {notes[0].path}: {notes[0].why}" if notes else ""
    shown = ", ".join(str(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")
    return DataError(f"there is no text in {shown or 'no path'}{left}", hint="give files or folders of documents")


def position_id(passage: Passage) -> str:
    """An id by where a passage stands: its source is a text of its own, so no other passage has it."""
    return f"{passage.source}:{passage.start or 0}-{(passage.start or 0) + len(passage.text)}"


def _cut(part: TextPart, source: str, name: str, cutting: ChunkOptions) -> Iterator[Passage]:
    for cut in split_chunks(part.text, words=cutting.words, overlap=cutting.overlap, headings=part.headings):
        made = Passage(
            id="?", source=source, text=part.text[cut.start : cut.end], title=cut.heading or name, start=cut.start
        )
        yield made.model_copy(update={"id": position_id(made)})


def path_text(path: Path) -> str:
    """A path as text that can be stored; bytes of a name that are no text are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _megabytes(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size} bytes"
