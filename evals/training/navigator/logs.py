"""logs."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import ValidationError

from ....core.errors import DataError, StoreError, UserError
from ....core.messages import Frozen
from ...statistics.outcomes import Array
from ..run_directory import JsonLinesWriter
from .episodes import EpisodeRecord, TrainingUsage, ValidationResult
from .trainer import EPISODES, TENSORBOARD, VALIDATIONS

LineT = TypeVar("LineT", bound=Frozen)

WINDOW = 100
"""Episodes that a moving mean is over."""


class TrainingLogs:
    """The logs of one training; a context manager.

    Raises:
        UserError: tensorboardX is not installed.
        DataError: A file has fewer lines than that.
        StoreError: Something cannot be written.
    """

    def __init__(self, directory: Path, episodes: int, validations: int) -> None:
        require_extra()
        from tensorboardX import SummaryWriter

        self.records = read_records(directory / EPISODES)[:episodes]
        self.validations = read_validations(directory / VALIDATIONS)[:validations]
        self._episodes = JsonLinesWriter(directory / EPISODES, episodes)
        self._validations = JsonLinesWriter(directory / VALIDATIONS, validations)
        board = directory / TENSORBOARD
        try:
            before = len(list(board.iterdir())) if board.is_dir() else 0
            # files are named by the second, and read in the order of their names; scalars after the checkpoint, which
            # a killed process left, are not shown
            self._board: Any = SummaryWriter(
                str(board), purge_step=episodes + 1 if episodes else None, filename_suffix=f".{before:05}"
            )
        except OSError as e:
            raise StoreError(f"cannot write {board}: {e.strerror}", hint="choose another --work") from e
        self._recent: deque[EpisodeRecord] = deque(self.records[-WINDOW:], maxlen=WINDOW)

    def episode(self, record: EpisodeRecord, spent: TrainingUsage) -> None:
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

    def validation(self, result: ValidationResult) -> None:
        """Note a validation.

        Raises:
            StoreError: It cannot be written.
        """
        self.validations.append(result)
        self._validations.add(result)
        for name in ("accuracy", "earned", "length", "missing", "tokens"):
            self._board.add_scalar(f"validation/{name}", getattr(result, name), result.episode)

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


def read_validations(path: Path) -> list[ValidationResult]:
    """The validations of a training likewise."""
    return _read(path, ValidationResult)


def _read(path: Path, kind: type[LineT]) -> list[LineT]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    results: list[LineT] = []
    for number, line in enumerate(lines, 1):
        try:
            results.append(kind.model_validate_json(line))
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a line of a training", hint="the file is damaged") from e
    return results


ACCURACY, EARNED, LENGTH, EPSILON, VALIDATION_COLOR = "#3a9d5d", "#4269d0", "#d9822b", "#7a7f87", "#b5487a"
"""Colours that can be told apart on white and on near-black; the page after is left as it is."""

INK = "#6b7280"


def learning_curve(records: Sequence[EpisodeRecord], validations: Sequence[ValidationResult], title: str = "") -> str:
    """Draw a training.

    The lines are means over the last `WINDOW` episodes, or as many as there are; a long chain is no good chain (see
    `EpisodeRecord.length`), so the two stand next to each other.

    Args:
        records: Its episodes, in order.

    Returns:
        The SVG's text; the same for the same training.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_extra()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.6), layout="constrained")
    figure.patch.set_alpha(0)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    x = [r.episode for r in records]
    at = [v.episode for v in validations]
    above.plot(x, moving_mean([float(r.correct) for r in records]), color=ACCURACY, label="right answers")
    above.plot(x, moving_mean([r.earned for r in records]), color=EARNED, label="return")
    middle.plot(x, moving_mean([float(r.length) for r in records]), color=LENGTH, label="blocks before the answer")
    below.plot(x, [r.epsilon for r in records], color=EPSILON, label="random actions (epsilon)")
    if validations:
        mark = {"color": VALIDATION_COLOR, "marker": "o", "markersize": 4, "linewidth": 1}
        above.plot(at, [v.accuracy for v in validations], label="right answers, held out, greedy", **mark)
        middle.plot(at, [v.length for v in validations], label="blocks, held out, greedy", **mark)
    below.set_xlabel("episode")
    below.set_ylim(-0.02, 1.02)
    middle.set_ylim(bottom=0)
    for axes in (above, middle, below):
        _style(axes)
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reason", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def moving_mean(values: Sequence[float], window: int = WINDOW) -> Array:
    """The mean of each value and those before it, of up to `window` in all; as many means as values."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - window)
    means: Array = (sums[ends] - sums[begins]) / (ends - begins)
    return means


def _style(axes: Any) -> None:
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.grid(visible=True, axis="y", color=INK, alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
