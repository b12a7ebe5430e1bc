"""`traced_node`: a node of a search as its events tell it."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.events import SearchNode
from .search.tree import Node


def traced_node(node: Node, values: Mapping[str, float], text: str | None = None) -> SearchNode:
    """What events tell of a node.

    Args:
        node: The node.
        values: What the search orders its nodes by, under the names of its method.
        text: Its step as it is to be told; None is as the search has it.
    """
    return SearchNode(
        id=node.id,
        parent=node.parent,
        depth=node.depth,
        text=node.text if text is None else text,
        tokens=node.tokens,
        score=node.score,
        terminal=node.terminal,
        forced=node.forced,
        values=dict(values),
    )
