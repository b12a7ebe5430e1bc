"""Search trees of a stored run on the terminal (`reason runs show --tree`), one node per line below its parent.

The first column marks the chosen path, then come values, then the branches with the text. The largest child of a node
follows it in the same column; only its siblings are indented. So a solution reads straight down, and a tree of n nodes
is indented at most log2(n) + 1 times, whatever its depth.
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
from .console import one_line, out, plural, printable, truncate, write_line

_OWN_COLUMNS = frozenset({"continued", "continues", "notes", "score", "step", "tokens", "turn"})


def format_number(value: float | None, decimals: int | None = None) -> str:
    """A short number.

    Args:
        value: The number; None becomes "-".
        decimals: Decimal places; None gives about three significant digits, and integers unchanged.
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


def search_facts(tree: SearchTree) -> list[str]:
    """Facts about a search: why it ended, the size of its tree, its cost."""
    facts = ["not ended" if tree.stopped is None else f"stopped: {tree.stopped}", plural(len(tree.nodes), "node")]
    complete = sum(node.terminal for node in tree.nodes.values())
    facts += [f"{complete:,} complete", f"{len(tree.expanded):,} expanded"]
    if tree.discarded:
        facts.append(f"{tree.discarded:,} discarded")
    if tree.stopped is not None and tree.chosen is None:
        facts.append("no node was chosen")
    elif tree.chosen is not None and not tree.chosen_path:
        facts.append(f"the chosen node {tree.chosen} was not reported")
    return facts + [f"{name.replace('_', ' ')} {count:,}" for name, count in tree.cost.items() if count]


def value_names(tree: SearchTree) -> list[str]:
    """Names of the nodes' values, in the order of their first report."""
    return list(dict.fromkeys(name for node in tree.nodes.values() for name in node.values))


def value_label(name: str) -> str:
    """The heading of a value; `step value` if the name is that of another column."""
    return f"{name} value" if name in _OWN_COLUMNS else name


def format_turns(turns: Sequence[int]) -> str:
    """The turns at which a node was expanded: the first one, and their number if there are several; "-" for none."""
    if not turns:
        return "-"
    return f"#{turns[0]}" + (f" x{len(turns)}" if len(turns) > 1 else "")


def step_text(tree: SearchTree, node_id: int) -> str:
    """A node's text on one line; for a node without text, what it is."""
    node = tree.nodes[node_id]
    text = " ".join(node.text.split())
    if node_id in tree.orphans:
        return f"[continues node {node.parent}, which was not reported] {text}"
    return text or ("start" if node.parent is None else "[white space only]")


NodeNotes = Mapping[int, tuple[AssociatedItem, ...]]
"""Knowledge items by node; nodes without any are left out."""

MODEL_KNOWLEDGE = "the model itself"
"""Source of an item that the model generated."""


def search_notes(events: Iterable[Event], trees: Sequence[SearchTree]) -> list[NodeNotes]:
    """The knowledge items of each tree.

    Searches with the same name are numbered as in `core.search_tree.search_trees`: an end event closes a search, and a
    resumed run repeats its events from the first one. Items of a search without nodes and end belong to no tree.

    Args:
        events: The run's events, in order.
        trees: The trees of these events.
    """
    by_search: dict[tuple[str, int], dict[int, tuple[AssociatedItem, ...]]] = {}
    ended: dict[str, int] = defaultdict(int)
    still_open: dict[str, dict[int, tuple[AssociatedItem, ...]]] = {}
    for event in events:
        if isinstance(event, RunStarted):
            ended.clear()
            still_open.clear()
        elif isinstance(event, (MemoryAssociated, NodesSearched, SearchEnded)):
            notes = still_open.setdefault(event.search, {})
            if isinstance(event, MemoryAssociated):  # reported before the node itself
                if event.items:
                    notes[event.node] = notes.get(event.node, ()) + event.items
                continue
            by_search[event.search, ended[event.search]] = notes
            if isinstance(event, SearchEnded):
                ended[event.search] += 1
                del still_open[event.search]
    index: dict[str, int] = defaultdict(int)
    ordered: list[NodeNotes] = []
    for tree in trees:
        ordered.append(by_search.get((tree.search, index[tree.search]), {}))
        index[tree.search] += 1
    return ordered


def source_of(item: AssociatedItem) -> str:
    """The source of an item as readable text."""
    return item.source_id or (MODEL_KNOWLEDGE if item.source_kind == "self" else item.source_kind)


CHOSEN, OPEN, EXPANDED, COMPLETE, FORCED = "✓", "○", "●", "■", "◆"
LEGEND = (
    f"{CHOSEN} chosen path   {EXPANDED} expanded   {OPEN} not expanded   {COMPLETE} complete   "
    f"{FORCED} forced final answer   turn: when expanded"
)
NOTE = "+"
MAX_VALUES = 4
MIN_TEXT_WIDTH = 36
"""Minimum width of the text; value columns are dropped for it."""
MAX_NAME_CHARS = 12
MIN_NOTE_WIDTH = 12
"""Minimum width of a note and its source."""


