"""A strategy's parameters as a reader wants them: flat names, plain types, defaults, meanings."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_PLAIN = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        name: Its name; parts of a nested one are joined by dots, as `--set` takes them.
        type: Its type with its bounds, in words.
        default: Its default as JSON; None also where it is required.
        required: Whether there is no default.
        meaning: What it does.
    """

    name: str
    type: str
    default: Any
    required: bool
    meaning: str


def parameters_of(config: type[BaseModel]) -> list[Parameter]:
    """The parameters of a strategy's `Config`, in its order."""
    schema = config.model_json_schema()
    return _of_schema(schema, schema.get("$defs", {}), "", {})


def _of_schema(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str, outer: dict[str, Any]
) -> list[Parameter]:
    found: list[Parameter] = []
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        whole = {**_resolved(field, definitions), **{k: v for k, v in field.items() if k != "$ref"}}
        default = outer.get(name, whole.get("default"))
        if "properties" in whole:
            nested = default if isinstance(default, dict) else {}
            found += _of_schema(whole, definitions, f"{prefix}{name}.", nested)
        else:
            missing = name in required and name not in outer
            found.append(
                Parameter(prefix + name, _type(whole, definitions), default, missing, whole.get("description", ""))
            )
    return found


def _resolved(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = str(field.get("$ref", "")).rpartition("/")[2]
    resolved: dict[str, Any] = definitions.get(name, {})
    return resolved


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    field = {**_resolved(field, definitions), **field}
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "discriminator" in field:  # objects told apart by the name in one field
        key, kinds = field["discriminator"]["propertyName"], field["discriminator"]["mapping"]
        return f'{" | ".join(kinds)}, as "{key}" of an object'
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_type(kind, definitions) for kind in field[union])
    if field.get("type") == "array":
        inner = field.get("items")
        return f"list of {_type(inner, definitions)}" if inner else "list"
    plain = _PLAIN.get(str(field.get("type")), str(field.get("type", "any")))
    bounds = ", ".join(f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field)
    return f"{plain} {bounds}" if bounds else plain
