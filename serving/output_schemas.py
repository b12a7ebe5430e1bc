"""JSON Schemas of the outputs that our prompts request, and the objects that completions contain.

They use the part of JSON Schema that all providers support: every field of an object is required and no other is
allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import from_json

from ..core.json_schema import JsonSchema

STRING_SCHEMA: Final[JsonSchema] = {"type": "string"}
MAX_PARSED_CHARS: Final = 40_000
"""Characters of a completion that are searched for JSON."""
_MAX_STARTS = 16
_PARTIAL_NUMBER = re.compile(r"[\d.eE+-]+\Z")


def find_object(completion: str, accepts: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The first JSON object in a completion that `accepts` returns True for: a complete one, else a truncated one."""
    text = completion[:MAX_PARSED_CHARS]
    decoder = json.JSONDecoder(strict=False)
    starts = [match.start() for match in re.finditer(r"\{", text)][:_MAX_STARTS]
    for is_truncated in (False, True):
        for start in starts:
            try:
                value = (
                    from_json(_PARTIAL_NUMBER.sub("", text[start:]).encode("utf-8", "replace"), allow_partial=True)
                    if is_truncated
                    else decoder.raw_decode(text, start)[0]
                )
                if isinstance(value, dict) and "\\u" in text:
                    # "?" in place of lone surrogates, which files and databases cannot hold
                    value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and accepts(value):
                return value
    return None


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
