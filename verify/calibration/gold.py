"""`Gold`: the label a claim has in data, and how the labels of its sentences make it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from ...core.errors import DataError
from ..support import Label

Gold = Literal["supports", "refutes", "neutral", "disputed"]
"""A relation of the evidence to a claim, or "disputed": some of it supports the claim and some refutes it."""

_NAMES: Final[dict[str, Gold]] = {
    "supports": "supports",
    "supported": "supports",
    "refutes": "refutes",
    "refuted": "refutes",
    "neutral": "neutral",
    "nei": "neutral",
    "not enough info": "neutral",
    "not enough evidence": "neutral",
    "disputed": "disputed",
}


def gold_of(name: str) -> Gold:
    """The label that a data set writes by this name, whatever its case and whether blanks are underscores.

    Raises:
        DataError: It is none of them.
    """
    found = _NAMES.get(" ".join(name.casefold().replace("_", " ").split()))
    if found is None:
        raise DataError(f"{name[:60]!r} is no label of a claim", hint="SUPPORTS, REFUTES, NOT ENOUGH INFO or DISPUTED")
    return found


def overall(labels: Iterable[Label]) -> Gold:
    """A claim's label by those of its sentences: one sentence on a side is enough, and one on each side is a dispute.

    Source: Diggelmann et al. 2020, "CLIMATE-FEVER", arXiv:2012.00614, section 3; it holds for all of that data.

    Args:
        labels: What each sentence says; none at all are "neutral".
    """
    found = set(labels)
    if "supports" in found:
        return "disputed" if "refutes" in found else "supports"
    return "refutes" if "refutes" in found else "neutral"
