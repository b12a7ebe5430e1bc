"""`held_back` and `unseen`: claims that the embedded judge was not trained on, by the rule of its own training.

The rule is `evals/entailment/sides.py`: SHA-256 of the claim's words, all claims of a contrast group on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ...core.errors import UserError
from ..entailment.cases import Case, normal
from ..entailment.sides import HELD, sides_of
from ..entailment.sources import TRAINABLE
from ..navigator.problems import is_held_out
from .rows import ClaimRow

FOLDS: Final = 5
_CONTRASTED: Final = ("vitaminc",)
"""Datasets whose groups the training keeps on one side."""


def held_back(claim: str, share: float = HELD) -> bool:
    """Whether a claim that belongs to no contrast group is kept back from training.

    Args:
        claim: The claim.
        share: Share of all claims that is; a larger one only adds to them.
    """
    return is_held_out(hashlib.sha256(normal(claim).encode()).hexdigest(), share)


def unseen(rows: Sequence[ClaimRow], share: float = HELD, beside: Sequence[ClaimRow] = ()) -> list[ClaimRow]:
    """The rows that the judge was not trained on, in order; all of those of datasets that are never trained on.

    Args:
        rows: Claims.
        share: Share that the training kept back.
        beside: Claims of other datasets that it was given too: a contrast group takes all that have its claims along.

    Raises:
        UserError: None of the rows is unseen.
    """
    together = [row for row in (*rows, *beside) if row.source in TRAINABLE]
    cases = [
        Case(
            source=row.source,
            name=str(i),
            claim=row.claim,
            label="neutral",  # the sides do not depend on labels
            case=row.group if row.source in _CONTRASTED else "",
        )
        for i, row in enumerate(together)
    ]
    held = {together[int(case.name)] for case in sides_of(cases, held=share).held}
    found = [row for row in rows if row.source not in TRAINABLE or row in held]
    if not found:
        raise UserError(f"none of {len(rows)} claims is kept back from training", hint="give more claims")
    return found


def fold_of(group: str, folds: int = FOLDS) -> int:
    """The part, from 0, that claims of a group are measured in; it does not depend on what is kept back."""
    return int.from_bytes(hashlib.sha256(f"fold\x1f{group}".encode()).digest()[:8], "big") % folds
