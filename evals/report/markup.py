"""The small pieces that the HTML report is put together from: escaped text, tables, intervals, figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..statistics.intervals import Interval

MOST_FIGURES = 4
"""Most figures that are shown without being asked for."""
NOTHING = "\N{EN DASH}"
"""Stands in a cell that has no value."""
NOT_ESTIMABLE = "not estimable"


def text(plain: str) -> str:
    """Text as HTML writes it."""
    return escape(plain)


def number(cell: str, *, kind: str = "") -> str:
    """A cell with a number, or with what stands for one."""
    return f'<td class="num{f" {kind}" if kind else ""}">{cell}</td>'


def percent(value: float | None, missing: str = NOTHING) -> str:
    """A share in per cent."""
    return missing if value is None else f"{100 * value:.1f}"


def best_of(values: Iterable[float]) -> float | None:
    """The largest of several numbers, which is marked; None where all are equal."""
    different = set(values)
    return max(different) if len(different) > 1 else None


def interval(ends: Interval | None, *, signed: bool = False) -> str:
    """An interval in per cent."""
    if ends is None:
        return NOT_ESTIMABLE
    form = "+.1f" if signed else ".1f"
    return f"[{100 * ends.low:{form}}, {100 * ends.high:{form}}]"


def p_value(p: float) -> str:
    """A p-value; a very small one is not 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls sideways where the page is too narrow; the rows are HTML."""
    head = "".join(f"<th>{text(h)}</th>" for h in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """A drawing with what it shows; nothing where there is none."""
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>" if svg else ""


def figures(drawn: Sequence[str], title: str) -> str:
    """Figures side by side; many of them only when they are asked for."""
    shown = f'<div class="figures">{"".join(drawn)}</div>'
    return shown if len(drawn) <= MOST_FIGURES else f"<details><summary>{text(title)}</summary>{shown}</details>"
