"""Every method on every dataset, a table for each budget: what many runs say at one look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...core.budget import Budget
from ...core.messages import Frozen
from ..comparison import StoredRun
from ..evaluation import label_of
from ..plan import EvalPlan
from ..statistics.intervals import Interval
from ..summary import Summary

COSTS = ("tokens", "prompt tokens", "calls", "median s", "USD", "ended by the budget %")
"""What `costs` tells."""


class GridCell(Frozen):
    """A run in a grid.

    Attributes:
        accuracy: Of the main score, in [0, 1].
        interval: Its 95% interval; None if not estimable.
        items: Items that were asked.
        tokens: Generated tokens of an item.
        prompt_tokens: Prompt tokens of an item.
        calls: Model calls of an item.
        seconds: Median seconds of an item; None where the run store answered.
        usd: US dollars that an item cost; None if a price is unknown.
        cut: Share of the rows that the budget stopped, in [0, 1].
    """

    accuracy: float
    interval: Interval | None
    items: int
    tokens: float
    prompt_tokens: float
    calls: float
    seconds: float | None
    usd: float | None
    cut: float


class GridRow(Frozen):
    """A method: its cell for each of the grid's datasets, None where it was not run."""

    method: str
    cells: tuple[GridCell | None, ...]

    @property
    def ran(self) -> Iterator[GridCell]:
        """The cells that there are."""
        return (cell for cell in self.cells if cell is not None)


class Grid(Frozen):
    """All methods under one budget."""

    budget: str
    datasets: tuple[str, ...]
    rows: tuple[GridRow, ...]


def grids_of(runs: Sequence[StoredRun], summaries: Sequence[Summary]) -> tuple[Grid, ...]:
    """A grid for each budget, as the runs come; none where all runs are on one dataset.

    A method is a strategy with the number of its samples, its verifiers and, where they differ, its main model. Of two
    runs that share even these, the later one takes a row of its own under its number.

    Args:
        runs: The runs.
        summaries: Their numbers.
    """
    plans = [run.manifest.plan for run in runs]
    datasets = tuple(dict.fromkeys(plan.dataset.whole_name for plan in plans))
    if len(datasets) < 2:
        return ()
    many = len({plan.models.get("main") for plan in plans}) > 1
    found: dict[str, dict[str, dict[str, GridCell]]] = {}
    for plan, summary in zip(plans, summaries, strict=True):
        methods = found.setdefault(shown(plan.budget), {})
        first, number = _method(plan, named=many), 1
        name = first
        while plan.dataset.whole_name in methods.setdefault(name, {}):
            number += 1
            name = f"{first} ({number})"
        methods[name][plan.dataset.whole_name] = _cell(summary)
    return tuple(
        Grid(
            budget=budget,
            datasets=datasets,
            rows=tuple(
                GridRow(method=name, cells=tuple(cells.get(data) for data in datasets))
                for name, cells in methods.items()
            ),
        )
        for budget, methods in found.items()
    )


def shown(budget: Budget) -> str:
    """A budget in words."""
    limits = budget.model_dump(exclude_none=True)
    units = {"usd": "US dollars", "reward_calls": "reward calls"}
    return " and ".join(f"{value:,g} {units.get(kind, kind)}" for kind, value in limits.items()) or "no limit"


def _method(plan: EvalPlan, *, named: bool) -> str:
    label = label_of(plan.model_copy(update={"budget": Budget()}))
    return f"{label}, {plan.models['main'].rpartition('/')[2]}" if named else label


def _cell(summary: Summary) -> GridCell:
    cost = summary.cost
    return GridCell(
        accuracy=summary.accuracy.value,
        interval=summary.accuracy.interval,
        items=summary.items,
        tokens=cost.tokens,
        prompt_tokens=cost.prompt_tokens,
        calls=cost.calls,
        seconds=None if summary.latency is None else summary.latency.p50,
        usd=None if cost.usd is None else cost.usd / summary.rows,
        cut=summary.out_of_budget / summary.rows,
    )


def costs(row: GridRow) -> tuple[str, ...]:
    """What a question took of a method, as texts in the order of `COSTS`: means over its datasets."""
    cells = list(row.ran)

    def mean(values: Sequence[float | None], form: str) -> str:
        known = [value for value in values if value is not None]
        return format(sum(known) / len(known), form) if known and len(known) == len(values) else "-"

    return (
        mean([cell.tokens for cell in cells], ",.0f"),
        mean([cell.prompt_tokens for cell in cells], ",.0f"),
        mean([cell.calls for cell in cells], ".1f"),
        mean([cell.seconds for cell in cells], ".1f"),
        mean([cell.usd for cell in cells], ".4f"),
        mean([100 * cell.cut for cell in cells], ".0f"),
    )
