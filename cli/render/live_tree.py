"""The tree of the running search in the live view, in up to half of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ...core.events import SearchNode
from ...core.types import Question
from .console import one_line, plural, printable, truncate
from .growing_tree import MIN_LINES, GrowingTree, TreeExcerpt
from .run_progress import Progress
from .search_tree import (
    CHOSEN,
    MIN_TEXT_WIDTH,
    TreeLine,
    format_number,
    layout_tree,
    node_mark,
    score_style,
    step_text,
    with_notes,
)

ACTIVE, BEST = "▸", "★"
MAX_ANSWER_CHARS = 24
STATISTICS = ("V", "N")
"""Values with a column of their own."""


class LiveTree:
    """Renders the tree of the most recently updated search; the lines are cached until tree or terminal change."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._cache_key: tuple[GrowingTree, int, int, int] | None = None
        self._lines: list[Text] = []
        self._answers: dict[str, str] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, cut to the width of the terminal."""
        for search in list(self._progress.searches.values())[-1:]:
            tree, width = search.tree, options.max_width
            room = max(MIN_LINES, options.size.height // 2 - 2)  # without the headings and the line on hidden nodes
            key = (tree, tree.version, width, room)
            if key != self._cache_key:
                self._lines, self._cache_key = self._draw(tree.excerpt(room), width), key
        yield from self._lines

    def _draw(self, excerpt: TreeExcerpt, width: int) -> list[Text]:
        tree = excerpt.tree
        if not tree.nodes:
            return []
        self._answers = {n.text: self._answers[n.text] for n in tree.nodes.values() if n.text in self._answers}
        lines = list(layout_tree(tree, set(tree.nodes)))
        columns = _columns([tree.nodes[line.node_id] for line in lines])
        while len(columns) > 1 and _width(columns) + MIN_TEXT_WIDTH > width:
            columns.pop()
        best = CHOSEN if tree.stopped is not None else BEST
        legend = f"{best} {'chosen' if tree.stopped is not None else 'best so far'}"
        if excerpt.active:
            legend = f"{ACTIVE} expanded last   {legend}"
        head = Text("   " + "".join(f"{column[0]}  " for column in columns), "dim")
        rendered = [Text(), head.append(legend if excerpt.best is not None or excerpt.active else "")]
        on_path = set(tree.chosen_path)
        for row, line in enumerate(lines, 1):
            node = tree.nodes[line.node_id]
            is_active, is_best = line.node_id in excerpt.active, line.node_id == excerpt.best
            text = Text()
            text.append(ACTIVE if is_active else " ", "bold cyan")
            text.append(f"{best if is_best else ' '} ", "bold green")
            for i, column in enumerate(columns):
                text.append(f"{column[row]}  ", "dim" if i else score_style(node.score))
            self._node(text, excerpt, line, "bold cyan" if is_active else "bold" if line.node_id in on_path else "")
            rendered.append(with_notes(text, excerpt.notes.get(line.node_id, 0), width))
        if excerpt.num_hidden:
            rendered.append(Text(" " * _width(columns) + f"… {excerpt.num_hidden:,} more", "yellow"))
        for text in rendered:
            text.truncate(width, overflow="ellipsis")
            text.rstrip()
            text.no_wrap = True
        return rendered

    def _node(self, text: Text, excerpt: TreeExcerpt, line: TreeLine, style: str) -> None:
        """Append the branch and the text of a node."""
        node = excerpt.tree.nodes[line.node_id]
        text.append(line.indent + ("├─" if line.branches else ""), "dim")
        if line.node_id in excerpt.gaps:
            text.append(f"… {plural(excerpt.gaps[line.node_id], 'step')}", "yellow")
            return
        text.append(node_mark(node, line.node_id in excerpt.expanded), style)
        hidden = excerpt.hidden[line.node_id]
        gaps = [gap for gap in excerpt.tree.children.get(line.node_id, ()) if gap in excerpt.gaps]
        if len(gaps) == 1:  # a single gap has its own line; several gaps may share steps
            hidden -= excerpt.gaps[gaps[0]]
        if hidden:
            text.append(f" +{hidden:,}", "yellow")
        answer = self._answer(node) if node.terminal else ""
        if answer:
            text.append(" ").append(answer, "bold green").append(" ·", "dim")
        text.append(f" {printable(step_text(excerpt.tree, line.node_id))}", style)

    def _answer(self, node: SearchNode) -> str:
        """The answer of a complete solution, truncated; empty if its last step has none."""
        if node.text not in self._answers:
            self._answers[node.text] = _answer(node.text, self._progress.question)
        return self._answers[node.text]


def _answer(text: str, question: Question | None) -> str:

    from ...reasoning.answers.extraction import extract_answer

    extracted = None if question is None else extract_answer(text, question)
    return "" if extracted is None else truncate(one_line(extracted.value), MAX_ANSWER_CHARS)


def _columns(nodes: Sequence[SearchNode]) -> list[list[str]]:
    """Heading and values of each column, padded to its width."""
    columns = [["score", *(format_number(node.score, 2) if node.id >= 0 else "" for node in nodes)]]
    for name in STATISTICS:
        if any(name in node.values for node in nodes):
            columns.append([name, *(_statistic(name, node.values) for node in nodes)])
    widths = [max(4, *(len(cell) for cell in column)) for column in columns]
    return [[cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)]


def _statistic(name: str, values: Mapping[str, float]) -> str:
    return format_number(values[name], 2 if name == "V" else None) if name in values else ""


def _width(columns: Sequence[Sequence[str]]) -> int:
    return 3 + sum(2 + len(column[0]) for column in columns)
