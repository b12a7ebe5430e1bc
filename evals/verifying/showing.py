"""How well what is shown, and what a verdict names, meets what is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...verify.calibration.evidence_scores import Attribution, attribution, evidence_recall, mean_attribution
from .methods import Told
from .rows import ClaimRow


class Recall(NamedTuple):
    """How often the right passages are among the first k.

    Attributes:
        enough: Share of claims of which a sufficient set is whole among them; None if no claim has a set.
        any: Share of claims of which some right passage is; None if no claim has one.
        sets: Claims with a sufficient set.
        claims: Claims with a right passage.
    """

    enough: float | None
    any: float | None
    sets: int
    claims: int


def recall_at(rows: Sequence[ClaimRow], k: int) -> Recall:
    """Evidence recall among the first k passages; claims without right passages are skipped.

    Passages that have the text of a right one count as it: a corpus may hold a sentence twice.
    """
    enough, some = [], []
    for row in rows:
        seen = named_ids(row, [p.id for p in (row.passages or ())[:k]])
        found = evidence_recall(seen, row.sets)
        if found is not None:
            enough.append(found)
        if row.right:
            some.append(float(bool(seen & row.right_ids)))
    return Recall(_mean(enough), _mean(some), len(enough), len(some))


def attributed(rows: Sequence[ClaimRow], told: Sequence[Told]) -> tuple[Attribution | None, int]:
    """Means of precision, recall and F1 of what verdicts name, over claims with right passages; and how many.

    A verdict of "neutral" names nothing and has 0 in all three.
    """
    return mean_attribution(
        attribution(named_ids(row, one.named), row.right_ids) for row, one in zip(rows, told, strict=True)
    )


def named_ids(row: ClaimRow, ids: Sequence[str]) -> set[str]:
    """Ids of shown passages, those of the text of a right passage by its id."""
    by_text = {p.text: p.id for p in row.right}
    right = row.right_ids
    own = {p.id: p.id if p.id in right else by_text.get(p.text, p.id) for p in row.passages or ()}
    return {own.get(name, name) for name in ids}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
