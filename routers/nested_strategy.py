"""Strategies that a router runs for a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from ..core.errors import UserError
from ..reasoning.strategy import Strategy, create_strategy

ROUTING: Final = frozenset({"auto", "cascade", "question-router"})
"""Strategies that are routers themselves."""


def inner_strategy(
    name: str, parameters: Mapping[str, JsonValue], within: str
) -> tuple[Strategy, dict[str, JsonValue]]:
    """A strategy that answers for a router, with its complete parameters.

    Args:
        name: Its name in the registry.
        parameters: Those that differ from the defaults.
        within: The router, for messages.

    Raises:
        UnknownName: There is no such strategy or parameter.
        UserError: It is a router itself, or a parameter has an invalid value.
    """
    if name in ROUTING:
        raise UserError(
            f"{within} cannot hand a question on to {name}, which would hand it on again",
            hint="name a strategy that answers, such as cot or self-consistency",
        )
    return create_strategy(name, parameters)
