"""Records of a dataset, from local files (JSON lines, CSV) and the Hugging Face hub (at one commit each).

A `Record` knows where it comes from: every error names the file and line, or the row on the hub.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ...core.errors import BackendUnavailable, DataError, UserError
from ...core.extras import install_command
from ...core.files import decoded


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        values: Its fields.
        where: The file and line, or the row on the hub.
        position: Its number within the source, from 1.
        source: Which of several sources it came from: the hub id, or the file's directory.
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
        """A field that must be a non-empty string or a number.

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
        """A field that must be an integer, or a string that is one.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        try:
            if isinstance(value, bool) or not isinstance(value, int | str | float) or int(value) != float(value):
                raise ValueError
            return int(value)
        except (ValueError, OverflowError):
            raise self.bad(f"the field {name!r} is {value!r}, not an integer") from None

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

    def rows(self, name: str) -> list[Record]:
        """A field that must be a list of records.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.bad(f"the field {name!r} must be a list of records")
        return [
            Record(v, f"{self.where}, {name}[{i}]", i + 1, self.source)
            for i, v in enumerate(value)
            if isinstance(v, dict)
        ]

    def row(self, name: str) -> Record:
        """A field that must be a record.

        Raises:
            DataError: It is not.
        """
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.bad(f"the field {name!r} must be a record")
        return Record(value, f"{self.where}, {name}", self.position, self.source)

    def label(self, name: str, labels: Mapping[str, str]) -> str:
        """A field that must be one of several labels.

        Raises:
            DataError: It is none of them.
        """
        provided = self.text(name)
        result = labels.get(provided.strip().upper())
        if result is None:
            raise self.bad(
                f"the field {name!r} is {provided!r}", hint="one of " + ", ".join(dict.fromkeys(labels.values()))
            )
        return result

    def optional(self, name: str) -> str:
        """A text, or an empty one where the field is missing or null."""
        return self.text(name) if self.has(name) and self.values[name] != "" else ""

    def bad(self, what: str, *, hint: str = "") -> DataError:
        """The error that something is wrong with this record."""
        return DataError(f"{self.where}: {what}", hint=hint)


def rename_fields(rows: Iterator[Record], mapping: Mapping[str, str]) -> Iterator[Record]:
    """Add fields under the names that a reader expects.

    Args:
        mapping: By new name a field, a dotted path into records and lists (`doc.text`, `resps.0`), a text with paths
            in braces (`{name}-{temperature}`), or several paths that become a list (`A|B|C`).

    Raises:
        DataError: A record lacks a field.
    """
    for row in rows:
        values = dict(row.values)
        for name, path in mapping.items():
            if "{" in path:
                values[name] = _TEMPLATE.sub(lambda match, row=row: str(_at(row, match[1])), path)  # type: ignore[misc]
            else:
                values[name] = [_at(row, p) for p in path.split("|")] if "|" in path else _at(row, path)
        yield Record(values, row.where, row.position, row.source)


_TEMPLATE = re.compile(r"\{([^{}]+)\}")


def _at(row: Record, path: str) -> JsonValue:
    if path in row.values:  # a column's name may contain a dot
        return row.values[path]
    value: JsonValue = dict(row.values)
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = ", ".join(sorted(row.values))
            raise row.bad(f"there is no field {path!r}, which --map names", hint=f"the record has: {known}")
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


FILE = "dev.jsonl"
"""Name of a dataset's file inside its directory."""


def find_files(data: Path, folders: Sequence[str]) -> list[Path]:
    """The files of a path.

    Raises:
        DataError: There is no such file.
    """
    if data.is_file():
        return [data]
    if data.is_dir():
        if (data / FILE).is_file():
            return [data / FILE]
        results = [data / name / FILE for name in folders if (data / name / FILE).is_file()]
        if results:
            return results
        requested = " or ".join(f"{name}/{FILE}" for name in folders) or FILE
        raise DataError(f"the directory {data} holds no {requested}", hint="name the file itself with --data")
    raise DataError(f"there is no file {data}", hint="--data takes a JSONL or CSV file")


def read_file(path: Path) -> Iterator[Record]:
    """The records of a file, one at a time: CSV if its name ends so, else JSON lines, compressed if it ends in .gz.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or a line is no record.
    """
    read = _csv if path.suffix.lower() == ".csv" else _jsonl
    return read(path)


@dataclass(frozen=True)
class PackageSource:
    """Rows in a file of an installed Python package.

    Attributes:
        package: The package, as it is imported.
        path: The file in it.
        install: The package, as it is installed.
    """

    package: str
    path: str
    install: str


def package_file(source: PackageSource) -> tuple[Path, str]:
    """The file of a package, which is not imported, and the package's version.

    Raises:
        UserError: The package is not installed.
        DataError: It has no such file.
    """
    found = importlib.util.find_spec(source.package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the package {source.install} is not installed, which brings these rows",
            hint=f"pip install {source.install}, or give its file with --data",
        )
    path = Path(found.submodule_search_locations[0]) / source.path
    if not path.is_file():
        raise DataError(f"the package {source.install} has no file {source.path}", hint="give it with --data")
    return path, importlib.metadata.version(source.install)


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other.

    Raises:
        DataError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_bytes(path))
    return digest.hexdigest()


