"""The strategies of a sweep as TOML, and numbers as the tables of sweeps have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from reason.evals.statistics.intervals import bootstrap_means, percentiles


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
