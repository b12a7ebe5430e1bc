"""A search in figures, in one form for all that the terminal says of it.

What knowledge was associated with the nodes of a run's searches, put together from its events.

Search trees on the terminal: a node a line, under the node that it continues.

The first column marks the chosen path, then come figures, then the drawing with the text. A step that continues the one
above stands right below it, in the same column; only its rivals are indented. So a solution reads straight down, and a
tree of n nodes is indented at most log2(n) + 1 times, however deep it is.

`runs show --tree`: a stored run's search trees, drawn or as JSON.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import zip_longest
from typing import Any, NamedTuple

from pydantic_core import to_json
from rich.console import Console
from rich.text import Text

from ...core.errors import UserError
from ...core.events import (
    AssociatedItem,
    Event,
    MemoryAssociated,
    NodesSearched,
    RunStarted,
    SearchEnded,
    SearchNode,
)
from ...core.search_tree import SearchTree, search_trees
from ...core.store.protocol import RunRecord
from .console import out, printable, write_line

_OWN_FIGURES = frozenset({"continued", "continues", "notes", "score", "step", "tokens", "turn"})


def figure(value: float | None, decimals: int | None = None) -> str:
    """A number, short.

    Args:
        value: The number; None is shown as "-".
        decimals: Digits behind the point; None is about three significant digits, and a whole number as it is.
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return f"{value:g}"
    if decimals is not None:
        return f"{value:.{decimals}f}"
    size = abs(value)
    if value == int(value) and size < 1e9:
        return f"{value:,.0f}"
    if not 1e-3 <= size < 1e9:
        return f"{value:.1e}"
    return f"{value:,.{3 if size < 10 else 2 if size < 100 else 1}f}"


def plural(count: int, what: str) -> str:
    """A count and what is counted: `1 node`, `2 nodes`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def search_facts(tree: SearchTree) -> list[str]:
    """What there is to say of a search as a whole: how it ended, how large its tree is, what it cost."""
    facts = ["not ended" if tree.stopped is None else f"stopped: {tree.stopped}", plural(len(tree.nodes), "node")]
    complete = sum(node.terminal for node in tree.nodes.values())
    facts += [f"{complete:,} complete", f"{len(tree.expanded):,} expanded"]
    if tree.discarded:
        facts.append(f"{tree.discarded:,} discarded")
    if tree.stopped is not None and tree.chosen is None:
        facts.append("none was chosen")
    elif tree.chosen is not None and not tree.chosen_path:
        facts.append(f"the chosen node {tree.chosen} was not told")
    return facts + [f"{name.replace('_', ' ')} {count:,}" for name, count in tree.cost.items() if count]


def value_names(tree: SearchTree) -> list[str]:
    """Names of what the search orders its nodes by, in the order in which they were first told."""
    return list(dict.fromkeys(name for node in tree.nodes.values() for name in node.values))


def value_label(name: str) -> str:
    """The name of a value where it stands beside what a node has anyway: `step value` is no depth."""
    return f"{name} value" if name in _OWN_FIGURES else name


def turn_figure(turns: Sequence[int]) -> str:
    """When a node was continued: the first time, and how often if more than once; "-" if never."""
    if not turns:
        return "-"
    return f"#{turns[0]}" + (f" x{len(turns)}" if len(turns) > 1 else "")


def step_words(tree: SearchTree, node_id: int) -> str:
    """A node's step on one line, as the model wrote it otherwise; where there is none, what the node is."""
    node = tree.nodes[node_id]
    words = " ".join(node.text.split())
    if node_id in tree.orphans:
        return f"[continues node {node.parent}, which was not told] {words}"
    return words or ("start" if node.parent is None else "[nothing but white space]")


def kind(node: SearchNode) -> str:
    """What a node is, in words."""
    if node.forced:
        return "final answer asked for"
    if node.terminal:
        return "complete"
    return "start" if node.parent is None else "unfinished"


Notes = Mapping[int, tuple[AssociatedItem, ...]]
"""Pieces of knowledge by the node that they came with; a node without any is not in it."""

OWN = "the model itself"
"""Source of a piece that the model knew."""


def search_notes(events: Iterable[Event], trees: Sequence[SearchTree]) -> list[Notes]:
    """The notes of each tree.

    Searches of a name follow each other as in `core.search_tree.search_trees`: an end closes one, and a run that goes
    on tells them again from the first. Notes of a search of which no node and no end was told belong to none.

    Args:
        events: The run's events, in order.
        trees: What `search_trees` makes of them.
    """
    found: dict[tuple[str, int], dict[int, tuple[AssociatedItem, ...]]] = {}
    ended: dict[str, int] = defaultdict(int)
    still_open: dict[str, dict[int, tuple[AssociatedItem, ...]]] = {}
    for event in events:
        if isinstance(event, RunStarted):
            ended.clear()
            still_open.clear()
        elif isinstance(event, (MemoryAssociated, NodesSearched, SearchEnded)):
            notes = still_open.setdefault(event.search, {})
            if isinstance(event, MemoryAssociated):  # it comes before the node itself does
                if event.items:
                    notes[event.node] = notes.get(event.node, ()) + event.items
                continue
            found[event.search, ended[event.search]] = notes
            if isinstance(event, SearchEnded):
                ended[event.search] += 1
                del still_open[event.search]
    place: dict[str, int] = defaultdict(int)
    ordered: list[Notes] = []
    for tree in trees:
        ordered.append(found.get((tree.search, place[tree.search]), {}))
        place[tree.search] += 1
    return ordered


def source_of(item: AssociatedItem) -> str:
    """Where a piece comes from, for people to read."""
    return item.source_id or (OWN if item.source_kind == "self" else item.source_kind)


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


def print_search_trees(record: RunRecord, events: Sequence[Event], as_json: bool, most: int | None) -> None:
    """Print the trees on standard output.

    Args:
        record: The run.
        events: Its events.
        as_json: One JSON object, with every node.
        most: Most nodes drawn of each tree off its chosen path; None is all of them.

    Raises:
        UserError: The run has searched nothing.
    """
    trees = search_trees(events)
    if not trees:
        so_far = " so far" if record.status == "running" else ""
        raise UserError(
            f"the run {record.id} has searched no tree{so_far}: its strategy is {record.config.get('strategy')}",
            hint="without --tree it is shown as it is",
        )
    notes = search_notes(events, trees)
    if as_json:
        searches = [_tree(tree, known) for tree, known in zip(trees, notes, strict=True)]
        data = {"run": record.id, "searches": searches}
        write_line(to_json(data, indent=2, inf_nan_mode="strings").decode())
    else:
        print_searches(trees, out(), most, notes)


def _tree(tree: SearchTree, notes: Notes) -> dict[str, Any]:
    return {
        "search": tree.search,
        "place": tree.place,
        "stopped": tree.stopped,
        "chosen": tree.chosen,
        "chosen_path": tree.chosen_path,
        "expanded": tree.expanded,
        "discarded": tree.discarded,
        "cost": tree.cost,
        "nodes": list(tree.nodes.values()),
        "notes": notes,
    }
