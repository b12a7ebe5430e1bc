"""What a run spent, as the cells of a table; the viewer has the same columns."""

from __future__ import annotations

from ..core.answer import RoleUsage, RunUsage

USAGE_HEADS = ("calls", "prompt", "cached", "generated", "from store", "USD", "working")
"""Headings of the cells. "cached" are the prompt tokens whose keys and values were reused."""


def usage_cells(row: RoleUsage | RunUsage) -> tuple[str, ...]:
    """A role's usage, or the whole run's, under `USAGE_HEADS`; the run's time is that of the clock."""
    return (
        f"{row.model_calls:,}",
        f"{row.prompt_tokens:,}",
        f"{row.cached_tokens:,}",
        f"{row.completion_tokens:,}",
        f"{row.replayed_tokens:,}",
        "?" if row.cost_usd is None else f"{row.cost_usd:.4f}",
        f"{row.working_s:.1f} s" if isinstance(row, RoleUsage) else f"{row.wall_seconds:.1f} s wall",
    )
