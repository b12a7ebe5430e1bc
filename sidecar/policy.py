"""What callers may request: the offered models, budgets under the server's ceilings, parameters that name no file."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ..core.budget import Budget
from ..core.errors import ModelNotFound, UserError
from ..core.registry import nearest
from ..core.settings import ServeSettings, Settings


def offered_models(settings: Settings) -> tuple[str, ...]:
    """Model strings that callers may name; the setting `model` comes first."""
    behind = (alias.model for alias in settings.serve.aliases.values() if alias.model is not None)
    return tuple(dict.fromkeys((settings.model, *settings.serve.models, *behind)))


def allowed_model(settings: Settings, name: str) -> str:
    """A model string that a caller has named, if it is offered. It is never opened as given.

    Raises:
        ModelNotFound: It is not.
    """
    offered = offered_models(settings)
    if name not in offered:
        raise ModelNotFound(name, nearest(name, offered), hint="GET /v1/models lists what is offered")
    return name


def apply_ceilings(budget: Budget, serve: ServeSettings, *also: Budget) -> Budget:
    """A budget under the server's ceilings, and under further budgets: of each limit the lowest.

    Args:
        budget: What the caller wants.
        serve: Has the ceilings of seconds and tokens.
        also: The settings' budget, an alias's, …
    """
    ceilings = Budget(seconds=serve.max_seconds, tokens=serve.max_tokens)
    limits: dict[str, float] = {}
    for one in (budget, ceilings, *also):
        for name, limit in one.model_dump(exclude_none=True).items():
            limits[name] = min(limit, limits.get(name, limit))
    return Budget.model_validate(limits)


OPERATOR_PARAMETERS: dict[str, frozenset[str]] = {
    "router": frozenset(),
    "calibration": frozenset(),
    "reliability": frozenset(),
    "fusion": frozenset(),
    "weights": frozenset(),
    "navigator": frozenset({"default"}),
    "entailment": frozenset({"embedded", "lexical", "judge"}),
}
"""Parameters of strategies and verifiers that name a file or a model of the server, and what anybody may say there."""


def reject_paths(
    parameters: Mapping[str, JsonValue], own: Mapping[str, JsonValue] | None = None, *, param: str = "parameters"
) -> None:
    """Refuse parameters through which a caller would have the server open a file, a directory or another model.

    The operator may name such things in the settings; a caller may repeat what they say. An empty text names nothing.

    Args:
        parameters: What the caller gave to a strategy or verifier, with parameters of others nested in it.
        own: What the settings say of the same.
        param: What the field is called, for the message.

    Raises:
        UserError: One is refused; names it.
    """
    own = own or {}
    for name, value in parameters.items():
        where = f"{param}.{name}"
        if name == "roles" and isinstance(value, list):
            if value != own.get(name) and any("/" in str(v) or "." in str(v) or "\\" in str(v) for v in value):
                raise UserError(f"{where} names a file", hint="name roles that the server has", param=where)
        elif name in OPERATOR_PARAMETERS:
            if isinstance(value, str) and value and value not in OPERATOR_PARAMETERS[name] and value != own.get(name):
                raise UserError(
                    f"{where} names something of the server's, which only its operator may choose",
                    hint="leave it out",
                    param=where,
                )
        elif isinstance(value, dict):
            inner = own.get(name)
            reject_paths(value, inner if isinstance(inner, dict) else None, param=where)


def without_paths(parameters: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Parameters as callers may see them: what names a file of the server is left out."""
    shown: dict[str, JsonValue] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            shown[name] = without_paths(value)
        elif name not in OPERATOR_PARAMETERS or not isinstance(value, str) or value in ("", *OPERATOR_PARAMETERS[name]):
            shown[name] = value
    return shown
