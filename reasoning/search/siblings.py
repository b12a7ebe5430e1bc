"""Continuations of one prefix beside each other: which say the same, and what stands for a missing score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..step_text import normal_step
from .tree import Continuation, Node

UNKNOWN = 0.5
"""Score of a step about which nothing is known."""


Said = tuple[str, bool]
"""What siblings are compared by: the normal form of the step, and whether the solution is complete with it."""


def said(step: Continuation | Node) -> Said:
    """What a step is compared by."""
    return normal_step(step.text), step.terminal


def survivors(
    results: Sequence[Continuation], *, at_root: bool = False, distinct: bool = True, before: Iterable[Said] = ()
) -> list[int]:
    """Positions of the continuations that become nodes; the others need no score.

    Dropped are duplicates, of which the first stays, and those that add nothing.

    Differs: the end of the text is part of what is compared, since a complete solution is not the same state as an
    incomplete one of the same words. And an empty continuation that ends the text is kept, except at the root: it says
    that the prefix is a complete solution, which dropping it would lose.

    Args:
        results: All continuations of one prefix.
        at_root: Whether that prefix is empty.
        distinct: Whether duplicates are dropped at all.
        before: What earlier continuations of the prefix say.
    """
    kept: list[int] = []
    seen = set(before)
    for i, step in enumerate(results):
        if step.blank and (at_root or not step.terminal):
            continue
        key = said(step)
        if distinct and key in seen:
            continue
        seen.add(key)
        kept.append(i)
    return kept


def filled(siblings: Sequence[Node], before: float | None) -> list[float]:
    """The scores of siblings, with something in place of the missing ones.

    A step that adds nothing has the score of the prefix, which it does not change; any other the mean of its siblings'
    scores, else the prefix's, else `UNKNOWN`.

    Args:
        siblings: Continuations of one prefix.
        before: What counts as the prefix's score; None for a root.
    """
    known = [node.score for node in siblings if node.score is not None]
    other = math.fsum(known) / len(known) if known else UNKNOWN if before is None else before
    return [
        node.score if node.score is not None else before if before is not None and not node.text.strip() else other
        for node in siblings
    ]
