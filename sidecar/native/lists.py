"""`GET /v1/strategies` and `GET /v1/verifiers`: what there is, made from the registry."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from ...core.errors import ReasonError
from ...core.registry import Registry
from ...reasoning.strategy import STRATEGIES, Strategy
from ...verify.verifier import VERIFIERS, Verifier
from .replies import Kind, Kinds
from .starting import ERRORS, Reads

lists = APIRouter(prefix="/v1", tags=["what there is"], responses={k: ERRORS[k] for k in (401, 403, 429, 500)})


@lists.get("/strategies", response_model=Kinds, summary="List the strategies")
async def strategies(_caller: Reads) -> Response:
    """The reasoning strategies, each with a JSON schema of its parameters."""
    return _reply(await asyncio.to_thread(_kinds, STRATEGIES))


@lists.get("/verifiers", response_model=Kinds, summary="List the verifiers")
async def verifiers(_caller: Reads) -> Response:
    """The verifiers, each with a JSON schema of its parameters."""
    return _reply(await asyncio.to_thread(_kinds, VERIFIERS))


def _kinds(registry: Registry[type[Strategy]] | Registry[type[Verifier]]) -> Kinds:
    found: list[Kind] = []
    for name in registry.names():
        try:
            kind = registry.load(name)
        except ReasonError:  # a package that cannot be loaded takes no others along; `reason doctor` tells of it
            continue
        roles = getattr(kind, "roles", ())
        found.append(
            Kind(
                name=kind.name,
                summary=kind.summary,
                stability=kind.stability,
                paper=kind.paper,
                roles=roles if isinstance(roles, tuple) else (),
                parameters=kind.Config.model_json_schema(),
            )
        )
    return Kinds(data=tuple(found))


def _reply(kinds: Kinds) -> Response:
    return Response(kinds.model_dump_json(), media_type="application/json")
