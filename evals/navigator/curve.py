"""The learning curve of a training as one SVG: rewards and accuracy, the chains' length, how much is explored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..statistics.outcomes import Array
from .logs import WINDOW, require_extra
from .records import EpisodeRecord, Validation

ACCURACY, EARNED, LENGTH, EPSILON, HELD_OUT = "#3a9d5d", "#4269d0", "#d9822b", "#7a7f87", "#b5487a"
"""Colours that can be told apart on white and on near-black; the page behind is left as it is."""
INK = "#6b7280"


def learning_curve(records: Sequence[EpisodeRecord], validations: Sequence[Validation], title: str = "") -> str:
    """Draw a training.

    The lines are means over the last `WINDOW` episodes, or as many as there are; a long chain is no good chain (see
    `EpisodeRecord.length`), so the two stand beside each other.

    Args:
        records: Its episodes, in order.
        validations: Its validations.
        title: What stands above.

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
        mark = {"color": HELD_OUT, "marker": "o", "markersize": 4, "linewidth": 1}
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
    """The mean of each value and those before it, of at most `window` in all; as many means as values."""
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
