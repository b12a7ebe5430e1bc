"""A training run on disk: one locked directory, its manifest, its logs and its checkpoint.

`training.json` holds the plan; `checkpoint.safetensors` is where the run resumes; logs are lines of JSON. Files are
replaced completely or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from ...core.errors import DataError, StoreError, UserError
from ...core.files import write_file
from ...core.messages import Frozen
from ..run_directory import LockedDirectory

MANIFEST: Final = "training.json"
CHECKPOINT: Final = "checkpoint.safetensors"
FORMAT: Final = 1
_ENTRY: Final = "reason.training.checkpoint"
_RETRAIN: Final = "train again in another directory"

LineT = TypeVar("LineT", bound=Frozen)


class TrainingManifest(Frozen):
    """What `training.json` holds at least.

    Attributes:
        plan: Everything that decides the result; it has a `digest` and lists its `differences` from another plan.
    """

    plan: Any


ManifestT = TypeVar("ManifestT", bound=TrainingManifest)


class TrainingDirectory(LockedDirectory):
    """The directory of one training run, locked by this process: a context manager.

    Raises:
        UserError: Another process uses it.
        StoreError: It cannot be written to.
    """

    option = "--run-dir"

    def begin(self, manifest: TrainingManifest, *, resume: bool) -> None:
        """Start a run, or continue the one that the directory holds.

        Raises:
            UserError: There is a run already and `resume` is false, or it has another plan; names the differences.
            DataError: There is no run to resume, or its manifest is damaged.
        """
        if resume:
            before = read_manifest(self.path, type(manifest))
            if before.plan.digest != manifest.plan.digest:
                raise UserError(
                    f"{self.path} holds another training: {before.plan.differences(manifest.plan)}",
                    hint="--resume --run-dir alone continues it; or choose another --run-dir",
                )
        elif (self.path / MANIFEST).exists():
            raise UserError(
                f"{self.path} holds a training already", hint="--resume continues it; or choose another --run-dir"
            )
        write_file(self.path / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.path / CHECKPOINT).exists()


def read_manifest(directory: Path, kind: type[ManifestT]) -> ManifestT:
    """The manifest of a training run.

    Raises:
        DataError: There is none, or it is damaged, of another version or of another kind of training.
    """
    path = directory / MANIFEST
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{directory} holds no training", hint=f"the directory of a training has a {MANIFEST}") from e
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise DataError(f"{path} is damaged or of another version of reason", hint="train again") from e


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps.

    Attributes:
        plan: Digest of the plan.
        state: Everything that JSON can hold; numbers are read back exactly.
        arrays: Weights, moments, stored transitions, by name.
    """

    plan: str
    state: Mapping[str, JsonValue]
    arrays: Mapping[str, NDArray[Any]]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; it is on the disk when this returns.

    Raises:
        StoreError: It cannot be written; the earlier file stays.
    """
    from safetensors.numpy import save

    meta = {"format": FORMAT, "plan": checkpoint.plan, "state": dict(checkpoint.state)}
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    write_file(path, save(arrays, metadata={_ENTRY: json.dumps(meta)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        raw = path.read_bytes()
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        meta = json.loads(header["__metadata__"][_ENTRY])
        if meta["format"] != FORMAT:
            raise DataError(f"{path} is a checkpoint of another version of reason", hint=_RETRAIN)
        return Checkpoint(plan=meta["plan"], state=meta["state"], arrays=arrays)
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint=_RETRAIN) from e


class JsonLinesWriter:
    """A file of JSON lines that a training run appends to; a context manager.

    Args:
        path: The file.
        keep: Lines to keep: later ones were written after the checkpoint, and are written again.

    Raises:
        DataError: It has fewer lines.
        StoreError: It cannot be written.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        try:
            raw = path.read_bytes() if path.exists() else b""
            lines = raw.split(b"\n")[:-1]  # a line without its end is torn
            if len(lines) < keep:
                raise DataError(
                    f"{path} has {len(lines)} lines, fewer than the {keep} of the checkpoint",
                    hint=f"restore the file, or {_RETRAIN}",
                )
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, sum(len(line) + 1 for line in lines[:keep]))
        except OSError as e:
            raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another --run-dir") from e

    def add(self, line: Frozen) -> None:
        """Append a line in one write.

        Raises:
            StoreError: It cannot be written.
        """
        content = (line.model_dump_json() + "\n").encode("utf-8", "surrogatepass")
        try:
            if os.write(self._file, content) < len(content):
                raise StoreError(f"no space left for {self._path}", hint="free some space, then --resume")
        except OSError as e:
            raise StoreError(f"cannot write {self._path}: {e.strerror}", hint="free some space, then --resume") from e

    def sync(self) -> None:
        """Flush all lines to the disk.

        Raises:
            StoreError: That failed.
        """
        try:
            os.fsync(self._file)
        except OSError as e:
            raise StoreError(f"cannot write {self._path}: {e.strerror}", hint="free some space, then --resume") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def read_json_lines(path: Path, kind: type[LineT]) -> list[LineT]:
    """The lines of a log; a torn last line is skipped, and a missing file has none.

    Raises:
        DataError: A line is not of that kind; names it.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    records: list[LineT] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a line of a training", hint="the file is damaged") from e
    return records


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
