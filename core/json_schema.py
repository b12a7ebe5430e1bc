"""The JSON Schemas of callers, and the validation of models' texts by them, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import Any, Final

from pydantic import JsonValue

from .errors import UserError
from .messages import parse_json

JsonSchema = dict[str, JsonValue]

OBJECT_SCHEMA: Final[JsonSchema] = {"type": "object"}
"""Any JSON object: OpenAI's format `json_object`."""
MAX_SCHEMA_PARTS: Final = 20_000
"""Maximum values of a caller's schema; OpenAI allows 5,000 properties."""
MAX_VALIDATION_STEPS: Final = 50_000
"""Maximum keywords that are applied to the parts of one text: a few lines of a schema can require 2^100."""
PATTERN_S: Final = 0.05
"""Maximum seconds of one match of a regular expression."""
_STEPS: ContextVar[Iterator[int]] = ContextVar("steps")
"""The steps that a validation has left."""


def is_strict(schema: JsonValue) -> bool:
    """Whether every object of a schema requires all of its fields and allows no other, as strict formats demand."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    fields = schema.get("properties")
    if schema.get("type") == "object" or fields is not None:
        names = set(fields) if isinstance(fields, dict) else set()
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or names - set(
            required if isinstance(required, list) else ()
        ):
            return False
    return all(map(is_strict, schema.values()))


def check_schema(schema: JsonSchema, param: str | None = None) -> None:
    """Refuse what is not a JSON Schema, or a very large one. Large ones take seconds: check them in a thread."""
    from jsonschema import Draft202012Validator, SchemaError, validators

    try:
        if sum(1 for _ in islice(_parts(schema), MAX_SCHEMA_PARTS + 1)) > MAX_SCHEMA_PARTS:
            raise UserError(
                f"the JSON Schema has more than {MAX_SCHEMA_PARTS:,} values", hint="simplify it", param=param
            )
        with _recursion_errors():
            validators.validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as e:
        at = "".join(f"[{part!r}]" for part in e.absolute_path)
        raise UserError(f"not a JSON Schema: {_line(e.message)}", hint=at and f"see {at}", param=param) from e
    except RecursionError as e:
        raise UserError("the JSON Schema is nested too deep", param=param) from e


def _parts(value: JsonValue) -> Iterator[JsonValue]:
    """The values in a value, itself included."""
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)


def schema_fault(text: str, schema: JsonSchema) -> str:
    """Why a text is not JSON that satisfies a schema, on one line; empty if it is.

    Differs from JSON Schema: `patternProperties`, and what depends on it, is not checked; nothing is loaded from
    addresses. Blocks for up to tenths of a second.
    """
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        value = parse_json(text)
    except ValueError as e:
        return f"it is no JSON: {_line(str(e))}"
    kind = _bounded(validators.validator_for(schema, default=Draft202012Validator))
    validator = kind(_checkable(schema), registry=Registry())
    _STEPS.set(iter(range(MAX_VALIDATION_STEPS)))
    try:
        with _recursion_errors():
            error = best_match(validator.iter_errors(value))
    except Unresolvable as e:
        raise UserError(f"the JSON Schema refers to {e.ref!r}, which it does not contain", hint="inline it") from e
    except (TimeoutError, RecursionError) as e:
        raise UserError("the JSON Schema takes too long to check", hint="simplify it") from e
    if error is None:
        return ""
    at = "".join(f"[{part!r}]" for part in error.absolute_path)
    return f"{at}: {_line(error.message)}" if at else _line(error.message)


@cache
def _bounded(kind: Any) -> Any:
    """A class of validators whose keywords count the steps of the context; it takes a millisecond to make."""
    from jsonschema import validators

    def bounded(rule: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def check(validator: Any, argument: Any, instance: Any, subschema: Any) -> Iterator[Any]:
            if next(_STEPS.get(), None) is None:
                raise TimeoutError
            yield from rule(validator, argument, instance, subschema) or ()

        return check

    rules = {name: bounded(rule) for name, rule in {**kind.VALIDATORS, "pattern": _pattern}.items()}
    return validators.extend(kind, rules)


@contextmanager
def _recursion_errors() -> Iterator[None]:
    """Raise a `RecursionError` also where rpds meets it, with which jsonschema looks references up.

    It is written in Rust and panics then, which is no `Exception` and would end more than this check. That happens
    where the interpreter traces calls, as coverage and debuggers do.
    """
    try:
        yield
    except BaseException as e:
        if type(e).__name__ != "PanicException":  # pyo3 has no module to import it from
            raise
        raise RecursionError from e


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """The keyword `pattern`, by an engine that can be stopped: Python's own cannot."""
    import regex
    from jsonschema import ValidationError

    if isinstance(instance, str):
        try:
            found = regex.search(pattern, instance, timeout=PATTERN_S)
        except regex.error as e:
            raise UserError(f"not a regular expression: {pattern!r}: {e}") from e
        if found is None:
            yield ValidationError(f"{_line(repr(instance))} does not match {pattern!r}")


_UNCHECKED = frozenset({"patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"})
"""Keywords that are not checked in a schema with `patternProperties`."""


def _checkable(schema: JsonValue) -> Any:
    """A schema without the keywords that are not checked; without `$schema`, which would choose unbounded rules."""
    if isinstance(schema, list):
        return [_checkable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = _UNCHECKED if "patternProperties" in schema else frozenset()
    return {
        k: _checkable(v) for k, v in schema.items() if k not in dropped and (k != "$schema" or not isinstance(v, str))
    }


def _line(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= 200 else f"{one[:199]}…"
