"""`RawRow`: one record of a source as it stands there, with the place that errors name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ...core.errors import DataError


@dataclass(frozen=True)
class RawRow:
    """One record.

    Attributes:
        values: Its fields.
        where: The file and line, or the place on the hub.
        position: Its number within the source, from 1.
        source: Which of several sources it came from: the hub id, or the file's folder.
    """

    values: Mapping[str, JsonValue]
    where: str
    position: int
    source: str = ""

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def first(self, *names: str) -> str:
        """The first of these names that the record has; else the first of all, for the error that follows."""
        return next((n for n in names if self.has(n)), names[0])

    def value(self, name: str) -> JsonValue:
        """A field.

        Raises:
            DataError: It is missing.
        """
        if not self.has(name):
            known = ", ".join(sorted(self.values)) or "none"
            raise self.bad(
                f"the field {name!r} is missing", hint=f"the record has: {known}; --map {name}=… renames one"
            )
        return self.values[name]

    def text(self, name: str) -> str:
        """A field that must be a text of at least one character; a number is written out.

        Raises:
            DataError: It is missing, empty or something else.
        """
        value = self.value(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.bad(f"the field {name!r} is {_kind(value)}, not a text")
        if not value.strip():
            raise self.bad(f"the field {name!r} is empty")
        return value

    def integer(self, name: str) -> int:
        """A field that must be a whole number, or a text that is one.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        try:
            if isinstance(value, bool) or not isinstance(value, int | str | float) or int(value) != float(value):
                raise ValueError
            return int(value)
        except (ValueError, OverflowError):
            raise self.bad(f"the field {name!r} is {value!r}, not a whole number") from None

    def texts(self, name: str, *, least: int = 1) -> tuple[str, ...]:
        """A field that must be a list of texts.

        Raises:
            DataError: It is not, or it has too few.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise self.bad(f"the field {name!r} must be a list of texts, none of them empty")
        if len(value) < least:
            raise self.bad(f"the field {name!r} has {len(value)} entries, fewer than {least}")
        return tuple(str(v) for v in value)

    def rows(self, name: str) -> list[RawRow]:
        """A field that must be a list of records.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.bad(f"the field {name!r} must be a list of records")
        return [
            RawRow(v, f"{self.where}, {name}[{i}]", i + 1, self.source)
            for i, v in enumerate(value)
            if isinstance(v, dict)
        ]

    def row(self, name: str) -> RawRow:
        """A field that must be a record.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.bad(f"the field {name!r} must be a record")
        return RawRow(value, f"{self.where}, {name}", self.position, self.source)

    def label(self, name: str, labels: Mapping[str, str]) -> str:
        """A field that must be one of several labels.

        Args:
            name: The field.
            labels: The label that is meant by each spelling.

        Raises:
            DataError: It is none of them.
        """
        given = self.text(name)
        found = labels.get(given.strip().upper())
        if found is None:
            raise self.bad(
                f"the field {name!r} is {given!r}", hint="one of " + ", ".join(dict.fromkeys(labels.values()))
            )
        return found

    def optional(self, name: str) -> str:
        """A text, or an empty one where the field is missing or null."""
        return self.text(name) if self.has(name) and self.values[name] != "" else ""

    def bad(self, what: str, *, hint: str = "") -> DataError:
        """The error that something is wrong with this record."""
        return DataError(f"{self.where}: {what}", hint=hint)


def renamed(rows: Iterator[RawRow], mapping: Mapping[str, str]) -> Iterator[RawRow]:
    """Give fields the names that a reader looks for; the old ones stay.

    Args:
        rows: Records.
        mapping: For each name that is wanted, where it stands: a field, a path of fields (`meta.level`), or several
            fields joined by `|`, which become a list.

    Raises:
        DataError: A record lacks a field.
    """
    for row in rows:
        values = dict(row.values)
        for name, path in mapping.items():
            values[name] = [_at(row, p) for p in path.split("|")] if "|" in path else _at(row, path)
        yield RawRow(values, row.where, row.position, row.source)


def _at(row: RawRow, path: str) -> JsonValue:
    if path in row.values:  # a column's name may have a dot in it
        return row.values[path]
    value: JsonValue = dict(row.values)
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(sorted(row.values))
            raise row.bad(f"there is no field {path!r}, which --map names", hint=f"the record has: {known}")
        value = value[part]
    return value


def _kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case list():
            return "a list"
        case dict():
            return "a record"
        case _:
            return "a number"
