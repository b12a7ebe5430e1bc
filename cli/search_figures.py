"""A search in figures, in one form for all that the terminal says of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.events import SearchNode
from ..core.search_tree import SearchTree

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
