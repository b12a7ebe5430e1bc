"""How `temperature`, `top_p`, `max_tokens` and a schema of OpenAI's format reach a strategy: by this one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from ...core.errors import UserError
from ...reasoning.strategy import STRATEGIES, Parameters

Knob = Literal["temperature", "top_p", "max_tokens", "json_schema"]

OTHER_NAMES: dict[str, dict[Knob, tuple[str, ...]]] = {
    "edgejury": {"temperature": ("answer_temperature",), "max_tokens": ("answer_tokens", "chair_tokens")},
}
"""The parameters that a field sets where they are called otherwise; of any other strategy, the one of its own name."""


def targets(strategy: str, config: type[Parameters], knob: Knob) -> tuple[str, ...]:
    """The parameters of a strategy that a field sets; none if it has none of that meaning."""
    names = OTHER_NAMES.get(strategy, {}).get(knob, (knob,))
    return tuple(name for name in names if name in config.model_fields)


def knobs(
    strategy: str, given: Mapping[Knob, JsonValue], parameters: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], int | None]:
    """What fields of a request make of a strategy's parameters.

    `max_tokens` bounds the reply that becomes the answer, where the strategy has a parameter for that; all other
    branches have the same bound each. Of a strategy without one it bounds all generated tokens of the run together.

    Args:
        strategy: The strategy.
        given: The fields; None was not given.
        parameters: What the request gave as `reason.parameters`.

    Returns:
        The parameters; and a token budget, or None.

    Raises:
        UserError: The strategy has nothing of that meaning, or a parameter is given in both ways and differently.
    """
    config = STRATEGIES.load(strategy).Config
    found: dict[str, JsonValue] = {}
    tokens: int | None = None
    for knob, value in given.items():
        if value is None:
            continue
        names = targets(strategy, config, knob)
        for name in names:
            if parameters.get(name, value) != value:
                raise UserError(
                    f"{knob} is {value}, and reason.parameters.{name} is {parameters[name]}",
                    hint="give one of the two",
                    param=knob,
                )
            found[name] = value
        if names:
            continue
        if knob == "max_tokens" and isinstance(value, int):
            tokens = value
        elif knob == "json_schema":
            raise UserError(
                f"the strategy {strategy!r} cannot write its answer as JSON of a schema",
                hint="take reason/cot, or ask for the form in words",
                param="response_format",
            )
        elif not (knob == "top_p" and value == 1):  # which cuts nothing off
            raise UserError(
                f"the strategy {strategy!r} has no {knob}",
                hint=f"leave it out; `reason strategies show {strategy}` lists the strategy's parameters",
                param=knob,
            )
    return found, tokens


def table() -> str:
    """Which parameters of each strategy the fields set, as it stands in the documentation (Markdown)."""
    rows = ["| strategy | `temperature` | `top_p` | `max_tokens` |", "| --- | --- | --- | --- |"]
    without: dict[Knob, str] = {"temperature": "refused", "top_p": "1 alone", "max_tokens": "the run's budget"}
    for strategy in STRATEGIES.names():
        config = STRATEGIES.load(strategy).Config
        cells = [
            ", ".join(f"`{name}`" for name in targets(strategy, config, knob)) or otherwise
            for knob, otherwise in without.items()
        ]
        rows.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(rows)
