"""`GET /v1/models`: the names that callers may give as `model`, with what stands behind each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from ...core.errors import ReasonError
from ...core.settings import Settings
from ...reasoning.strategy import STRATEGIES, takes_tools
from ..callers import authorised
from .model_names import Named, every_name, named
from .strict_route import StrictRoute

models = APIRouter(
    prefix="/v1", tags=["OpenAI"], route_class=StrictRoute, dependencies=[Depends(authorised("read", "ask"))]
)


@models.get("/models", summary="The models")
async def list_models(request: Request) -> dict[str, Any]:
    """Aliases, strategies with each model that is offered, and the models alone, which have the default strategy."""
    settings: Settings = request.app.state.settings
    return {"object": "list", "data": [_card(name, settings) for name in every_name(settings)]}


@models.get("/models/{model:path}", summary="One model")
async def get_model(request: Request, model: str) -> dict[str, Any]:
    """One of the models by its name."""
    settings: Settings = request.app.state.settings
    return _card(named(model, settings), settings)


def _card(name: Named, settings: Settings) -> dict[str, Any]:
    """A model in OpenAI's form, with its strategy. A plug-in that cannot be loaded is listed, and says so."""
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
        "tools": takes_tools(kind),
    }
