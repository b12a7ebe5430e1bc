"""The logs of a navigator training: JSON lines, TensorBoard scalars and the learning curve as SVG."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from ....core.errors import StoreError
from ....core.extras import missing_package
from ...statistics.outcomes import Array
from ..run_directory import JsonLinesWriter, read_json_lines
from .episodes import EpisodeRecord, TrainingUsage, ValidationResult

EPISODES: Final = "episodes.jsonl"
VALIDATIONS: Final = "validations.jsonl"
TENSORBOARD: Final = "tensorboard"
WINDOW: Final = 100
"""Episodes of a moving mean."""

ACCURACY, RETURN, LENGTH, EPSILON, VALIDATION = "#3a9d5d", "#4269d0", "#d9822b", "#7a7f87", "#b5487a"
"""Colours that can be told apart on white and on near-black; the background is transparent."""
INK: Final = "#6b7280"


class TrainingLogs:
    """The logs of one training run; a context manager.

    Args:
        run_dir: The run directory.
        episodes: Episodes up to the checkpoint; later lines are dropped.
        validations: Validations up to the checkpoint.

    Raises:
        UserError: tensorboardX is not installed.
        DataError: A file has fewer lines than that.
        StoreError: Something cannot be written.
    """

    def __init__(self, run_dir: Path, episodes: int, validations: int) -> None:
        require_extra()
        from tensorboardX import SummaryWriter

        self.records = read_records(run_dir / EPISODES)[:episodes]
        self.validations = read_json_lines(run_dir / VALIDATIONS, ValidationResult)[:validations]
        self._episodes = JsonLinesWriter(run_dir / EPISODES, episodes)
        self._validations = JsonLinesWriter(run_dir / VALIDATIONS, validations)
        board = run_dir / TENSORBOARD
        try:
            before = len(list(board.iterdir())) if board.is_dir() else 0
            # file names hold the second, and are read in order; `purge_step` hides the scalars that a killed process
            # left after the checkpoint
            self._board: Any = SummaryWriter(
                str(board), purge_step=episodes + 1 if episodes else None, filename_suffix=f".{before:05}"
            )
        except OSError as e:
            raise StoreError(f"cannot write {board}: {e.strerror}", hint="choose another --run-dir") from e
        self._recent: deque[EpisodeRecord] = deque(self.records[-WINDOW:], maxlen=WINDOW)

    def episode(self, record: EpisodeRecord, usage: TrainingUsage) -> None:
        """Log an episode with the usage so far.

        Raises:
            StoreError: It cannot be written.
        """
        self.records.append(record)
        self._recent.append(record)
        self._episodes.add(record)
        recent = self._recent
        scalars = {
            "episode/return": record.episode_return,
            "episode/correct": float(record.correct),
            "episode/length": record.length,
            "episode/tokens": record.tokens,
            f"mean_of_{WINDOW}/return": sum(r.episode_return for r in recent) / len(recent),
            f"mean_of_{WINDOW}/accuracy": sum(r.correct for r in recent) / len(recent),
            f"mean_of_{WINDOW}/length": sum(r.length for r in recent) / len(recent),
            "learning/epsilon": record.epsilon,
            "learning/rate": record.learning_rate,
            "learning/steps": record.steps,
            "usage/generated_tokens": usage.tokens,
            "usage/reused_completions": usage.reused_completions,
        }
        if record.loss is not None:
            scalars["learning/loss"] = record.loss
        if record.scores_requested:
            scalars["episode/missing_scores"] = record.scores_missing / record.scores_requested
        for name, value in scalars.items():
            self._board.add_scalar(name, value, record.episode)

    def validation(self, result: ValidationResult) -> None:
        """Log a validation.

        Raises:
            StoreError: It cannot be written.
        """
        self.validations.append(result)
        self._validations.add(result)
        for name in ("accuracy", "episode_return", "length", "missing", "tokens"):
            self._board.add_scalar(f"validation/{name}", getattr(result, name), result.episode)

    def flush(self) -> None:
        """Flush everything to the disk."""
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
            raise missing_package("training", package, "train") from e


def read_records(path: Path) -> list[EpisodeRecord]:
    """The episodes of a training run (see `read_json_lines`)."""
    return read_json_lines(path, EpisodeRecord)


def learning_curve(records: Sequence[EpisodeRecord], validations: Sequence[ValidationResult], title: str = "") -> str:
    """The learning curve of a training as SVG: the same text for the same training.

    The lines are moving means over `WINDOW` episodes. Accuracy and length are drawn one above the other, since a long
    chain is no good chain (see `EpisodeRecord.length`).

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
    above.plot(x, moving_mean([r.episode_return for r in records]), color=RETURN, label="return")
    middle.plot(x, moving_mean([float(r.length) for r in records]), color=LENGTH, label="blocks before the answer")
    below.plot(x, [r.epsilon for r in records], color=EPSILON, label="random actions (epsilon)")
    if validations:
        mark = {"color": VALIDATION, "marker": "o", "markersize": 4, "linewidth": 1}
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
    """The mean of each value and those before it, up to `window` in all, `[values]`."""
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
