"""The tree of the search under way, in the live view: as many nodes as half the terminal holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ...core.events import SearchNode
from ...core.types import Question
from .console import printable
from .growing_tree import LEAST_ROOM, Excerpt, GrowingTree
from .run_progress import Progress
from .search_tree import (
    CHOSEN,
    LEAST_TEXT,
    Line,
    drawing,
    figure,
    mark_of,
    plural,
    score_style,
    step_words,
    with_notes,
)

AT_WORK, BEST = "▸", "★"
LONGEST_ANSWER = 24
STATISTICS = ("V", "N")
"""Values that have a column where a node shown has them."""


class LiveTree:
    """Draws the tree of the search heard of last; nothing where none has told a node.

    What was drawn is kept until the tree or the terminal changes.

    Args:
        progress: Where the run stands.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._drawn: tuple[GrowingTree, int, int, int] | None = None
        self._lines: list[Text] = []
        self._answers: dict[str, str] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, each as wide as the terminal at most."""
        for search in list(self._progress.searches.values())[-1:]:
            tree, width = search.tree, options.max_width
            room = max(LEAST_ROOM, options.size.height // 2 - 2)  # but for the heads and what is left out
            asked = (tree, tree.version, width, room)
            if asked != self._drawn:
                self._lines, self._drawn = self._draw(tree.excerpt(room), width), asked
        yield from self._lines

    def _draw(self, excerpt: Excerpt, width: int) -> list[Text]:
        tree = excerpt.tree
        if not tree.nodes:
            return []
        self._answers = {n.text: self._answers[n.text] for n in tree.nodes.values() if n.text in self._answers}
        lines = list(drawing(tree, set(tree.nodes)))
        columns = _columns([tree.nodes[line.node_id] for line in lines])
        while len(columns) > 1 and _width(columns) + LEAST_TEXT > width:
            columns.pop()
        best = CHOSEN if tree.stopped is not None else BEST
        legend = f"{best} {'chosen' if tree.stopped is not None else 'best so far'}"
        if excerpt.at_work:
            legend = f"{AT_WORK} continued last   {legend}"
        head = Text("   " + "".join(f"{column[0]}  " for column in columns), "dim")
        drawn = [Text(), head.append(legend if excerpt.best is not None or excerpt.at_work else "")]
        on_path = set(tree.chosen_path)
        for row, line in enumerate(lines, 1):
            node = tree.nodes[line.node_id]
            at_work, is_best = line.node_id in excerpt.at_work, line.node_id == excerpt.best
            text = Text()
            text.append(AT_WORK if at_work else " ", "bold cyan")
            text.append(f"{best if is_best else ' '} ", "bold green")
            for i, column in enumerate(columns):
                text.append(f"{column[row]}  ", "dim" if i else score_style(node.score))
            self._node(text, excerpt, line, "bold cyan" if at_work else "bold" if line.node_id in on_path else "")
            drawn.append(with_notes(text, excerpt.notes.get(line.node_id, 0), width))
        if excerpt.missing:
            drawn.append(Text(" " * _width(columns) + f"… {excerpt.missing:,} more", "yellow"))
        for text in drawn:
            text.truncate(width, overflow="ellipsis")
            text.rstrip()
            text.no_wrap = True
        return drawn

    def _node(self, text: Text, excerpt: Excerpt, line: Line, style: str) -> None:
        """Add the drawing and the words of a node."""
        node = excerpt.tree.nodes[line.node_id]
        text.append(line.indent + ("├─" if line.branches else ""), "dim")
        if line.node_id in excerpt.gaps:
            text.append(f"… {plural(excerpt.gaps[line.node_id], 'step')}", "yellow")
            return
        text.append(mark_of(node, line.node_id in excerpt.expanded), style)
        left_out = excerpt.left_out[line.node_id]
        gaps = [gap for gap in excerpt.tree.children.get(line.node_id, ()) if gap in excerpt.gaps]
        if len(gaps) == 1:  # its steps have a line; those of several may be the same in part
            left_out -= excerpt.gaps[gaps[0]]
        if left_out:
            text.append(f" +{left_out:,}", "yellow")
        answer = self._answer(node) if node.terminal else ""
        if answer:
            text.append(" ").append(answer, "bold green").append(" ·", "dim")
        text.append(f" {printable(step_words(excerpt.tree, line.node_id))}", style)

    def _answer(self, node: SearchNode) -> str:
        """What a complete solution says, cut; empty where nothing can be read from its last step."""
        if node.text not in self._answers:
            self._answers[node.text] = _answer(node.text, self._progress.question)
        return self._answers[node.text]


def _answer(text: str, question: Question | None) -> str:

    from ...reasoning.answers.extraction import extract_answer

    found = None if question is None else extract_answer(text, question)
    said = "" if found is None else printable(" ".join(found.value.split()))
    return said if len(said) <= LONGEST_ANSWER else said[: LONGEST_ANSWER - 1] + "…"


def _columns(nodes: Sequence[SearchNode]) -> list[list[str]]:
    """Head and figures of each column, padded to its width."""
    columns = [["score", *(figure(node.score, 2) if node.id >= 0 else "" for node in nodes)]]
    for name in STATISTICS:
        if any(name in node.values for node in nodes):
            columns.append([name, *(_statistic(name, node.values) for node in nodes)])
    widths = [max(4, *(len(cell) for cell in column)) for column in columns]
    return [[cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]


def _statistic(name: str, values: Mapping[str, float]) -> str:
    return figure(values[name], 2 if name == "V" else None) if name in values else ""


def _width(columns: Sequence[Sequence[str]]) -> int:
    return 3 + sum(2 + len(column[0]) for column in columns)
