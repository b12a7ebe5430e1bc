"""JSON schemas of items of knowledge and of scores, for models that can be held to one."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.json_schemas import TEXT, Schema, list_of, object_of, one_of

TOP_SCORE = 10


def items_schema(snippets: int, most: int) -> Schema:
    """Items of knowledge.

    Args:
        snippets: How many snippets were shown, one of which each item names; 0 if there were none to name.
        most: Most items.
    """
    item: Schema = {"text": TEXT}
    if snippets:
        item["source"] = one_of(range(1, snippets + 1))
    return object_of({"items": list_of(object_of(item), most)})


def scores_schema(aspects: Sequence[str]) -> Schema:
    """A score from 0 to 10 for each aspect."""
    return object_of(dict.fromkeys(aspects, one_of(range(TOP_SCORE + 1))))