class TreeLine(NamedTuple):
    """The line of a node.

    Attributes:
        level: Distance from its root.
        indent: Branches of its ancestors.
        branches: Whether it branches off to the right of its parent.
    """

    node_id: int
    level: int
    indent: str
    branches: bool


def select_nodes(tree: SearchTree, max_nodes: int | None) -> set[int]:
    """IDs of the chosen path and the nodes select_nodes to it, by descending score; with a node always its parent.

    Args:
        tree: The tree.
        max_nodes: Maximum number of nodes off the chosen path; None for all. Without a chosen path, the roots come
            first.
    """
    if max_nodes is None:
        return set(tree.nodes)
    shown = set(tree.chosen_path)
    layer = list(tree.chosen_path)
    rivals = [root for root in tree.roots if root not in shown]
    while len(shown) - len(tree.chosen_path) < max_nodes and (layer or rivals):
        rivals += [child for node_id in layer for child in tree.children.get(node_id, ()) if child not in shown]
        rivals.sort(key=lambda node_id: -_score(tree, node_id))
        layer = rivals[: max_nodes - (len(shown) - len(tree.chosen_path))]
        shown.update(layer)
        rivals = []
    return shown


def count_hidden(tree: SearchTree, shown: Set[int]) -> Counter[int]:
    """Number of hidden nodes below each shown node; `shown` must contain the parents of its nodes."""
    hidden: Counter[int] = Counter()
    for node_id, _ in reversed(list(tree.walk())):
        parent = tree.parents[node_id]
        if node_id not in shown and parent is not None:
            hidden[parent] += hidden[node_id] + 1
    return hidden


def layout_tree(tree: SearchTree, shown: Set[int]) -> Iterator[TreeLine]:
    """The lines from top to bottom; `shown` must contain the parents of its nodes."""
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
    waiting = [TreeLine(root, 0, "", False) for root in reversed(tree.roots) if root in shown]
    while waiting:
        line = waiting.pop()
        yield line
        here = below.get(line.node_id)
        if not here:
            continue
        here.reverse()  # they were collected in reverse order
        inner = line.indent + "│ " if line.branches else line.indent
        straight = max(reversed(here), key=lambda node_id: (node_id in on_path, sizes[node_id]))  # the last of equals
        level = levels[line.node_id] + 1
        waiting.append(TreeLine(straight, level, inner, False))
        waiting.extend(TreeLine(rival, level, inner, True) for rival in reversed(here) if rival != straight)


def node_mark(node: SearchNode, continued: bool) -> str:
    """The symbol of a node."""
    return FORCED if node.forced else COMPLETE if node.terminal else EXPANDED if continued else OPEN


def score_style(score: float | None) -> str:
    """Blue for probably right, orange for probably wrong nodes; distinguishable with colour blindness."""
    if score is None:
        return "dim"
    return "bright_blue" if score >= 2 / 3 else "" if score >= 1 / 3 else "dark_orange"


def with_notes(text: Text, count: int, width: int) -> Text:
    """A line, cut to `width`, with the number of its node's notes."""
    suffix = f"  {NOTE}{plural(count, 'note')}" if count else ""
    text.truncate(max(0, width - len(suffix)), overflow="ellipsis")
    text.rstrip()
    return text.append(suffix, "magenta")


def print_searches(
    trees: Sequence[SearchTree], console: Console, max_nodes: int | None, notes: Sequence[NodeNotes] = ()
) -> None:
    """Print the trees, cut to the width of the console.

    Args:
        trees: The searches of a run.
        console: The console.
        max_nodes: Maximum number of nodes of each tree off its chosen path; None for all.
        notes: The notes of each tree; empty without notes.
    """
    for tree, tree_notes in zip_longest(trees, notes, fillvalue=None):
        if tree is None:
            break
        if tree.number > 1:
            console.print()
        _print_search(tree, console, max_nodes, tree_notes or {})
    console.print()
    console.print(Text(LEGEND + (f"   {NOTE} note" if any(notes) else ""), "dim"))


