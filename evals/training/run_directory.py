"""run_directory."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field, ValidationError

from ...core.errors import DataError, StoreError, UserError
from ...core.messages import Frozen
from ..plan import DatasetSource
from ..run_directory import LockedDirectory, write_whole
from .navigator.episodes import TrainingUsage
from .navigator.plan import NavigatorPlan, Schedule
from .navigator.trainer import _SPENT, SPENT, STORE

MANIFEST = "training.json"

CHECKPOINT = "checkpoint.npz"


class TrainingManifest(Frozen):
    """What `training.json` holds.

    Attributes:
        plan: The plan.
        sources: Where the datasets are opened from, in the plan's order.
        schedule: How long it continues; the last one that was requested.
        out: The navigator's file.
        store: The run store's file, relative to the directory where it is stored inside.
        environment: Version of `reason`, of the engines and of the machine's software.
    """

    plan: NavigatorPlan
    sources: tuple[DatasetSource, ...]
    schedule: Schedule
    out: Path
    store: str = STORE
    environment: dict[str, str] = Field(default_factory=dict)


class TrainingDirectory(LockedDirectory):
    """The directory of one training, held by this process: a context manager.

    Raises:
        UserError: Another process works in it.
        StoreError: It cannot be written to.
    """

    option = "--work"

    def begin(self, manifest: TrainingManifest, *, resume: bool) -> None:
        """Begin a training, or continue the one that is there.

        Raises:
            UserError: There is one already and it is not to be resumed, or it is another one; names what differs.
            DataError: There is none to resume, or its file is damaged.
        """
        if resume:
            before = read_training(self.path)
            if before.plan.digest != manifest.plan.digest:
                raise UserError(
                    f"{self.path} holds another training: {before.plan.differs(manifest.plan)}",
                    hint="resume it by --resume --work alone; or choose another --work",
                )
        elif (self.path / MANIFEST).exists():
            raise UserError(
                f"{self.path} holds a training already", hint="--resume resumes it; or choose another --work"
            )
        self.write(manifest)

    def write(self, manifest: TrainingManifest) -> None:
        """Note the plan.

        Raises:
            StoreError: It cannot be written.
        """
        write_whole(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.path / CHECKPOINT).exists()

    def read_spent(self) -> TrainingUsage:
        """What earlier processes have spent on this training."""
        try:
            return _SPENT.validate_json((self.path / SPENT).read_bytes())
        except FileNotFoundError:
            return TrainingUsage()
        except (OSError, ValidationError) as e:
            raise DataError(f"{self.path / SPENT} is damaged", hint="remove it: tokens are counted again then") from e

    def write_spent(self, spent: TrainingUsage) -> None:
        """Note what was spent.

        Raises:
            StoreError: It cannot be written.
        """
        write_whole(self.path / SPENT, _SPENT.dump_json(TrainingUsage(**asdict(spent))).decode() + "\n")


class JsonLinesWriter:
    """A file of JSON lines that a training adds to; a context manager.

    Raises:
        DataError: It has fewer lines.
        StoreError: It cannot be written.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        try:
            raw = path.read_bytes() if path.exists() else b""
            lines = raw.split(b"\n")[:-1]  # what follows the last line break is torn
            if len(lines) < keep:
                raise DataError(
                    f"{path} has {len(lines)} lines, and the checkpoint stands behind {keep}",
                    hint="put the file back, or train again in another directory",
                )
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, sum(len(line) + 1 for line in lines[:keep]))
        except OSError as e:
            raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another --work") from e

    def add(self, line: Frozen) -> None:
        """Write a line: one write of one whole line.

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
        """Bring all lines to the disk.

        Raises:
            StoreError: That fails.
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


def read_training(folder: Path) -> TrainingManifest:
    """What a training decided.

    Raises:
        DataError: There is none in the directory, or its file is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        return TrainingManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{folder} holds no training", hint=f"a training's directory has a file {MANIFEST}") from e
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise DataError(f"{path} is damaged or of another version of reason", hint="train again") from e


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written in the end, before anything is spent on it.

    Raises:
        StoreError: Its directory cannot be made or written to, or it is a directory itself.
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
