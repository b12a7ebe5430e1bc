"""`GET /v1/models`, and model names: `reason/STRATEGY`, `reason/STRATEGY:MODEL`, an alias, or a model string."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import JsonValue

from ...core.budget import Budget
from ...core.errors import ModelNotFound, ReasonError, UserError
from ...core.registry import nearest
from ...core.settings import Settings
from ...reasoning.strategy import STRATEGIES, Stability, supports_tools
from ..auth import authorised
from ..policy import offered_models
from .requests import StrictRoute

PREFIX = "reason/"


@dataclass(frozen=True)
class NamedModel:
    """A resolved model name. Only aliases set parameters, budget, verifiers and stability.

    Attributes:
        id: The name in the request.
        strategy: The strategy; None uses the request's, else the one in the settings.
        model: The main model.
        parameters: Default strategy parameters.
        budget: Additional limits.
        verify: Default verifiers; empty uses those in the settings.
        stability: Stability to report; None reports the strategy's own.
    """

    id: str
    strategy: str | None
    model: str
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    verify: tuple[str, ...] = ()
    stability: Stability | None = None


def resolve_model(name: str, settings: Settings) -> NamedModel:
    """Resolve a model name without loading a model.

    Raises:
        ModelNotFound: The name is not an alias, a strategy with an offered model, or an offered model. The error
            suggests the nearest names.
    """
    alias = settings.serve.aliases.get(name)
    if alias is not None:
        return NamedModel(
            id=name,
            strategy=alias.strategy,
            model=alias.model or settings.model,
            parameters=alias.parameters,
            budget=alias.budget,
            verify=alias.verify,
            stability=alias.stability,
        )
    offered = offered_models(settings)
    if name in offered:
        return NamedModel(id=name, strategy=None, model=name)
    strategy, colon, model = name.removeprefix(PREFIX).partition(":")
    known = STRATEGIES.names()
    if name.startswith(PREFIX) and strategy in known and (model in offered or not colon):
        return NamedModel(id=name, strategy=strategy, model=model or settings.model)
    if name.startswith(PREFIX) and strategy in known:
        near = tuple(f"{PREFIX}{strategy}:{m}" for m in nearest(model, offered))
    else:
        near = nearest(name, _ids(settings))
    raise ModelNotFound(name, near, hint="GET /v1/models lists the model names")


def model_ids(settings: Settings) -> list[NamedModel]:
    """All model names: aliases, then each strategy with each offered model, then the offered models."""
    return [resolve_model(name, settings) for name in _ids(settings)]


def strategy_of(name: NamedModel, wanted: str | None, settings: Settings) -> str:
    """The strategy of a request: from its model name, else its `reason` object, else the settings.

    Raises:
        UserError: The model name and the `reason` object disagree, or the strategy does not exist.
    """
    chosen = chosen_strategy(name, wanted, settings, field="reason.strategy")
    known = STRATEGIES.names()
    if chosen not in known:
        near = " or ".join(map(repr, nearest(chosen, known)))
        raise UserError(f"unknown strategy {chosen!r}", hint=near and f"did you mean {near}?", param="reason.strategy")
    return chosen


def chosen_strategy(name: NamedModel | None, wanted: str | None, settings: Settings, *, field: str) -> str:
    """The strategy of a model name, else of the request field `field`, else of the settings.

    Raises:
        UserError: The model name and the field disagree.
    """
    behind = None if name is None else name.strategy
    if name is not None and behind is not None and wanted not in (None, behind):
        raise UserError(
            f"the model {name.id!r} has the strategy {behind!r}, but {field} is {wanted!r}",
            hint="set only one of the two",
            param=field,
        )
    return behind or wanted or settings.strategy


def _ids(settings: Settings) -> list[str]:
    offered = offered_models(settings)
    return list(dict.fromkeys((*settings.serve.aliases, *_with_strategies(offered[1:]), *offered)))


def _with_strategies(others: Iterable[str]) -> Iterable[str]:
    for strategy in STRATEGIES.names():
        yield f"{PREFIX}{strategy}"
        yield from (f"{PREFIX}{strategy}:{model}" for model in others)


models = APIRouter(
    prefix="/v1", tags=["OpenAI"], route_class=StrictRoute, dependencies=[Depends(authorised("read", "ask"))]
)


@models.get("/models", summary="List models")
async def list_models(request: Request) -> dict[str, Any]:
    """List the aliases, each strategy with each offered model, and the offered models with the default strategy."""
    settings: Settings = request.app.state.settings
    return {"object": "list", "data": [_card(name, settings) for name in model_ids(settings)]}


@models.get("/models/{model:path}", summary="Get a model")
async def get_model(request: Request, model: str) -> dict[str, Any]:
    """Return one model by its name."""
    settings: Settings = request.app.state.settings
    return _card(resolve_model(model, settings), settings)


def _card(name: NamedModel, settings: Settings) -> dict[str, Any]:
    """A model in OpenAI's format. A strategy plug-in that fails to load is listed with its error as the summary."""
    strategy = name.strategy or settings.strategy
    card: dict[str, Any] = {"id": name.id, "object": "model", "created": 0, "owned_by": "reason"}
    card |= {"strategy": strategy, "model": name.model}
    try:
        kind = STRATEGIES.load(strategy)
    except ReasonError as e:
        return {**card, "stability": "experimental", "summary": f"cannot be loaded: {e.message}", "tools": False}
    return {
        **card,
        "stability": name.stability or kind.stability,
        "summary": kind.summary,
        "tools": supports_tools(strategy),
    }
