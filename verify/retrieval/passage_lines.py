"""JSON lines as passages, one a line, read as they come: files of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.json_lines import decoded
from ...reasoning.brains.folder_files import Note
from ..evidence import Passage

MOST_LINE_BYTES = 16 << 20

_SUFFIXES = frozenset({".jsonl", ".ndjson"})


def is_lines(path: Path) -> bool:
    """Whether a file has JSON lines, by its name."""
    return path.suffix.lower() in _SUFFIXES


def line_passages(path: Path, source: str, notes: list[Note]) -> Iterator[Passage]:
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
        while raw := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            where = f"{path} line {number}"
            if len(raw) > MOST_LINE_BYTES:
                raise DataError(f"{where} is longer than {MOST_LINE_BYTES >> 20} MB", hint="one passage a line")
            line = decoded(raw, where)
            if number == 1:
                line = line.removeprefix("\ufeff")
            if not line.strip():
                continue
            record = _record(line, where)
            text = sound(record["text"])
            if not text.strip():
                blank += 1
                continue
            place = f"{source}#{number}"
            yield Passage(
                id=_id_of(record, where) or place, source=place, text=text, title=_title_of(record, where), start=0
            )
    if blank:
        notes.append(Note(source, f"{blank} lines have an empty text", left_out=False))


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
    return " ".join(sound(title or "").split())


def _id_of(record: dict[str, Any], where: str) -> str:
    found = record.get("id")
    if found is None or (isinstance(found, str | int) and not isinstance(found, bool)):
        return "" if found is None else sound(str(found))
    raise DataError(f"{where}: the id is neither text nor a whole number")


def sound(text: str) -> str:
    """The text with "?" for halves of surrogate pairs, which JSON may name and no file can hold; as long as before."""
    return text.encode("utf-8", "replace").decode("utf-8")
