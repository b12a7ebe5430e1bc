"""`runs show --tree`: a stored run's search trees, drawn or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from ..core.errors import UserError
from ..core.events import EventFields
from ..core.search_tree import SearchTree, search_trees
from ..core.store import RunRecord
from .console import out, write_line
from .search_notes import Notes, search_notes
from .search_view import print_searches


def print_search_trees(record: RunRecord, events: Sequence[EventFields], as_json: bool, most: int | None) -> None:
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
