"""The curves of `step_search_bench.py` as SVG, in colours that serve a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from reason.evals.report.plots import COLOURS
from step_curves import Curves
from step_tables import BEST, FILTER, PLAIN, SAMPLED, Key, chain_tokens

DRAWN = (BEST, SAMPLED, "beam", "DVTS", FILTER, *PLAIN)
INK = "#7a7f87"
"""For text and axes; it can be read on white and on near-black."""
WIDE, HIGH, GAP, LEFT, TOP = 150, 130, 14, 40, 52
LOW, MOST = 15.0, 100.0
"""Ends of the axis of accuracy, in per cent."""
ENDS = (0.9, 80.0)
"""Ends of the axis of tokens, in plain chains."""


def draw(settings: Mapping[Key, Curves]) -> str:
    """Accuracy against tokens: a row of panels for each depth, a column for each AUC."""
    depths = list(dict.fromkeys(key[0] for key in settings))
    aucs = list(dict.fromkeys(key[2] for key in settings))
    width = LEFT + len(aucs) * (WIDE + GAP)
    height = TOP + len(depths) * (HIGH + 2 * GAP + 8) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="10" fill="{INK}">',
        "<title>Accuracy against generated tokens of searches over steps and of sampling</title>",
        *_legend(),
    ]
    for (depth, _, auc), curves in settings.items():
        left = LEFT + aucs.index(auc) * (WIDE + GAP)
        top = TOP + depths.index(depth) * (HIGH + 2 * GAP + 8)
        parts.append(f'<g transform="translate({left} {top})">')
        parts += _axes(f"{depth} steps, AUC {auc}", numbered=auc == aucs[0])
        unit = chain_tokens(curves)
        for name, colour in zip(DRAWN, COLOURS, strict=False):
            means = zip(curves[name].tokens.mean(axis=0) / unit, 100 * curves[name].credit.mean(axis=0), strict=True)
            places = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in sorted(means) if x <= ENDS[1])
            parts.append(f'<polyline points="{places}" {_line(name, colour)}/>')
        parts.append("</g>")
    middle = LEFT + (width - LEFT) // 2
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">generated tokens, in plain chains</text>')
    parts.append(f'<text transform="translate(10 {height // 2}) rotate(-90)" text-anchor="middle">accuracy %</text>')
    return "\n".join([*parts, "</svg>\n"])


def _x(chains: float) -> float:
    return WIDE * math.log(chains / ENDS[0]) / math.log(ENDS[1] / ENDS[0])


def _y(accuracy: float) -> float:
    return HIGH * (MOST - accuracy) / (MOST - LOW)


def _line(name: str, colour: str) -> str:
    dashes = ' stroke-dasharray="4 2"' if name in (BEST, SAMPLED) else ""
    return f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"{dashes}'


def _legend() -> Iterable[str]:
    for i, (name, colour) in enumerate(zip(DRAWN, COLOURS, strict=False)):
        x, y = LEFT + 150 * (i % 4), 10 + 16 * (i // 4)
        yield f'<path d="M{x} {y}h18" {_line(name, colour)}/><text x="{x + 23}" y="{y + 3}">{escape(name)}</text>'


def _axes(title: str, *, numbered: bool) -> Iterable[str]:
    yield f'<text x="{WIDE / 2}" y="-4" text-anchor="middle">{escape(title)}</text>'
    for accuracy in (20, 40, 60, 80, 100):
        yield f'<path d="M0 {_y(accuracy):.1f}h{WIDE}" stroke="{INK}" stroke-opacity=".25"/>'
        if numbered:
            yield f'<text x="-4" y="{_y(accuracy) + 3:.1f}" text-anchor="end">{accuracy}</text>'
    for chains in (1, 4, 16, 64):
        yield f'<path d="M{_x(chains):.1f} {HIGH}v3" stroke="{INK}"/>'
        yield f'<text x="{_x(chains):.1f}" y="{HIGH + 13}" text-anchor="middle">{chains}</text>'
    yield f'<path d="M0 0V{HIGH}H{WIDE}" fill="none" stroke="{INK}"/>'
