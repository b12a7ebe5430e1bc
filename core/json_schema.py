"""JSON schemas of forms in which a reply is wanted, of the part of JSON Schema that all providers take.

Every field of an object is required and no other is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

JsonSchema = dict[str, JsonValue]

STRING_SCHEMA: Final[JsonSchema] = {"type": "string"}


def enum_schema(values: Sequence[str] | range) -> JsonSchema:
    """One of some texts or whole numbers."""
    told: list[JsonValue] = list(values)
    return {"type": "integer" if isinstance(values, range) else "string", "enum": told}


def array_schema(items: JsonSchema, most: int) -> JsonSchema:
    """A list of at most so many items."""
    return {"type": "array", "items": items, "maxItems": most}


def object_schema(fields: Mapping[str, JsonValue]) -> JsonSchema:
    """An object of just these fields, which are written in this order."""
    names: list[JsonValue] = list(fields)
    return {"type": "object", "properties": dict(fields), "required": names, "additionalProperties": False}
