"""JSON schemas of items of knowledge and of scores, for models that can be held to one."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

TOP_SCORE = 10


def items_schema(snippets: int, most: int) -> dict[str, JsonValue]:
    """Items of knowledge.

    Args:
        snippets: How many snippets were shown, one of which each item names; 0 if there were none to name.
        most: Most items.
    """
    item: dict[str, JsonValue] = {"text": {"type": "string"}}
    if snippets:
        item["source"] = {"type": "integer", "enum": list(range(1, snippets + 1))}
    return _object({"items": {"type": "array", "items": _object(item), "maxItems": most}})


def scores_schema(aspects: Sequence[str]) -> dict[str, JsonValue]:
    """A score from 0 to 10 for each aspect."""
    score: JsonValue = {"type": "integer", "enum": list(range(TOP_SCORE + 1))}
    return _object(dict.fromkeys(aspects, score))


def _object(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    names: list[JsonValue] = list(fields)
    return {"type": "object", "properties": fields, "required": names, "additionalProperties": False}
