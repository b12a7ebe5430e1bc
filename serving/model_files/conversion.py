"""Model directories that we made from GGUF files: made once, checked at every use."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...core.errors import DataError, UserError
from ...core.extras import missing_package
from .checkpoint import check_hashes, digest, file_hash
from .downloads import PullTask, atomic_directory

CONVERTER = 1
"""Raised with every change of the conversion that could change an answer: older directories are made again."""

_RECORD = "reason.json"


class Conversion(BaseModel):
    """The record of a conversion, in `reason.json` of its directory.

    Attributes:
        converter: Which revision of the conversion made it.
        source: Where the GGUF file came from, for people.
        source_sha256: Hash of the GGUF file.
        files: Hash of each file made.
    """

    model_config = ConfigDict(frozen=True)

    converter: int
    source: str
    source_sha256: str
    files: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """What the weights are: the source's hash and how it was converted."""
        return f"{self.source_sha256}.{self.converter}"


def read_conversion(directory: Path) -> Conversion | None:
    """The record of a converted directory; None if there is none of the present revision."""
    try:
        record = Conversion.model_validate_json((directory / _RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    except OSError as e:
        raise DataError(f"cannot read the model directory {directory}: {e.strerror}") from e
    return record if record.converter == CONVERTER else None


def check_conversion(directory: Path, record: Conversion, name: str, cache_dir: Path, pulling: PullTask) -> None:
    """Compare a converted directory with its record; files that did not change since are not read again.

    Raises:
        DataError: A file is missing or changed.
        Cancelled: Cancelled.
    """
    check_hashes(
        directory,
        record.files,
        cache_dir,
        pulling,
        expected="what was written there",
        hint=f"run: reason models rm {name} --yes && reason models pull {name}",
    )


def make_conversion(
    target: Path, source: str, fetch: Callable[[Path], tuple[Path, str]], cache_dir: Path, pulling: PullTask
) -> Conversion:
    """Fetch and convert a GGUF file. The caller holds the lock of the position.

    Args:
        target: Where the directory shall stand.
        source: Where the file comes from, for people.
        fetch: Given an empty scratch directory, returns the GGUF file and its SHA-256.
        cache_dir: The cache.
        pulling: Receives the progress; may cancel.

    Raises:
        UserError: The cache must not be written, or the [local] extra is missing.
        DataError: The GGUF file cannot be used.
        BackendUnavailable: It cannot be fetched, or the disk is full.
        Cancelled: Cancelled. Nothing is left in any of these cases.
    """
    try:
        from ..local.gguf import convert
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    with atomic_directory(target) as directory:
        scratch = directory / "fetched"
        scratch.mkdir()
        file, sha256 = fetch(scratch)
        convert(file, directory, pulling)
        shutil.rmtree(scratch)
        files = {p.name: digest(p, pulling) for p in sorted(directory.iterdir())}
        record = Conversion(converter=CONVERTER, source=source, source_sha256=sha256, files=files)
        (directory / _RECORD).write_text(json.dumps(record.model_dump(), indent=2) + "\n", encoding="utf-8")
    with contextlib.suppress(OSError):
        for file_name in record.files:
            file_hash(target / file_name, cache_dir, pulling)
    return record


def missing_extra(error: ModuleNotFoundError) -> UserError:
    """The error of an installation without what local models need."""
    return missing_package("a model that runs here", error.name, "local")
