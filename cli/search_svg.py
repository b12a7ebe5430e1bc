"""A search tree as a drawing: whole and legible without a script, which moves and enlarges it where it may run.

Every node is a group that carries its place in the page's data (`data-n`), its level and state for screen readers, and
its text as a tooltip. What a colour says is said by the number within; what a shape says, by the label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ..core.events import SearchNode
from ..core.search_tree import SearchTree
from .search_figures import figure, kind, plural, step_words, value_names
from .search_layout import Spot, extent, tidy
from .search_notes import Notes

SHADES = 10
ACROSS, DOWN = 50, 76
"""Distances between neighbours and between layers, in units of the drawing."""
MARGIN = 34
RADIUS = 16
TICK = 12
"""Room for the mark below the chosen node."""
LEAST_WIDTH, LEAST_HEIGHT = 560, 380
"""A small tree is not blown up."""
LONGEST_TOOLTIP = 200


def colour_source(tree: SearchTree) -> str | None:
    """What the nodes are coloured by: their score; else the first of their values that lies in [0, 1] everywhere.

    Returns:
        "score", the value's name, or None where there is neither.
    """
    if any(node.score is not None for node in tree.nodes.values()):
        return "score"
    for name in value_names(tree):
        if all(0 <= node.values[name] <= 1 for node in tree.nodes.values() if name in node.values):
            return name
    return None


def shade(value: float) -> int:
    """The class of a value in [0, 1], from 0."""
    return min(SHADES - 1, max(0, math.floor(value * SHADES)))


def search_svg(tree: SearchTree, notes: Notes | None = None) -> str:
    """The drawing.

    Args:
        tree: The tree.
        notes: What knowledge came with its nodes.
    """
    spots = tidy(tree)
    across, down = extent(spots)
    inner_width, inner_height = across * ACROSS + 2 * MARGIN, down * DOWN + 2 * MARGIN + TICK
    width, height = max(LEAST_WIDTH, inner_width), max(LEAST_HEIGHT, inner_height)
    left = (width - inner_width) / 2 + MARGIN
    points = {node_id: (left + spot.x * ACROSS, MARGIN + spot.layer * DOWN) for node_id, spot in spots.items()}
    label = escape(f"Tree of search {tree.place}, {tree.search}: {plural(len(tree.nodes), 'node')}")
    drawn = _edges(tree, points) + _nodes(tree, spots, points, notes or {})
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="tree" aria-label="{label}" preserveAspectRatio="xMidYMin">'
        f'<g class="view" role="presentation">\n{drawn}</g></svg>'
    )


def _edges(tree: SearchTree, points: Mapping[int, tuple[float, float]]) -> str:
    """All edges as one path, and those of the chosen path as another above it."""
    chosen = set(tree.chosen_path)
    plain: list[str] = []
    on: list[str] = []
    for node_id, parent in tree.parents.items():
        if parent is None:
            continue
        (x1, y1), (x2, y2) = points[parent], points[node_id]
        bend = (y1 + y2) / 2
        curve = f"M{x1:.1f} {y1:.0f}C{x1:.1f} {bend:.0f} {x2:.1f} {bend:.0f} {x2:.1f} {y2:.0f}"
        (on if node_id in chosen else plain).append(curve)  # who is on the path, its parent is too
    path = '<path class="{}" d="{}" aria-hidden="true"/>\n'
    return "".join(path.format(name, "".join(d)) for name, d in (("edge", plain), ("edge on", on)) if d)


def _nodes(tree: SearchTree, spots: Mapping[int, Spot], points: Mapping[int, tuple[float, float]], notes: Notes) -> str:
    source, turns, chosen = colour_source(tree), tree.turns(), set(tree.chosen_path)
    numbers = {node_id: n for n, node_id in enumerate(tree.nodes)}
    first = tree.chosen_path[-1] if tree.chosen_path else next(iter(tree.roots), None)
    parts = []
    for node_id, level in tree.walk():
        node = tree.nodes[node_id]
        value = node.score if source == "score" else node.values.get(source or "")
        classes = ["node", "blank" if value is None or not math.isfinite(value) else f"c{shade(value)}"]
        classes += [name for name, so in (("open", node_id not in turns), ("on", node_id in chosen)) if so]
        x, y = points[node_id]
        noted = len(notes.get(node_id, ()))
        says = spoken(node, turns.get(node_id, ()), node_id in chosen, node_id == tree.chosen, noted)
        head = (
            f'<g class="{" ".join(classes)}" data-n="{numbers[node_id]}" role="treeitem" aria-level="{level + 1}" '
            f'aria-selected="false" tabindex="{0 if node_id == first else -1}" transform="translate({x:.1f} {y:.0f})" '
            f'aria-label="{escape(says)}">'
        )
        parts.append(head + f"<title>{escape(_shortened(step_words(tree, node_id)))}</title>" + _shape(node))
        parts.append(f"<text>{_short_figure(value)}</text>")
        if node_id in turns:
            parent = tree.parents[node_id]
            side = "turn left" if parent is not None and points[parent][0] > x + 0.1 else "turn"  # beside its edge
            at = RADIUS - 4 if side == "turn" else 4 - RADIUS
            parts.append(f'<text class="{side}" x="{at}" y="{-RADIUS - 4}">#{turns[node_id][0]}</text>')
        if noted:
            parts.append(f'<text class="turn" x="{RADIUS - 4}" y="{RADIUS + 5}">+{noted}</text>')
        if node_id == tree.chosen:
            parts.append(f'<text class="tick" y="{RADIUS + 16}">✓</text>')
        parts.append("</g>\n")
    return "".join(parts)


def _shape(node: SearchNode) -> str:
    if node.forced:
        reach = RADIUS + 4
        return f'<path class="shape" d="M0 {-reach}L{reach} 0L0 {reach}L{-reach} 0Z"/>'
    if node.terminal:
        reach = RADIUS - 1
        return f'<rect class="shape" x="{-reach}" y="{-reach}" width="{2 * reach}" height="{2 * reach}" rx="3"/>'
    return f'<circle class="shape" r="{RADIUS}"/>'


def spoken(node: SearchNode, turns: Sequence[int], on_path: bool, chosen: bool, notes: int = 0) -> str:
    """A node in a line, for who hears the page."""
    parts = [f"node {node.id}", kind(node)]
    if node.score is not None:
        parts.append(f"score {figure(node.score, 2)}")
    if turns:
        parts.append(f"continued as number {turns[0]}")
    if notes:
        parts.append(plural(notes, "note"))
    if on_path:
        parts.append("chosen" if chosen else "on the chosen path")
    return ", ".join(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TOOLTIP else text[: LONGEST_TOOLTIP - 1] + "…"


def _short_figure(value: float | None) -> str:
    """A number in [0, 1] with two digits: `.71`, `1`."""
    if value is None or not math.isfinite(value):
        return "" if value is None else "?"
    text = f"{value:.2f}"
    return "1" if text == "1.00" else text.removeprefix("0")