def _print_search(tree: SearchTree, console: Console, max_nodes: int | None, notes: NodeNotes) -> None:
    console.print(Text(f"search {tree.number}: {one_line(tree.search)}", "bold"))
    console.print(Text(one_line(", ".join(search_facts(tree))), "dim"))
    if not tree.nodes:
        console.print(Text("no nodes were reported", "yellow"))
        return
    shown = select_nodes(tree, max_nodes)
    lines = list(layout_tree(tree, shown))
    hidden, turns, on_path = count_hidden(tree, shown), tree.expansions(), set(tree.chosen_path)
    columns = _columns(tree, lines, turns, value_names(tree)[:MAX_VALUES])
    width = console.width
    while len(columns) > 2 and sum(2 + len(column[0]) for column in columns) + 2 + MIN_TEXT_WIDTH > width:
        columns.pop(-3 if len(columns) > 4 else -1)  # values are dropped from the last one; step and score stay
    console.print()
    _print_line(console, Text("  " + "".join(f"{column[0]}  " for column in columns), "bold"), width)
    for row, line in enumerate(lines, 1):
        if line.level == 0 and row > 1:
            _print_line(console, Text(""), width)
        text = Text().append(f"{CHOSEN} " if line.node_id in on_path else "  ", "bold green")
        for i, column in enumerate(columns):
            text.append(f"{column[row]}  ", score_style(tree.nodes[line.node_id].score) if i == 1 else "dim")
        text.append_text(_node_text(tree, line, line.node_id in on_path, line.node_id in turns, hidden[line.node_id]))
        _print_line(console, text, width)
        for item in notes.get(line.node_id, ()):
            margin = Text(" " * (2 + sum(len(column[0]) + 2 for column in columns)))
            margin.append(line.indent + ("│ " if line.branches else ""), "dim")
            _print_line(console, _noted(margin, item, width), width)
    if len(shown) < len(tree.nodes):
        missing = len(tree.nodes) - len(shown)
        apart = missing - sum(hidden[node_id] for node_id in shown)
        others = f", {apart:,} under hidden roots" if apart else ""
        where = f"(+n: hidden below that node{others})"
        console.print(Text(f"{plural(missing, 'node')} hidden {where}; --all shows them", "yellow"))


def _columns(
    tree: SearchTree, lines: Sequence[TreeLine], turns: Mapping[int, Sequence[int]], names: Sequence[str]
) -> list[list[str]]:
    """Heading and values of each column, padded to its width."""
    nodes = [tree.nodes[line.node_id] for line in lines]
    columns = [
        ["step", *(str(line.level) for line in lines)],
        ["score", *(format_number(node.score, 2) for node in nodes)],
    ]
    for name in names:
        head = one_line(value_label(name))
        head = truncate(head, MAX_NAME_CHARS)
        columns.append([head, *(format_number(node.values.get(name)) for node in nodes)])
    columns.append(["turn", *(format_turns(turns.get(node.id, ())) for node in nodes)])
    columns.append(["tokens", *(f"{node.tokens:,}" if node.tokens else "-" for node in nodes)])
    widths = [max(len(cell) for cell in column) for column in columns]
    return [[cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]


def _node_text(tree: SearchTree, line: TreeLine, chosen: bool, continued: bool, hidden: int) -> Text:
    node = tree.nodes[line.node_id]
    text = Text().append(line.indent + ("├─" if line.branches else ""), "dim")
    text.append(node_mark(node, continued), "bold green" if chosen else "")
    if hidden:
        text.append(f" +{hidden:,}", "yellow")
    return text.append(f" {printable(step_text(tree, line.node_id))}", "bold" if chosen else "")


def _noted(text: Text, item: AssociatedItem, width: int) -> Text:
    """A note with its source, which takes up to half of the line."""
    source = f" [{one_line(source_of(item))}]"
    room = max(MIN_NOTE_WIDTH, width - text.cell_len - 4)
    source = source if len(source) <= room // 2 else source[: room // 2 - 2] + "…]"
    note = Text(f"  {NOTE} {one_line(item.text)}", "magenta")
    note.truncate(room + 4 - len(source), overflow="ellipsis")
    return text.append_text(note).append(source, "dim")


def _print_line(console: Console, text: Text, width: int) -> None:
    text.truncate(width, overflow="ellipsis")
    text.rstrip()
    console.print(text, soft_wrap=True)


def _score(tree: SearchTree, node_id: int) -> float:
    score = tree.nodes[node_id].score
    return -1.0 if score is None or score != score else score  # NaN comes last


def print_search_trees(record: RunRecord, events: Sequence[Event], as_json: bool, max_nodes: int | None) -> None:
    """Print the search trees of a run on standard output.

    Args:
        record: The run.
        events: Its events.
        as_json: One JSON object with all nodes.
        max_nodes: Maximum number of nodes of each tree off its chosen path; None for all.

    Raises:
        UserError: The run has no search.
    """
    trees = search_trees(events)
    if not trees:
        so_far = " so far" if record.status == "running" else ""
        raise UserError(
            f"the run {record.id} has no search tree{so_far}: its strategy is {record.config.get('strategy')}",
            hint="leave out --tree",
        )
    notes = search_notes(events, trees)
    if as_json:
        searches = [_record(tree, tree_notes) for tree, tree_notes in zip(trees, notes, strict=True)]
        data = {"run": record.id, "searches": searches}
        write_line(to_json(data, indent=2, inf_nan_mode="strings").decode())
    else:
        print_searches(trees, out(), max_nodes, notes)


def _record(tree: SearchTree, notes: NodeNotes) -> dict[str, Any]:
    return {
        "search": tree.search,
        "number": tree.number,
        "stopped": tree.stopped,
        "chosen": tree.chosen,
        "chosen_path": tree.chosen_path,
        "expanded": tree.expanded,
        "discarded": tree.discarded,
        "cost": tree.cost,
        "nodes": list(tree.nodes.values()),
        "notes": notes,
    }
