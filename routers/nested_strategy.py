"""Strategies that a router hands a question on to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from ..core.errors import UserError
from ..reasoning.strategy import Strategy, create_strategy

ROUTING: Final = frozenset({"auto", "cascade", "question-router"})
"""Strategies that hand the whole question on themselves."""


def inner_strategy(
    name: str, parameters: Mapping[str, JsonValue], within: str
) -> tuple[Strategy, dict[str, JsonValue]]:
    """A strategy that answers for a router, with its parameters complete.

    Args:
        name: Its name in the registry.
        parameters: Those that differ from the defaults.
        within: The router, for messages.

    Raises:
        UnknownName: There is no such strategy or parameter.
        UserError: It hands questions on itself, or a parameter has a value that is not allowed.
    """
    if name in ROUTING:
        raise UserError(
            f"{within} cannot hand a question on to {name}, which would hand it on again",
            hint="name a strategy that answers, such as cot or self-consistency",
        )
    return create_strategy(name, parameters)
