"""How far each route can be relied on; the OpenAPI description has it as `x-stability` of every operation."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from ..core.stability import Stability

ROUTES: MappingProxyType[str, Stability] = MappingProxyType(
    {
        "/healthz": "stable",
        "/metrics": "beta",
        "/readyz": "stable",
        "/v1/chat/completions": "stable",
        "/v1/models": "stable",
        "/v1/models/{model}": "stable",
        "/v1/reason": "beta",
        "/v1/responses": "beta",
        "/v1/responses/{response_id}": "beta",
        "/v1/runs": "beta",
        "/v1/runs/{run_id}": "beta",
        "/v1/runs/{run_id}/events": "beta",
        "/v1/runs/{run_id}/resume": "beta",
        "/v1/strategies": "beta",
        "/v1/verifiers": "beta",
        "/v1/verify": "beta",
    }
)
"""By path as the description has it; what each label promises is told in docs/stability.md."""


class Labelled(FastAPI):
    """An application whose description has the label of every operation."""

    def openapi(self) -> dict[str, Any]:
        """The description; made once, as FastAPI keeps it."""
        described = super().openapi()
        for path, operations in described["paths"].items():
            for operation in operations.values():
                operation["x-stability"] = ROUTES[path]
        return described
