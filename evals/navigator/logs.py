"""`TrainingLogs`: what a training notes while it goes on: lines of JSON, and scalars for TensorBoard."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from ...core.errors import DataError, StoreError, UserError
from ...core.messages import Frozen
from .desk import Spent
from .records import EpisodeRecord, Validation
from .work_folder import EPISODES, TENSORBOARD, VALIDATIONS, LineFile

LineT = TypeVar("LineT", bound=Frozen)

WINDOW = 100
"""Episodes that a moving mean is over."""


class TrainingLogs:
    """The logs of one training; a context manager.

    Args:
        folder: The training's folder.
        episodes: Episodes that stand: those up to the checkpoint from which it goes on.
        validations: Validations likewise.

    Raises:
        UserError: tensorboardX is not installed.
        DataError: A file has fewer lines than that.
        StoreError: Something cannot be written.
    """

    def __init__(self, folder: Path, episodes: int, validations: int) -> None:
        require_extra()
        from tensorboardX import SummaryWriter

        self.records = read_records(folder / EPISODES)[:episodes]
        self.validations = read_validations(folder / VALIDATIONS)[:validations]
        self._episodes = LineFile(folder / EPISODES, episodes)
        self._validations = LineFile(folder / VALIDATIONS, validations)
        board = folder / TENSORBOARD
        try:
            before = len(list(board.iterdir())) if board.is_dir() else 0
            # files are named by the second, and read in the order of their names; scalars behind the checkpoint, which
            # a killed process left, are not shown
            self._board: Any = SummaryWriter(
                str(board), purge_step=episodes + 1 if episodes else None, filename_suffix=f".{before:05}"
            )
        except OSError as e:
            raise StoreError(f"cannot write {board}: {e.strerror}", hint="choose another --work") from e
        self._recent: deque[EpisodeRecord] = deque(self.records[-WINDOW:], maxlen=WINDOW)

    def episode(self, record: EpisodeRecord, spent: Spent) -> None:
        """Note an episode, and what was spent until then.

        Raises:
            StoreError: It cannot be written.
        """
        self.records.append(record)
        self._recent.append(record)
        self._episodes.add(record)
        scalars = {
            "episode/return": record.earned,
            "episode/correct": float(record.correct),
            "episode/length": record.length,
            "episode/tokens": record.tokens,
            f"mean_of_{WINDOW}/return": sum(r.earned for r in self._recent) / len(self._recent),
            f"mean_of_{WINDOW}/accuracy": sum(r.correct for r in self._recent) / len(self._recent),
            f"mean_of_{WINDOW}/length": sum(r.length for r in self._recent) / len(self._recent),
            "learning/epsilon": record.epsilon,
            "learning/rate": record.learning_rate,
            "learning/steps": record.steps,
            "spent/generated_tokens": spent.tokens,
            "spent/reused_replies": spent.reused_replies,
        }
        if record.loss is not None:
            scalars["learning/loss"] = record.loss
        if record.scores_asked:
            scalars["episode/missing_scores"] = record.scores_missing / record.scores_asked
        for name, value in scalars.items():
            self._board.add_scalar(name, value, record.episode)

    def validation(self, found: Validation) -> None:
        """Note a validation.

        Raises:
            StoreError: It cannot be written.
        """
        self.validations.append(found)
        self._validations.add(found)
        for name in ("accuracy", "earned", "length", "missing", "tokens"):
            self._board.add_scalar(f"validation/{name}", getattr(found, name), found.episode)

    def flush(self) -> None:
        """Bring all of it to the disk."""
        self._board.flush()
        self._episodes.sync()
        self._validations.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        self._validations.__exit__(kind, error, trace)
        self._episodes.__exit__(kind, error, trace)


def require_extra() -> None:
    """Refuse a training whose logs could not be written.

    Raises:
        UserError: A package of the extra is missing.
    """
    for package in ("tensorboardX", "matplotlib"):
        try:
            __import__(package)
        except ModuleNotFoundError as e:
            raise UserError(f"training needs {package}", hint="pip install 'reason-orchestrator[train]'") from e


def read_records(path: Path) -> list[EpisodeRecord]:
    """The episodes of a training; a torn last line is passed over, a file that is not there has none.

    Raises:
        DataError: A line is something else; names it.
    """
    return _read(path, EpisodeRecord)


def read_validations(path: Path) -> list[Validation]:
    """The validations of a training likewise."""
    return _read(path, Validation)


def _read(path: Path, kind: type[LineT]) -> list[LineT]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    found: list[LineT] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a line of a training", hint="the file is damaged") from e
    return found
