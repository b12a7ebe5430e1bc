"""`dotted`: settings within settings as dotted names and plain values."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue


def dotted(tree: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, with a prefix before every name."""
    found: dict[str, JsonValue] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= dotted(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
