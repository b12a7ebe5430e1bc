"""A reliability diagram without a drawing library: lines for a terminal, and a self-contained SVG.

What is drawn is the share of right answers in each bin of stated confidence; on the diagonal the two are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from .scores import Bin

WIDTH: Final = 40
"""Characters of a full bar in the terminal."""
SIDE: Final = 240
"""Side of the SVG's square, in its units."""
MARGIN: Final = 40
_LONGEST_TITLE: Final = 200


def reliability_lines(bins: Sequence[Bin], title: str = "") -> list[str]:
    """One line a bin: its range, how many, stated and reached share, and a bar of the latter with `|` at the stated.

    Args:
        bins: The bins that hold anything.
        title: Printed above; control characters in it are left out.

    Returns:
        The lines, without line ends.
    """
    lines = [_plain(title)] if title else []
    if not bins:
        return [*lines, "no verdicts"]
    wide = len(str(max(b.verdicts for b in bins)))
    lines.append(f"{'confidence':<12}  {'n':>{wide}}  stated  right")
    for b in bins:
        bar = ["#" if i < round(b.accuracy * WIDTH) else " " for i in range(WIDTH + 1)]
        bar[round(b.confidence * WIDTH)] = "|"
        drawn = "".join(bar).rstrip()
        lines.append(
            f"({b.low:.2f}, {b.high:.2f}]  {b.verdicts:>{wide}}  {b.confidence:6.3f}  {b.accuracy:.3f}  {drawn}"
        )
    return lines


def reliability_svg(bins: Sequence[Bin], title: str = "reliability") -> str:
    """The diagram as an SVG of its own: no scripts, no fonts, no references; all text escaped.

    The bars are filled the more, the more verdicts they stand for; a dot marks the mean stated confidence.

    Args:
        bins: The bins that hold anything.
        title: Its name, drawn above and read out by screen readers.
    """
    whole = SIDE + 2 * MARGIN
    named = escape(_plain(title))
    most = max((b.verdicts for b in bins), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {whole}" role="img" '
        f'font-family="sans-serif" font-size="10" fill="currentColor">',
        f"<title>{named}</title>",
        f'<text x="{whole // 2}" y="{MARGIN // 2}" text-anchor="middle" font-size="12">{named}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.4"/>',
    ]
    for b in bins:
        x, y = _x(b.low), _y(b.accuracy)
        parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{_x(b.high) - x:.2f}" height="{_y(0) - y:.2f}" fill="#4269d0" '
            f'fill-opacity="{0.25 + 0.65 * b.verdicts / most:.3f}">'
            f"<title>{b.verdicts} verdicts, stated {b.confidence:.3f}, right {b.accuracy:.3f}</title></rect>"
        )
        parts.append(f'<text x="{(x + _x(b.high)) / 2:.2f}" y="{y - 3:.2f}" text-anchor="middle">{b.verdicts}</text>')
    parts.append(
        f'<line x1="{_x(0):.2f}" y1="{_y(0):.2f}" x2="{_x(1):.2f}" y2="{_y(1):.2f}" stroke="currentColor" '
        f'stroke-opacity="0.6" stroke-dasharray="4 3"/>'
    )
    parts += [f'<circle cx="{_x(b.confidence):.2f}" cy="{_y(b.accuracy):.2f}" r="3" fill="#d9822b"/>' for b in bins]
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{_x(tick):.2f}" y="{_y(0) + 13:.2f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{_x(0) - 5:.2f}" y="{_y(tick) + 3:.2f}" text-anchor="end">{tick:g}</text>')
    middle = MARGIN + SIDE / 2
    parts += [
        f'<text x="{middle:.2f}" y="{whole - 8}" text-anchor="middle">stated confidence</text>',
        f'<text x="12" y="{middle:.2f}" text-anchor="middle" transform="rotate(-90 12 {middle:.2f})">'
        "share right</text>",
        "</svg>",
    ]
    return "".join(parts)


def _x(value: float) -> float:
    return MARGIN + SIDE * value


def _y(value: float) -> float:
    return MARGIN + SIDE * (1 - value)


def _plain(title: str) -> str:
    """A title on one line, without what terminals obey and XML forbids."""
    return "".join(c for c in title[:_LONGEST_TITLE] if c.isprintable())
