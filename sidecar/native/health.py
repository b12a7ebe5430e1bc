"""`/healthz` and `/readyz`: whether the process lives, and whether it takes runs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ..desk import RunDesk
from ..offered import offered_models
from .replies import Health, Readiness

STORE_S = 2.0
"""How long the store may take to answer, in seconds; probes wait little longer."""

health = APIRouter(tags=["health"])


@health.get("/healthz", response_model=Health, summary="Is the process alive?")
async def alive() -> Health:
    """It is, if it answers."""
    return Health()


@health.get(
    "/readyz",
    response_model=Readiness,
    summary="Does the process take runs?",
    responses={503: {"model": Readiness, "description": "It does not: its store is away, or it is about to stop"}},
)
async def ready(request: Request) -> Response:
    """Whether store and models are there, and no drain has begun."""
    desk: RunDesk = request.app.state.desk
    reachable = await desk.reaches_store(STORE_S)
    opened = request.app.state.reasoner.opened_models()
    told = Readiness(
        ready=reachable and not desk.draining,
        draining=desk.draining,
        store="ok" if reachable else "unreachable",
        models={
            name: "open" if name in opened else "at first use" for name in offered_models(request.app.state.settings)
        },
        in_flight=desk.in_flight,
    )
    return Response(told.model_dump_json(), 200 if told.ready else 503, media_type="application/json")
