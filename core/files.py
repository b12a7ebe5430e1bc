"""Files written whole or not at all: a reader finds the old content or the new, and a crash leaves one of them.

JSON lines, read record by record; whatever is wrong is told with its line.

What was fitted and lies in a JSON file: its digest, and reading, which looks at kind and format before content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from .errors import DataError, StoreError
from .messages import Frozen


def atomic_write(path: Path, content: bytes, prefix: str = ".") -> None:
    """Let content take the place of a file at once; it is on the disk when this returns.

    Args:
        path: The file; its folder is there.
        content: What it is to hold.
        prefix: How the file is called beside its place while it is written: what a killed process leaves.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    partial = path.with_name(f"{prefix}{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """The same, with the folder made if need be, and an error for users.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another place, or free some space") from e


@dataclass(frozen=True, slots=True)
class JsonLine:
    """One record.

    Attributes:
        number: Its line, from 1.
        where: File and line, as errors name them.
        values: Its fields.
    """

    number: int
    where: str
    values: dict[str, JsonValue]


def json_lines(content: bytes, name: str) -> Iterator[JsonLine]:
    """The records of a text, one a line; empty lines are left out.

    Args:
        content: UTF-8, with or without a byte-order mark.
        name: What errors call it.

    Raises:
        DataError: A line is not UTF-8 or no JSON object, or the text ends within one; names the line.
    """
    lines = content.split(b"\n")
    for number, raw in enumerate(lines, 1):
        where = f"{name} line {number}"
        text = decoded(raw, where)
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield JsonLine(number, where, _record(text, where, last=number == len(lines)))


def decoded(raw: bytes, where: str) -> str:
    """A line as text.

    Raises:
        DataError: It is not UTF-8; names the byte.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise DataError(f"{where}: byte {e.start + 1} is not UTF-8", hint="save the file as UTF-8") from e


class _NotANumber(ValueError):
    """NaN or an infinity, which Python reads and JSON does not have."""


def _record(text: str, where: str, *, last: bool) -> dict[str, JsonValue]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as e:
        raise DataError(f"{where}: the record is nested too deep") from e
    except _NotANumber as e:
        raise DataError(
            f"{where}: this is no JSON: {e} is not a number in JSON", hint="leave away what is unknown"
        ) from e
    except ValueError as e:
        if last:  # a whole file ends with a newline
            raise DataError(
                f"{where}: the file ends within this record", hint="it was cut off, or is no JSON lines"
            ) from e
        reason = e.msg if isinstance(e, json.JSONDecodeError) else str(e)
        raise DataError(f"{where}: this is no JSON: {reason}", hint="one JSON object per line") from e
    if not isinstance(value, dict):
        raise DataError(f"{where}: this is no JSON object", hint="one JSON object per line")
    return value


def _refuse_constant(name: str) -> JsonValue:
    raise _NotANumber(name)


class FittedFile(Frozen):
    """What such a file holds. Has fields `kind`, `format` and `name`, the file's name without its ending."""

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over all of it but the name."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()[:8]


FittedT = TypeVar("FittedT", bound=FittedFile)


def read_fitted_file(
    path: Path,
    model: type[FittedT],
    *,
    kind: str,
    format: int,  # noqa: A002 (as the files' own field is called)
    called: str,
    made_by: str,
) -> FittedT:
    """Read a fitted thing from its file; its name is the file's.

    Args:
        path: The file.
        model: What it holds.
        kind: What its field `kind` must say.
        format: What its field `format` must say: the version of its form that is read.
        called: What it is called in messages, for example "router file".
        made_by: The hint of every error: the command that makes one.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is of another kind or version, or a
            value in it is impossible; names the file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no {called} {path}", hint=made_by) from e
    except OSError as e:
        raise DataError(f"cannot read the {called} {path}: {e.strerror}", hint=made_by) from e
    try:
        plain = from_json(raw)
    except ValueError as e:
        raise DataError(f"{path} is not a whole JSON file, so no {called}", hint=made_by) from e
    if not isinstance(plain, dict) or plain.get("kind") != kind:
        raise DataError(f"{path} is no {called}", hint=made_by)
    if plain.get("format") != format:
        raise DataError(
            f"the {called} {path} has format {plain.get('format')}; this version of reason reads {format}",
            hint=f"make it anew: {made_by}",
        )
    try:
        return model.model_validate_json(raw).model_copy(update={"name": path.stem})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(
            f"the {called} {path} is damaged: {where}: {first['msg'].removeprefix('Value error, ').lower()}",
            hint=f"make it anew: {made_by}",
        ) from e


def write_fitted_file(fitted: FittedFile, path: Path) -> None:
    """Write a fitted thing as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_file(path, (fitted.model_dump_json(indent=1, exclude={"name"}) + "\n").encode())
