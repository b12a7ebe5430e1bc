"""JSON lines, read record by record; whatever is wrong is told with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from .errors import DataError


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
