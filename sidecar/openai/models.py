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
    """What a model name represents.

    Attributes:
        id: The name as callers give it.
        strategy: The strategy; None leaves it to the request, else to the settings.
        model: The main model.
        parameters: Parameters of the strategy that the name brings along.
        budget: Limits that it brings along.
        verify: Verifiers that it brings along; empty are the settings'.
        stability: What is notified of it; None is the strategy's.
    """

    id: str
    strategy: str | None
    model: str
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    verify: tuple[str, ...] = ()
    stability: Stability | None = None


def resolve_model(name: str, settings: Settings) -> NamedModel:
    """Look a model name up. Nothing is opened: what is not offered does not exist.

    Raises:
        ModelNotFound: It is no alias, no strategy with an offered model, and no offered model; the nearest are named.
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
    raise ModelNotFound(name, near, hint="GET /v1/models lists what there is")


def model_ids(settings: Settings) -> list[NamedModel]:
    """All names there are: aliases, then strategies with each offered model, then the models only."""
    return [resolve_model(name, settings) for name in _ids(settings)]


def strategy_of(name: NamedModel, wanted: str | None, settings: Settings) -> str:
    """The strategy of a request: of its model name, else of its `reason` object, else of the settings.

    Raises:
        UserError: Model name and `reason` object name different ones, or there is none of that name.
    """
    chosen = chosen_strategy(name, wanted, settings, field="reason.strategy")
    known = STRATEGIES.names()
    if chosen not in known:
        near = " or ".join(map(repr, nearest(chosen, known)))
        raise UserError(f"unknown strategy {chosen!r}", hint=near and f"did you mean {near}?", param="reason.strategy")
    return chosen


def chosen_strategy(name: NamedModel | None, wanted: str | None, settings: Settings, *, field: str) -> str:
    """The strategy of a model name, else the one that a request's field names, else that of the settings.

    Raises:
        UserError: Name and field name different ones.
    """
    behind = None if name is None else name.strategy
    if name is not None and behind is not None and wanted not in (None, behind):
        raise UserError(
            f"the model {name.id!r} is the strategy {behind!r}, and {field} is {wanted!r}",
            hint="give one of the two",
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


@models.get("/models", summary="The models")
async def list_models(request: Request) -> dict[str, Any]:
    """Aliases, strategies with each model that is offered, and the models only, which have the default strategy."""
    settings: Settings = request.app.state.settings
    return {"object": "list", "data": [_card(name, settings) for name in model_ids(settings)]}


@models.get("/models/{model:path}", summary="One model")
async def get_model(request: Request, model: str) -> dict[str, Any]:
    """One of the models by its name."""
    settings: Settings = request.app.state.settings
    return _card(resolve_model(model, settings), settings)


def _card(name: NamedModel, settings: Settings) -> dict[str, Any]:
    """A model in OpenAI's form, with its strategy. A plug-in that cannot be loaded is listed, and reports it."""
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
        "tools": supports_tools(kind),
    }
