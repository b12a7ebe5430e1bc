"""Strategies that a router runs for a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from ..core.errors import UserError
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Strategy, create_strategy, require_features, require_tool_support
from ..reasoning.thinking import fit_to_thinking, require_suitable_thinking

ROUTING: Final = frozenset({"auto", "cascade"})
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


def require_suitable(strategy: Strategy, question: Question, models: Models, run: Run) -> None:
    """Refuse a strategy that cannot work with its question or models, before anything is spent.

    Raises:
        CapabilityMissing: The models lack a feature that it or the question requires.
        UserError: It cannot work with the question's tools or the thoughts of its models.
    """
    require_tool_support(strategy.name, question)
    require_features(strategy, models, question)
    require_suitable_thinking(strategy, models, run)


async def solve_within(strategy: Strategy, question: Question, models: Models, run: Run) -> Solution:
    """Answer with a strategy, or with what replaces it (see `thinking.fit_to_thinking`)."""
    return await fit_to_thinking(strategy, models, run).solve(question, models, run)


def prefers_second(first: Solution, second: Solution) -> bool:
    """Whether the second solution's answer replaces the first: unless it has none or the budget truncated it."""
    if first.best is None or first.best.answer is None:
        return second.best is not None
    return second.best is not None and second.best.answer is not None and second.best.finish_reason != "budget"
