"""An answer beside the right ones of a mathematical question."""

from __future__ import annotations

from collections.abc import Sequence

from ...reasoning.equivalence import Comparison, Equivalence
from ..items import MathGold


async def compare_with_gold(answer: str | None, gold: MathGold, equivalence: Equivalence) -> list[Comparison]:
    """The comparisons with what is right, up to the first that says "same"; none without an answer.

    Args:
        answer: The answer; None is none.
        gold: What is right; its forms are tried one after the other.
        equivalence: Compares.
    """
    compared: list[Comparison] = []
    if answer is not None:
        for right in (gold.answer, *gold.equivalents):
            compared.append(await equivalence.compare(answer, right, gold.kind))
            if is_same(compared):
                break
    return compared


def is_same(compared: Sequence[Comparison]) -> bool:
    """Whether the comparisons ended with "same"; what algebra cannot decide is not."""
    return bool(compared) and compared[-1].verdict == "same"
