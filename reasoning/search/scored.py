"""Prefixes that compete by their score alone, as in beam search and diverse verifier tree search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .siblings import UNKNOWN, filled
from .tree import Node


@dataclass(slots=True)
class Scored(Node):
    """A prefix with the score that it competes by.

    Attributes:
        value: Its score, or what stands for a missing one (`siblings.filled`); in [0, 1], `UNKNOWN` at the root.
    """

    value: float = UNKNOWN


def set_values(siblings: Sequence[Scored], parent: Scored) -> None:
    """Give new siblings their values."""
    for child, value in zip(siblings, filled(siblings, parent.value if parent.depth else None), strict=True):
        child.value = value


def by_value(nodes: Iterable[Scored]) -> list[Scored]:
    """The best first; of equals the older one."""
    return sorted(nodes, key=lambda node: (-node.value, node.id))
