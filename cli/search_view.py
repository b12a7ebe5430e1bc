"""Search trees on the terminal: a node a line, under the node that it continues.

The first column marks the chosen path, then come figures, then the drawing with the text. A step that continues the one
above stands right below it, in the same column; only its rivals are indented. So a solution reads straight down, and a
tree of n nodes is indented at most log2(n) + 1 times, however deep it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import zip_longest
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from ..core.events import AssociatedItem, SearchNode
from ..core.search_tree import SearchTree
from .console import printable
from .search_figures import figure, plural, search_facts, step_words, turn_figure, value_label, value_names
from .search_notes import Notes, source_of

CHOSEN, OPEN, CONTINUED, COMPLETE, FORCED = "✓", "○", "●", "■", "◆"
LEGEND = (
    f"{CHOSEN} chosen path   {CONTINUED} continued   {OPEN} not continued   {COMPLETE} complete   "
    f"{FORCED} final answer asked for   turn: when continued"
)
NOTE = "+"
MOST_VALUES = 4
LEAST_TEXT = 36
"""Columns that the text has at least; figures give way to it."""
LONGEST_NAME = 12
LEAST_NOTE = 12
"""Columns that a note has at least beside its source."""


class Line(NamedTuple):
    """A node in the drawing.

    Attributes:
        level: Distance from its root.
        indent: The columns of its ancestors.
        branches: Whether it branches off from the node in the column to its left.
    """

    node_id: int
    level: int
    indent: str
    branches: bool


def nearest(tree: SearchTree, most: int | None) -> set[int]:
    """The nodes to show: the chosen path, and those nearest to it, the better scored first.

    Args:
        tree: The tree.
        most: Most nodes off the chosen path; None is all of them. Without a chosen path, the roots come first.

    Returns:
        Ids; with a node, the one that it continues is always among them.
    """
    if most is None:
        return set(tree.nodes)
    shown = set(tree.chosen_path)
    layer = list(tree.chosen_path)
    rivals = [root for root in tree.roots if root not in shown]
    while len(shown) - len(tree.chosen_path) < most and (layer or rivals):
        rivals += [child for node_id in layer for child in tree.children.get(node_id, ()) if child not in shown]
        rivals.sort(key=lambda node_id: -_score(tree, node_id))
        layer = rivals[: most - (len(shown) - len(tree.chosen_path))]
        shown.update(layer)
        rivals = []
    return shown


def folded(tree: SearchTree, shown: Set[int]) -> Counter[int]:
    """How many nodes are left out below each node that is shown.

    Args:
        tree: The tree.
        shown: Nodes that are shown; with a node, the one that it continues must be among them.
    """
    hidden: Counter[int] = Counter()
    for node_id, _ in reversed(list(tree.walk())):
        parent = tree.parents[node_id]
        if node_id not in shown and parent is not None:
            hidden[parent] += hidden[node_id] + 1
    return hidden


def drawing(tree: SearchTree, shown: Set[int]) -> Iterator[Line]:
    """The lines, from top to bottom.

    Args:
        tree: The tree.
        shown: Nodes to draw; with a node, the one that it continues must be among them.
    """
    below: dict[int, list[int]] = {}
    sizes = dict.fromkeys(shown, 1)
    on_path = set(tree.chosen_path)
    order = [(node_id, level) for node_id, level in tree.walk() if node_id in shown]
    for node_id, _ in reversed(order):
        parent = tree.parents[node_id]
        if parent is not None:
            sizes[parent] += sizes[node_id]
            below.setdefault(parent, []).append(node_id)
    levels = dict(order)
    waiting = [Line(root, 0, "", False) for root in reversed(tree.roots) if root in shown]
    while waiting:
        line = waiting.pop()
        yield line
        here = below.get(line.node_id)
        if not here:
            continue
        here.reverse()  # they were gathered from the last to the first
        inner = line.indent + "│ " if line.branches else line.indent
        straight = max(reversed(here), key=lambda node_id: (node_id in on_path, sizes[node_id]))  # of equals the last
        level = levels[line.node_id] + 1
        waiting.append(Line(straight, level, inner, False))
        waiting.extend(Line(rival, level, inner, True) for rival in reversed(here) if rival != straight)


def mark_of(node: SearchNode, continued: bool) -> str:
    """What a node is drawn as."""
    return FORCED if node.forced else COMPLETE if node.terminal else CONTINUED if continued else OPEN


def score_style(score: float | None) -> str:
    """Blue for what is probably right, orange for what is probably wrong: told apart by all eyes."""
    if score is None:
        return "dim"
    return "bright_blue" if score >= 2 / 3 else "" if score >= 1 / 3 else "dark_orange"


def with_notes(text: Text, count: int, width: int) -> Text:
    """A line that says how many notes came with its node, however long its text is; as wide as `width` at most."""
    said = f"  {NOTE}{plural(count, 'note')}" if count else ""
    text.truncate(max(0, width - len(said)), overflow="ellipsis")
    text.rstrip()
    return text.append(said, "magenta")


def print_searches(
    trees: Sequence[SearchTree], console: Console, most: int | None, notes: Sequence[Notes] = ()
) -> None:
    """Print the trees.

    Args:
        trees: The searches of a run.
        console: Where to; its width cuts the texts.
        most: Most nodes shown of each off its chosen path; None is all of them.
        notes: The notes of each tree, if there are any.
    """
    for tree, known in zip_longest(trees, notes, fillvalue=None):
        if tree is None:
            break
        if tree.place > 1:
            console.print()
        _print_search(tree, console, most, known or {})
    console.print()
    console.print(Text(LEGEND + (f"   {NOTE} note" if any(notes) else ""), "dim"))


def _print_search(tree: SearchTree, console: Console, most: int | None, notes: Notes) -> None:
    console.print(Text(f"search {tree.place}: {_line_of(tree.search)}", "bold"))
    console.print(Text(_line_of(", ".join(search_facts(tree))), "dim"))
    if not tree.nodes:
        console.print(Text("no node of it was told", "yellow"))
        return
    shown = nearest(tree, most)
    lines = list(drawing(tree, shown))
    left_out, turns, on_path = folded(tree, shown), tree.turns(), set(tree.chosen_path)
    columns = _columns(tree, lines, turns, value_names(tree)[:MOST_VALUES])
    width = console.width
    while len(columns) > 2 and sum(2 + len(column[0]) for column in columns) + 2 + LEAST_TEXT > width:
        columns.pop(-3 if len(columns) > 4 else -1)  # the values go first, from the last; step and score stay
    console.print()
    _print_line(console, Text("  " + "".join(f"{column[0]}  " for column in columns), "bold"), width)
    for row, line in enumerate(lines, 1):
        if line.level == 0 and row > 1:
            _print_line(console, Text(""), width)
        text = Text().append(f"{CHOSEN} " if line.node_id in on_path else "  ", "bold green")
        for i, column in enumerate(columns):
            text.append(f"{column[row]}  ", score_style(tree.nodes[line.node_id].score) if i == 1 else "dim")
        text.append_text(_drawn(tree, line, line.node_id in on_path, line.node_id in turns, left_out[line.node_id]))
        _print_line(console, text, width)
        for item in notes.get(line.node_id, ()):
            margin = Text(" " * (2 + sum(len(column[0]) + 2 for column in columns)))
            margin.append(line.indent + ("│ " if line.branches else ""), "dim")
            _print_line(console, _noted(margin, item, width), width)
    if len(shown) < len(tree.nodes):
        missing = len(tree.nodes) - len(shown)
        apart = missing - sum(left_out[node_id] for node_id in shown)
        others = f", {apart:,} under starts that are left out" if apart else ""
        where = f"(+n: as many below that node{others})"
        console.print(Text(f"{plural(missing, 'node')} left out {where}; --all shows them", "yellow"))


def _columns(
    tree: SearchTree, lines: Sequence[Line], turns: Mapping[int, Sequence[int]], names: Sequence[str]
) -> list[list[str]]:
    """Head and figures of each column, padded to its width."""
    nodes = [tree.nodes[line.node_id] for line in lines]
    columns = [["step", *(str(line.level) for line in lines)], ["score", *(figure(node.score, 2) for node in nodes)]]
    for name in names:
        head = _line_of(value_label(name))
        head = head if len(head) <= LONGEST_NAME else head[: LONGEST_NAME - 1] + "…"
        columns.append([head, *(figure(node.values.get(name)) for node in nodes)])
    columns.append(["turn", *(turn_figure(turns.get(node.id, ())) for node in nodes)])
    columns.append(["tokens", *(f"{node.tokens:,}" if node.tokens else "-" for node in nodes)])
    widths = [max(len(cell) for cell in column) for column in columns]
    return [[cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]


def _drawn(tree: SearchTree, line: Line, chosen: bool, continued: bool, left_out: int) -> Text:
    node = tree.nodes[line.node_id]
    text = Text().append(line.indent + ("├─" if line.branches else ""), "dim")
    text.append(mark_of(node, continued), "bold green" if chosen else "")
    if left_out:
        text.append(f" +{left_out:,}", "yellow")
    return text.append(f" {printable(step_words(tree, line.node_id))}", "bold" if chosen else "")


def _noted(text: Text, item: AssociatedItem, width: int) -> Text:
    """A note with its source, which gives way to no more than half of the line."""
    source = f" [{_line_of(source_of(item))}]"
    room = max(LEAST_NOTE, width - text.cell_len - 4)
    source = source if len(source) <= room // 2 else source[: room // 2 - 2] + "…]"
    said = Text(f"  {NOTE} {_line_of(item.text)}", "magenta")
    said.truncate(room + 4 - len(source), overflow="ellipsis")
    return text.append_text(said).append(source, "dim")


def _print_line(console: Console, text: Text, width: int) -> None:
    text.truncate(width, overflow="ellipsis")
    text.rstrip()
    console.print(text, soft_wrap=True)


def _line_of(text: str) -> str:
    return printable(" ".join(text.split()))


def _score(tree: SearchTree, node_id: int) -> float:
    score = tree.nodes[node_id].score
    return -1.0 if score is None or score != score else score  # a score that is no number comes last
