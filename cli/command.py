"""Commands from option models: the arguments and options of a command are the fields of one dataclass.

A field is declared once, as `name: Annotated[type, typer.Option(...)] = default`. A field whose type is itself a
dataclass is a group of options, which several commands may share; its fields become options of the command.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def option_model(function: Callable[[T], None]) -> Callable[..., None]:
    """Make a typer command of a function that takes one option model.

    Called without arguments, the command runs with the defaults of its model.
    """
    (model,) = (hint for name, hint in get_type_hints(function).items() if name != "return")
    parameters = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hint)
        for field, hint in _flattened(model)
    ]

    @functools.wraps(function)
    def command(**values: Any) -> None:
        function(_build(model, values))

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def is_default(options: Any) -> bool:
    """Whether every option of a model, or group, has its default."""
    return all(
        is_default(value) if is_dataclass(value) else value in (_default(field), [])
        for field in fields(options)
        for value in (getattr(options, field.name),)
    )


def _flattened(model: Any) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(model, include_extras=True)
    for field in fields(model):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _flattened(hint)
        else:
            yield field, hint


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _build(model: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(model)
    built: dict[str, Any] = {}
    for field in fields(model):
        if is_dataclass(hints[field.name]):
            built[field.name] = _build(hints[field.name], values)
        elif field.name in values:
            built[field.name] = values[field.name]
    return model(**built)
