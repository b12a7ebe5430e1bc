"""`Outcomes`: the scores of one run, items by seeds, with what groups the items."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Outcomes:
    """Scores y[i, j] of item i under seed j.

    Attributes:
        ids: Name of each item.
        clusters: Group of each item, numbered from 0: items that share a source stand or fall together. Without groups
            every item is its own.
        scores: `[items, seeds]`, each in [0, 1] unless it is a margin; NaN where a run is incomplete. Every item has at
            least one score.
    """

    ids: tuple[str, ...]
    clusters: Index
    scores: Array

    @classmethod
    def of(
        cls,
        scores: Mapping[str, Mapping[Hashable, float]],
        clusters: Mapping[str, str] | None = None,
        *,
        bounded: bool = True,
    ) -> Outcomes:
        """Outcomes from scores by item and seed.

        Args:
            bounded: Whether a score must are in [0, 1]; a margin need not.

        Raises:
            UserError: There is no score at all, or one is outside [0, 1].
        """
        ids = tuple(scores)
        seeds = list(dict.fromkeys(seed for row in scores.values() for seed in row))
        if not ids or not seeds:
            raise UserError("there are no scores to summarise", hint="run some items first")
        table = np.full((len(ids), len(seeds)), np.nan)
        for i, name in enumerate(ids):
            for j, seed in enumerate(seeds):
                if seed in scores[name]:
                    table[i, j] = scores[name][seed]
        values = table[~np.isnan(table)]
        if bounded and values.size and (values.min() < 0 or values.max() > 1):
            raise UserError("a score lies outside [0, 1]")
        if np.isnan(table).all(axis=1).any():
            raise UserError("an item has no score")
        named = [("group", (clusters or {})[name]) if name in (clusters or {}) else ("item", name) for name in ids]
        return cls(ids, number_groups(named), table)

    @property
    def p(self) -> Array:
        """Mean score of each item over its seeds, `[items]`."""
        mean: Array = np.nanmean(self.scores, axis=1)
        return mean

    @property
    def seeds_per_item(self) -> Index:
        """Number of scores of each item, `[items]`."""
        return np.asarray((~np.isnan(self.scores)).sum(axis=1), dtype=np.intp)

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        values = self.scores[~np.isnan(self.scores)]
        return bool(np.isin(values, (0.0, 1.0)).all())

    @property
    def clustered(self) -> bool:
        """Whether some items share a group."""
        return int(self.clusters.max()) + 1 < len(self.ids)

    def only(self, ids: Sequence[str]) -> Outcomes:
        """The outcomes of the named items, in that order."""
        at = {name: i for i, name in enumerate(self.ids)}
        rows = [at[name] for name in ids]
        groups = number_groups([int(self.clusters[r]) for r in rows])
        return Outcomes(tuple(ids), groups, self.scores[rows])


def number_groups(names: Sequence[Hashable]) -> Index:
    """A number for each name, from 0 in order of first appearance; equal names get equal numbers."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.intp)
