"""Batches of pairs of like length; pairs of one contrast group stay together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from ...verify.entailment.embedded_tokens import Row

_WIDEN = 0.15
"""How far lengths are blurred before sorting, so that a group has other neighbours in another epoch."""


def batches(rows: Sequence[Row], groups: Sequence[str], size: int, rng: random.Random) -> list[list[int]]:
    """Places of the rows, batch by batch, in random order.

    Args:
        rows: The pairs as tokens.
        groups: Group of each; equal ones go into one batch where they fit.
        size: Pairs of a batch; a batch may exceed it by what keeps its last group whole.
        rng: Draws the order.
    """
    order = sorted(range(len(rows)), key=lambda i: groups[i])
    units = [list(unit) for _, unit in groupby(order, key=lambda i: groups[i])]
    units = [unit[at : at + size] for unit in units for at in range(0, len(unit), size)]
    lengths = [max(len(rows[i].ids) for i in unit) * (1 + _WIDEN * rng.random()) for unit in units]
    found: list[list[int]] = [[]]
    for _, unit in sorted(zip(lengths, units, strict=True), key=lambda pair: (pair[0], pair[1])):
        if len(found[-1]) >= size:
            found.append([])
        found[-1].extend(unit)
    kept = [batch for batch in found if batch]
    rng.shuffle(kept)
    return kept
