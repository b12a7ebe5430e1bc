"""The metrics of a report as SVG text: accuracy against tokens, calibration, success rates, risk.

Matplotlib figures with CSS variables as colours, for light and dark pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ...core.extras import missing_package
from .content import RunSection

COLOURS = ("#4269d0", "#d9822b", "#3a9d5d", "#b5487a", "#8250c4", "#1f9ea3", "#9c6b4e", "#7a7f87")
"""Lines of methods: alike in lightness, on white and on near-black."""
INK = "#010203"
FAINT = "#040506"
"""Stand for the page's own colours while matplotlib draws; replaced by CSS variables afterwards."""


def accuracy_against_tokens(runs: Sequence[RunSection]) -> str:
    """Accuracy against generated tokens per item, a curve for each method, 95% intervals as bands; none for one run."""
    families = list(dict.fromkeys(r.family for r in runs))
    if len(runs) < 2 or not any(r.summary.cost.tokens > 0 for r in runs):
        return ""  # a strategy that generates nothing cannot be on this axis
    figure, axes = _figure(5.0, 3.1)
    for i, family in enumerate(families):
        colour = COLOURS[i % len(COLOURS)]
        members = sorted(
            (r for r in runs if r.family == family and r.summary.cost.tokens > 0), key=lambda r: r.summary.cost.tokens
        )
        if not members:
            continue
        x = [r.summary.cost.tokens for r in members]
        y = [100 * r.summary.accuracy.value for r in members]
        ends = [r.summary.accuracy.interval for r in members]
        low = [v if e is None else 100 * e.low for v, e in zip(y, ends, strict=True)]
        high = [v if e is None else 100 * e.high for v, e in zip(y, ends, strict=True)]
        if len(members) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        else:
            axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=2)
        axes.plot(x, y, color=colour, marker="o", markersize=5, linewidth=1.8, label=family)
    axes.set_xscale("log")
    axes.set_xlabel("generated tokens per item (log scale)")
    axes.set_ylabel("accuracy %")
    columns = 2 if max(map(len, families)) < 40 else 1
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=8, labelcolor=INK)
    return _svg(figure)


def calibration_diagram(run: RunSection) -> str:
    """Accuracy against stated confidence in ten bins, with the number of answers in each; empty without confidences."""
    result = run.summary.calibration
    if result is None:
        return ""
    figure, axes = _figure(3.4, 3.1)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    most = max(b.count for b in result.bins)
    for b in result.bins:
        axes.bar((b.low + b.high) / 2, b.accuracy, width=0.085, color=COLOURS[0], alpha=0.25 + 0.65 * b.count / most)
        axes.plot([b.confidence], [b.accuracy], marker="o", markersize=4, color=COLOURS[1], clip_on=False, zorder=3)
        axes.annotate(
            f"{b.count:.0f}",
            ((b.low + b.high) / 2, b.accuracy),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("stated confidence")
    axes.set_ylabel("share right")
    return _svg(figure)


def risk_coverage_diagram(run: RunSection) -> str:
    """Error among the most confident answers against their share; empty without confidences."""
    if not run.risk_coverage:
        return ""
    figure, axes = _figure(3.4, 3.1)
    points = run.risk_coverage
    axes.step(
        [0.0, *(p.coverage for p in points)], [points[0].risk, *(p.risk for p in points)], where="pre", color=COLOURS[0]
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("share of answers kept, most confident first")
    axes.set_ylabel("share wrong among them")
    return _svg(figure)


def success_rates(run: RunSection) -> str:
    """How many items are right under how many of the seeds; empty with one seed, where it states nothing new."""
    spread = run.summary.spread
    if spread.seeds < 2:
        return ""
    figure, axes = _figure(3.4, 2.4)
    axes.bar([i / 10 + 0.05 for i in range(10)], spread.histogram, width=0.088, color=COLOURS[0])
    axes.set_xlim(0, 1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("share of seeds that are right")
    axes.set_ylabel("items")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as e:
        raise missing_package("a report with figures", e.name, "eval") from e
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, which="both", labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)
    axes.grid(visible=True, axis="y", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as SVG with colours and size of the page; the same text for the same figure."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reason", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    text = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", text)
    return re.sub(
        r'<svg([^>]*?) width="[^"]*"', r"<svg\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
