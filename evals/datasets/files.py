"""Local files: JSON lines and CSV, read record by record; whatever is wrong is told with file and line."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from ...core.errors import DataError
from ...core.json_lines import decoded, json_lines
from .rows import RawRow

FILE = "dev.jsonl"
"""Name of a dataset's file inside its folder."""


def find_files(data: Path, folders: Sequence[str]) -> list[Path]:
    """The files that a path means.

    Args:
        data: A file; or a folder that holds `dev.jsonl`, or one folder for each dataset with it.
        folders: Names of the dataset's folders.

    Raises:
        DataError: There is no such file.
    """
    if data.is_file():
        return [data]
    if data.is_dir():
        if (data / FILE).is_file():
            return [data / FILE]
        found = [data / name / FILE for name in folders if (data / name / FILE).is_file()]
        if found:
            return found
        wanted = " or ".join(f"{name}/{FILE}" for name in folders) or FILE
        raise DataError(f"the folder {data} holds no {wanted}", hint="name the file itself with --data")
    raise DataError(f"there is no file {data}", hint="--data takes a JSONL or CSV file")


def read_file(path: Path) -> Iterator[RawRow]:
    """The records of a file, one at a time: CSV if its name ends so, else JSON lines.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or a line is no record.
    """
    read = _csv if path.suffix.lower() == ".csv" else _jsonl
    return read(path)


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other.

    Raises:
        DataError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_bytes(path))
    return digest.hexdigest()


def _jsonl(path: Path) -> Iterator[RawRow]:
    for position, line in enumerate(json_lines(_bytes(path), str(path)), 1):
        yield RawRow(line.values, line.where, position, path.parent.name)


def _csv(path: Path) -> Iterator[RawRow]:
    content = _bytes(path)
    for at, raw in enumerate(content.split(b"\n"), 1):
        decoded(raw, f"{path} line {at}")
    reader = csv.reader(io.StringIO(content.decode("utf-8").removeprefix("\ufeff"), newline=""), strict=True)
    line = 1
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or not all(name.strip() for name in header):
            raise DataError(f"{path} line 1: two columns have the same name, or one has none")
        for number, cells in enumerate(_filled(reader), 1):
            line = reader.line_num
            if len(cells) != len(header):
                raise DataError(
                    f"{path} line {line}: {len(cells)} cells where the header names {len(header)} columns",
                    hint="quote a cell that holds a comma or a line break",
                )
            # an empty cell is a missing value: CSV has no other way to say so
            values: dict[str, JsonValue] = {n: c for n, c in zip(header, cells, strict=True) if c != ""}
            yield RawRow(values, f"{path} line {line}", number, path.parent.name)
    except csv.Error as e:
        raise DataError(f"{path} line {max(line, reader.line_num)}: this is no CSV: {e}") from e


def _filled(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (cells for cells in reader if cells)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
