"""What was fitted and lies in a JSON file: its digest, and reading, which looks at kind and format before content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from .errors import DataError
from .messages import Frozen
from .whole_files import write_bytes


class FittedFile(Frozen):
    """What such a file holds. Has fields `kind`, `format` and `name`, the file's name without its ending."""

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over all of it but the name."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()[:8]


FittedT = TypeVar("FittedT", bound=FittedFile)


def read_fitted(
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


def write_fitted(fitted: FittedFile, path: Path) -> None:
    """Write a fitted thing as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_bytes(path, (fitted.model_dump_json(indent=1, exclude={"name"}) + "\n").encode())
