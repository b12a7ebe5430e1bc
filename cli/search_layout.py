"""Where the nodes of a search tree lie: a layer a step, parents centred over their children, as narrow as can be.

Source: Buchheim, Jünger, Leipert, "Improving Walker's Algorithm to Run in Linear Time" (Graph Drawing 2002). A subtree
is laid out alone and pushed to the right of its elder siblings until its left outline clears their right one by a unit.
Threads lead along outlines of unequal height, so that each piece of outline is walked once; where a subtree is pushed,
the smaller ones between it and the one it touched are spread. Two passes, bottom-up and top-down, both without
recursion. The roots are children of one more node, which is not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..core.search_tree import SearchTree

_TOP = -1
"""Place of the node above the roots. Lists are indexed by place, so it is their last."""


class Spot(NamedTuple):
    """Where a node lies.

    Attributes:
        x: From the left, in distances between neighbours; 0 is the leftmost node of all.
        layer: Distance from its root.
    """

    x: float
    layer: int


def tidy(tree: SearchTree) -> dict[int, Spot]:
    """The spot of each node; those of one layer are at least 1 apart."""
    order = list(tree.walk())
    if not order:
        return {}
    places = {node_id: place for place, (node_id, _) in enumerate(order)}
    below = [[places[child] for child in tree.children.get(node_id, ())] for node_id, _ in order]
    below.append([places[root] for root in tree.roots])
    offsets = _Sheet(below).offsets()
    left = min(offsets)
    return {node_id: Spot(x - left, layer) for (node_id, layer), x in zip(order, offsets, strict=True)}


def extent(spots: Mapping[int, Spot]) -> tuple[float, int]:
    """Distance between the leftmost and the rightmost node, and between the first and the last layer."""
    across = max((spot.x for spot in spots.values()), default=0.0)
    return across, max((spot.layer for spot in spots.values()), default=0)


class _Sheet:
    """The nodes by place, a node before its children; and what the first pass has found of each.

    Attributes:
        below: Children of each.
        above: Parent of each.
        nth: Each one's number among its siblings.
        at: x, relative to the parent's frame.
        push: What is added to the whole subtree below a node.
        shift, change: Pushes still to be spread over the siblings to the left, and how they change along them.
        thread: Where an outline goes on below its last node.
        moved_with: The sibling whose subtree a node of an outline belongs to, for those touched last.
    """

    def __init__(self, below: list[list[int]]) -> None:
        n = len(below)
        self.below = below
        self.above = [_TOP] * n
        self.nth = [0] * n
        for place, children in enumerate(below):
            for nth, child in enumerate(children):
                self.above[child], self.nth[child] = place if place < n - 1 else _TOP, nth
        self.at = [0.0] * n
        self.push = [0.0] * n
        self.shift = [0.0] * n
        self.change = [0.0] * n
        self.thread: list[int | None] = [None] * n
        self.moved_with = list(range(n))

    def offsets(self) -> list[float]:
        """The x of each node but the one above the roots."""
        n = len(self.below) - 1
        for place in range(n - 1, -1, -1):  # children before their parents
            self._arrange(self.below[place])
        self._arrange(self.below[_TOP])
        found = [0.0] * n
        inherited = [0.0] * n
        for place in range(n):
            found[place] = self.at[place] + inherited[place]
            for child in self.below[place]:
                inherited[child] = inherited[place] + self.push[place]
        return found

    def _arrange(self, siblings: list[int]) -> None:
        """Set siblings, whose subtrees are laid out, side by side."""
        touched_last = siblings[0] if siblings else _TOP
        for nth, place in enumerate(siblings):
            children = self.below[place]
            middle = (self.at[children[0]] + self.at[children[-1]]) / 2 if children else 0.0
            if nth == 0:
                self.at[place] = middle
                continue
            self.at[place] = self.at[siblings[nth - 1]] + 1
            if children:
                self.push[place] = self.at[place] - middle
            touched_last = self._clear(place, siblings, touched_last)
        shift = change = 0.0
        for place in reversed(siblings):
            self.at[place] += shift
            self.push[place] += shift
            change += self.change[place]
            shift += self.shift[place] + change

    def _clear(self, place: int, siblings: list[int], touched_last: int) -> int:
        """Push a subtree to the right until it clears its elder siblings; returns the one touched last."""
        elder = siblings[self.nth[place] - 1]
        inner_right, inner_left, outer_left, outer_right = elder, place, siblings[0], place
        # what the frames along the four outlines add up to
        sum_ir, sum_il, sum_ol, sum_or = (self.push[i] for i in (inner_right, inner_left, outer_left, outer_right))
        while True:
            next_right, next_left = self._rightmost(inner_right), self._leftmost(inner_left)
            if next_right is None or next_left is None:
                break
            inner_right, inner_left = next_right, next_left
            outer_left, outer_right = self._beneath(outer_left, left=True), self._beneath(outer_right, left=False)
            self.moved_with[outer_right] = place
            lacking = self.at[inner_right] + sum_ir - self.at[inner_left] - sum_il + 1
            if lacking > 0:
                touched = self.moved_with[inner_right]
                if self.above[touched] != self.above[place]:
                    touched = touched_last
                self._move(touched, place, lacking)
                sum_il += lacking
                sum_or += lacking
            sum_ir += self.push[inner_right]
            sum_il += self.push[inner_left]
            sum_ol += self.push[outer_left]
            sum_or += self.push[outer_right]
        if next_right is not None and self._rightmost(outer_right) is None:
            self.thread[outer_right] = next_right
            self.push[outer_right] += sum_ir - sum_or
        if next_left is not None and self._leftmost(outer_left) is None:
            self.thread[outer_left] = next_left
            self.push[outer_left] += sum_il - sum_ol
            return place
        return touched_last

    def _move(self, touched: int, place: int, by: float) -> None:
        """Push a subtree, and note that those between it and the one it touched are to be spread."""
        share = by / (self.nth[place] - self.nth[touched])
        self.change[place] -= share
        self.shift[place] += by
        self.change[touched] += share
        self.at[place] += by
        self.push[place] += by

    def _leftmost(self, place: int) -> int | None:
        return self.below[place][0] if self.below[place] else self.thread[place]

    def _rightmost(self, place: int) -> int | None:
        return self.below[place][-1] if self.below[place] else self.thread[place]

    def _beneath(self, place: int, *, left: bool) -> int:
        found = self._leftmost(place) if left else self._rightmost(place)
        assert found is not None  # the outer outlines reach as deep as the inner ones
        return found
