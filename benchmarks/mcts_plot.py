"""The curves of `mcts_regret.py` as SVG, in colours that serve a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mcts_players import ADAPTIVE, EIGHT, PUCT, STANDARD, UCT
from reason.evals.report.plots import COLOURS

DRAWN = (UCT, PUCT, EIGHT, STANDARD, ADAPTIVE)
INK = "#7a7f87"
"""For text and axes; it can be read on white and on near-black."""
WIDE, HIGH, GAP, LEFT, TOP = 190, 120, 42, 30, 56
ENDS = (18.0, 1800.0)
"""Ends of the axis of expansions."""


@dataclass(frozen=True)
class Panel:
    """One quantity over expansions: its title, its largest value, its ticks, and each search's means by expansions."""

    title: str
    most: float
    ticks: Sequence[float]
    curves: Mapping[str, Mapping[int, float]]


def draw(rows: Sequence[Sequence[Panel]], other: Mapping[int, float]) -> str:
    """Rows of panels.

    Args:
        rows: The panels of each kind of scores.
        other: Depths of a search that was measured elsewhere, by expansions; drawn dashed into the last panel of a row.
    """
    width, height = LEFT + len(rows[0]) * (WIDE + GAP), TOP + len(rows) * (HIGH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 8}" '
        f'font-family="system-ui, sans-serif" font-size="10" fill="{INK}">',
        "<title>Regret, visits of the best branch, and depth against expansions</title>",
        *_legend(),
    ]
    for down, row in enumerate(rows):
        for right, panel in enumerate(row):
            parts.append(f'<g transform="translate({LEFT + right * (WIDE + GAP)} {TOP + down * (HIGH + GAP)})">')
            parts += _axes(panel)
            for name, colour in zip(DRAWN, COLOURS, strict=False):
                if name in panel.curves:
                    parts.append(f'<path d="{_curve(panel.curves[name], panel)}" {_line(colour)}/>')
            if right == len(row) - 1:
                parts.append(f'<path d="{_curve(other, panel)}" {_line(INK)} stroke-dasharray="3 3"/>')
            parts.append("</g>")
    parts.append(f'<text x="{width // 2}" y="{height + 2}" text-anchor="middle">expansions</text>')
    return "\n".join([*parts, "</svg>\n"])


def _curve(points: Mapping[int, float], panel: Panel) -> str:
    places = [f"{_x(n):.1f} {HIGH * (1 - y / panel.most):.1f}" for n, y in points.items() if n >= ENDS[0]]
    return "M" + "L".join(places)


def _x(expansions: float) -> float:
    return WIDE * math.log(expansions / ENDS[0]) / math.log(ENDS[1] / ENDS[0])


def _line(colour: str) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"'


def _legend() -> Iterable[str]:
    for i, (name, colour) in enumerate(zip((*DRAWN, "OptiLLM, depth"), (*COLOURS[: len(DRAWN)], INK), strict=True)):
        x, y = LEFT + 200 * (i % 3), 10 + 16 * (i // 3)
        dashes = "" if i < len(DRAWN) else ' stroke-dasharray="3 3"'
        yield f'<path d="M{x} {y}h18" {_line(colour)}{dashes}/><text x="{x + 23}" y="{y + 3}">{escape(name)}</text>'


def _axes(panel: Panel) -> Iterable[str]:
    yield f'<text x="{WIDE / 2}" y="-4" text-anchor="middle">{escape(panel.title)}</text>'
    for tick in panel.ticks:
        y = HIGH * (1 - tick / panel.most)
        yield f'<path d="M0 {y:.1f}h{WIDE}" stroke="{INK}" stroke-opacity=".25"/>'
        yield f'<text x="-4" y="{y + 3:.1f}" text-anchor="end">{tick:g}</text>'
    for n in (20, 100, 400, 1600):
        yield f'<path d="M{_x(n):.1f} {HIGH}v3" stroke="{INK}"/>'
        yield f'<text x="{_x(n):.1f}" y="{HIGH + 13}" text-anchor="middle">{n}</text>'
    yield f'<path d="M0 0V{HIGH}H{WIDE}" fill="none" stroke="{INK}"/>'