def _jsonl(path: Path) -> Iterator[Record]:
    content = _bytes(path)
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as e:
            raise DataError(f"cannot decompress {path}: {e}") from e
    yield from json_records(content, str(path), path.parent.name)


def json_records(content: bytes, name: str, source: str = "") -> Iterator[Record]:
    """The records of a JSON Lines file; empty lines are skipped."""
    lines = content.split(b"\n")
    position = 0
    for number, raw in enumerate(lines, 1):
        where = f"{name} line {number}"
        text = decoded(raw, where)
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            position += 1
            yield Record(_record(text, where, last=number == len(lines)), where, position, source)


class _InvalidConstant(ValueError):
    """NaN or an infinity, which Python reads and JSON does not have."""


def _record(text: str, where: str, *, last: bool) -> dict[str, JsonValue]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as e:
        raise DataError(f"{where}: the record is nested too deep") from e
    except _InvalidConstant as e:
        raise DataError(
            f"{where}: this is no JSON: {e} is not a number in JSON", hint="leave out unknown values"
        ) from e
    except ValueError as e:
        if last:  # a complete file ends with a newline
            raise DataError(
                f"{where}: the file ends within this record", hint="it was truncated, or is no JSON Lines file"
            ) from e
        reason = e.msg if isinstance(e, json.JSONDecodeError) else str(e)
        raise DataError(f"{where}: this is no JSON: {reason}", hint="one JSON object per line") from e
    if not isinstance(value, dict):
        raise DataError(f"{where}: this is no JSON object", hint="one JSON object per line")
    return value


def _refuse_constant(name: str) -> JsonValue:
    raise _InvalidConstant(name)


def _csv(path: Path) -> Iterator[Record]:
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
            yield Record(values, f"{path} line {line}", number, path.parent.name)
    except csv.Error as e:
        raise DataError(f"{path} line {max(line, reader.line_num)}: this is no CSV: {e}") from e


def _filled(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (cells for cells in reader if cells)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e


TIMEOUT_S = 10.0
"""Maximum wait for the hub's first word, in seconds."""


@dataclass(frozen=True)
class HubSource:
    """A dataset on the hub.

    Attributes:
        repo: Its id.
        split: Which split.
        config: Which configuration; None is the only one.
        revision: The commit that is read; empty where none is pinned, and then the newest is read and recorded.
        gated: Whether one must accept terms and log in.
    """

    repo: str
    split: str
    config: str | None = None
    revision: str = ""
    gated: bool = False


def read_hub(source: HubSource) -> tuple[Iterator[Record], str]:
    """The records of a dataset and the commit they are from.

    Raises:
        UserError: The package `datasets` is not installed, or the hub asks for an account.
        BackendUnavailable: The hub cannot be reached; with `HF_HUB_OFFLINE=1`, nothing is cached.
        DataError: The hub has no such dataset, split or commit, or its files cannot be read.
    """
    datasets, hub = _packages()
    name = f"{source.repo} on the Hugging Face hub"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    commit = source.revision if offline else _commit(hub, source, name)
    try:
        table = datasets.load_dataset(source.repo, source.config, split=source.split, revision=commit or None)
    except Exception as e:  # the package raises whatever its readers raise
        if offline:
            raise BackendUnavailable(
                f"{name} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it", hint=_hint(source)
            ) from e
        raise DataError(f"cannot read {name}: {type(e).__name__}: {_line(e)}", hint=_hint(source)) from e
    where = f"{source.repo}@{commit[:12]} {source.split}" if commit else f"{source.repo} {source.split}"
    return _rows(table, source.repo, where), commit


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("datasets"), importlib.import_module("huggingface_hub")
    except ImportError as e:
        raise UserError(
            f"reading from the Hugging Face hub needs the package {e.name!r}",
            hint=f"{install_command('eval')}; or give a local file with --data",
        ) from e


def _commit(hub: Any, source: HubSource, name: str) -> str:
    """The commit meant. It is requested first, since the package itself would try an unreachable hub for minutes."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        result = hub.HfApi().dataset_info(source.repo, revision=source.revision or None, timeout=TIMEOUT_S)
    except errors.GatedRepoError as e:
        raise UserError(f"{name} wants you to accept its terms", hint=_hint(source)) from e
    except errors.RevisionNotFoundError as e:
        raise DataError(f"{name} has no revision {source.revision!r}", hint=_hint(source)) from e
    except errors.RepositoryNotFoundError as e:
        raise DataError(f"there is no {name}, or it is private", hint=_hint(source)) from e
    except Exception as e:  # each version raises its HTTP client's own errors
        raise BackendUnavailable(
            f"{name} cannot be reached: {_line(e)}",
            hint="give a local copy with --data FILE; or, if it was fetched before, set HF_HUB_OFFLINE=1",
        ) from e
    return str(result.sha)


def _hint(source: HubSource) -> str:
    terms = f"accept the terms at huggingface.co/datasets/{source.repo} and run `hf auth login`; or " * source.gated
    return f"{terms}give a local copy with --data FILE"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _rows(table: Any, repo: str, where: str) -> Iterator[Record]:
    for i, record in enumerate(table, 1):
        values = {str(k): _plain(v) for k, v in record.items()}
        yield Record(values, f"{where} row {i}", i, repo)


def _plain(value: Any) -> JsonValue:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
