"""The search trees of a run as a part of its trace page: drawing, legend, and a panel for the node looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from ..core.search_tree import SearchTree
from .search_figures import figure, kind, search_facts, turn_figure, value_label
from .search_notes import Notes, source_of
from .search_svg import SHADES, colour_source, search_svg

_TOOLS = (
    '<div class="tools" hidden>'
    '<button type="button" value="nearer" aria-label="Zoom in" title="Zoom in (+)">+</button>'
    '<button type="button" value="farther" aria-label="Zoom out" title="Zoom out (-)">\u2212</button>'
    '<button type="button" value="fit" title="The whole tree (0)">whole</button>'
    "{chosen}</div>"
)
_TO_CHOSEN = '<button type="button" value="chosen" title="The node whose solution was returned">chosen</button>'
_HINT = (
    '<p class="legend" hidden>Drag to move, turn the wheel or pinch to enlarge; click a node for its text. '
    "Arrows go from node to node, Enter shows one.</p>"
    '<noscript><p class="legend">Without scripts the tree stands still; a node\'s tooltip has its text.</p></noscript>'
)
_PANEL = (
    '<div class="panel" role="region" aria-label="Node" hidden><h4 aria-live="polite"></h4><dl></dl>'
    '<div><h5>this step</h5><div class="text step" aria-live="polite"></div></div>'
    '<div><h5>the solution up to here</h5><div class="text whole"></div></div>{notes}</div>'
)
_NOTES = '<div><h5>notes that came with it</h5><ul class="sources notes" aria-live="polite"></ul></div>'


def searches_html(trees: Sequence[SearchTree], notes: Sequence[Notes] = ()) -> str:
    """The trees, one below the other.

    Args:
        trees: The searches of a run.
        notes: The notes of each, if there are any.
    """
    known = notes or [{} for _ in trees]
    return "\n".join(_search(tree, own) for tree, own in zip(trees, known, strict=True))


def json_in_html(value: Any) -> str:
    """JSON that may stand in a script element whatever its texts are: nothing in it ends the element or the line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _search(tree: SearchTree, notes: Notes) -> str:
    name = f"{tree.place}. {tree.search}" if tree.place > 1 else tree.search
    head = f'<h3>{escape(name)}</h3><div class="soft">{escape(", ".join(search_facts(tree)))}</div>'
    if not tree.nodes:
        return f'<section class="search">{head}<p>No node of it was told.</p></section>'
    tools = _TOOLS.format(chosen=_TO_CHOSEN if tree.chosen_path else "")
    drawing = search_svg(tree, notes)
    return (
        f'<section class="search">{head}\n<div class="desk"><div><div class="stage">{tools}{drawing}</div>'
        f"{_key(tree, bool(notes))}{_HINT}</div>{_PANEL.format(notes=_NOTES if notes else '')}</div>\n"
        f'<script type="application/json">{json_in_html(_data(tree, notes))}</script></section>'
    )


def _data(tree: SearchTree, notes: Notes) -> list[dict[str, Any]]:
    """What the panel shows of each node, by `data-n`; `up` is the place of the node that it continues, or -1."""
    places = {node_id: n for n, node_id in enumerate(tree.nodes)}
    turns = tree.turns()
    data = []
    for node in tree.nodes.values():
        facts = [("score", figure(node.score, 3))] if node.score is not None else []
        facts += [(value_label(name), figure(value)) for name, value in node.values.items()]
        facts.append(("tokens", f"{node.tokens:,}"))
        facts.append(("continued", turn_figure(turns[node.id]) if node.id in turns else "never"))
        if node.id in tree.orphans:
            facts.append(("continues", f"node {node.parent}, which was not told"))
        parent = tree.parents[node.id]
        shown: dict[str, Any] = {
            "up": -1 if parent is None else places[parent],
            "head": f"node {node.id}, step {node.depth}, {kind(node)}" + (", chosen" * (node.id == tree.chosen)),
            "facts": facts,
            "text": node.text,
        }
        if node.id in notes:
            shown["notes"] = [(source_of(item), item.text) for item in notes[node.id]]
        data.append(shown)
    return data


def _key(tree: SearchTree, noted: bool) -> str:
    source = colour_source(tree)
    scale = ""
    if source is not None:
        shades = "".join(f'<i class="c{n}"></i>' for n in range(SHADES))
        scale = f'<span class="scale">{escape(source)} 0 <span>{shades}</span> 1</span>'
    shapes = (
        ('<circle class="shape" cx="8" cy="8" r="7"/>', "step"),
        ('<rect class="shape" x="1.5" y="1.5" width="13" height="13" rx="2"/>', "complete"),
        ('<path class="shape" d="M8 0L16 8L8 16L0 8Z"/>', "final answer asked for"),
        ('<path class="shape thick" d="M0 8H16"/>', "chosen path"),
    )
    drawn = "".join(f'<span><svg viewBox="0 0 16 16" aria-hidden="true">{d}</svg>{name}</span>' for d, name in shapes)
    more = "<span>+n notes that came with it</span>" if noted else ""
    return f'<div class="key">{scale}{drawn}<span>#n continued as number n</span>{more}</div>'
