"""JSON Schemas of structured outputs, limited to the part of JSON Schema that all providers support.

Every field of an object is required and no other is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

JsonSchema = dict[str, JsonValue]

STRING_SCHEMA: Final[JsonSchema] = {"type": "string"}


def enum_schema(values: Sequence[str] | range) -> JsonSchema:
    """One of some strings or integers."""
    options: list[JsonValue] = list(values)
    return {"type": "integer" if isinstance(values, range) else "string", "enum": options}


def array_schema(items: JsonSchema, max_items: int) -> JsonSchema:
    """An array of up to `max_items` items."""
    return {"type": "array", "items": items, "maxItems": max_items}


def object_schema(fields: Mapping[str, JsonValue]) -> JsonSchema:
    """An object of exactly these fields, in this order."""
    names: list[JsonValue] = list(fields)
    return {"type": "object", "properties": dict(fields), "required": names, "additionalProperties": False}
