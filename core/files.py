"""Files: progress of work on them, atomic writes, and versioned JSON files of fitted parameters."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import from_json

from .errors import DataError, StoreError
from .messages import Frozen


class Progress(Protocol):
    """Receives the progress of a pull. Called from the pulling thread; it must be quick and must not raise."""

    def __call__(self, stage: str, done: int, total: int | None, /) -> None:
        """Receive the progress."""


def atomic_write(path: Path, content: bytes, prefix: str = ".") -> None:
    """Replace a file's content atomically and durably: readers and a crash see the old content or the new."""
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
    """`atomic_write` for user-named files: creates the directory if needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another path, or free some space") from e


def check_writable(path: Path) -> None:
    """Refuse an output file that could not be written, before anything is spent on it.

    Raises:
        StoreError: Its directory cannot be created or written to, or it is a directory itself.
    """
    probe = path.parent / f".{path.name}.probe"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise StoreError(f"cannot write {path}: it is a directory", hint="choose another --out")
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another --out") from e


def decoded(raw: bytes, where: str) -> str:
    """A line as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise DataError(f"{where}: byte {e.start + 1} is not UTF-8", hint="save the file as UTF-8") from e


class FittedFile(Frozen):
    """Content of a JSON file of fitted parameters. Has fields `kind`, `format` and `name`, the file's stem."""

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over everything but the name."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()[:8]


FittedT = TypeVar("FittedT", bound=FittedFile)


def read_fitted_file(
    path: Path,
    model: type[FittedT],
    *,
    kind: str,
    format: int,  # noqa: A002 (the name of the file's own field)
    label: str,
    hint: str,
) -> FittedT:
    """Read fitted parameters; their name is the file's stem."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no {label} {path}", hint=hint) from e
    except OSError as e:
        raise DataError(f"cannot read the {label} {path}: {e.strerror}", hint=hint) from e
    try:
        values = from_json(raw)
    except ValueError as e:
        raise DataError(f"{path} is not a complete JSON file, so no {label}", hint=hint) from e
    if not isinstance(values, dict) or values.get("kind") != kind:
        raise DataError(f"{path} is no {label}", hint=hint)
    if values.get("format") != format:
        raise DataError(
            f"the {label} {path} has format {values.get('format')}; this version of reason reads {format}",
            hint=f"make it again: {hint}",
        )
    try:
        return model.model_validate_json(raw).model_copy(update={"name": path.stem})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(
            f"the {label} {path} is damaged: {where}: {first['msg'].removeprefix('Value error, ').lower()}",
            hint=f"make it again: {hint}",
        ) from e


def write_fitted_file(fitted: FittedFile, path: Path) -> None:
    """Write fitted parameters as JSON, atomically; their name becomes the file's stem."""
    write_file(path, (fitted.model_dump_json(indent=1, exclude={"name"}) + "\n").encode())


QuestionDigest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


def question_digest(text: str) -> str:
    """Sixteen hexadecimal digits of a question's text, independent of case and whitespace."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:16]
