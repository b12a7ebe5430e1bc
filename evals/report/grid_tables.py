"""A grid of methods and datasets in the HTML report."""

from __future__ import annotations

from .grid import COSTS, Grid, GridCell, costs
from .markup import NOTHING, best_of, interval, number, percent, table, text


def grid_tables(grid: Grid) -> str:
    """A grid: what was right, then what it took; the best of each dataset in bold."""
    best = [best_of(c.accuracy for c in column if c is not None) for column in _columns(grid)]
    rows = [
        f"<tr><td>{text(row.method)}</td>"
        + "".join(_cell(cell, top) for cell, top in zip(row.cells, best, strict=True))
        + "</tr>"
        for row in grid.rows
    ]
    taken = [f"<tr><td>{text(row.method)}</td>{''.join(map(number, costs(row)))}</tr>" for row in grid.rows]
    return (
        f"<h2>All methods, {text(grid.budget)} a question</h2>"
        '<p class="soft">Accuracy % with its 95% interval, and generated tokens a question.</p>'
        + table(("method", *grid.datasets), rows)
        + "<details><summary>What a question took, the mean over its datasets</summary>"
        + table(("method", *COSTS), taken)
        + "</details>"
    )


def _columns(grid: Grid) -> list[list[GridCell | None]]:
    return [[row.cells[i] for row in grid.rows] for i in range(len(grid.datasets))]


def _cell(cell: GridCell | None, best: float | None) -> str:
    if cell is None:
        return number(NOTHING)
    said = f'{percent(cell.accuracy)} <span class="soft">{interval(cell.interval)} · {cell.tokens:,.0f}</span>'
    return number(said, kind="best" if cell.accuracy == best else "")
