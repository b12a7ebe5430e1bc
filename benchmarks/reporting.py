"""Shared by the benchmarks: the machine, sweeps as TOML, and Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from reason.evals.statistics.intervals import bootstrap_means, percentiles


def processor() -> str:
    """The processor's name, if Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def made_here() -> str:
    """A sentence for a table's head: processor, cores, version of reason and date."""
    return (
        f"{processor()}, {os.cpu_count()} cores, reason {version('reason-orchestrator')}, {datetime.now(UTC):%Y-%m-%d}."
    )


def strategy_blocks(methods: Sequence[tuple[str, Mapping[str, object]]]) -> list[str]:
    """A block for each method, its parameters as they stand in TOML."""
    blocks = []
    for name, settings in methods:
        body = "\n".join(f"{key} = {value}" for key, value in settings.items())
        blocks.append(f'[[strategy]]\nname = "{name}"\n[strategy.parameters]\n{body}\n')
    return blocks


def share(values: Sequence[float]) -> str:
    """A mean in per cent with its interval over questions."""
    array = np.array(values)
    low, high = percentiles(bootstrap_means(array, np.arange(len(array))))
    return f"{100 * array.mean():.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def p_value(p: float) -> str:
    """A p-value as short as it may be."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, aligned, *rows))
