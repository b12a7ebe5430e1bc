"""`ReasonEndpoint`: two routes that a vLLM server gets in addition to its own, for reports of logits processors.

vLLM adds them if `VLLM_PLUGINS` names `reason`; so its development mode, which lets any client call any method of the
workers, is not needed. They are below `/v1`, where `--api-key` protects them:

    POST /v1/reason/reports  {"ids": ["a1"]}  ->  {"reports": {"a1": {"extras": {…}, "failure": null}}}
    GET  /v1/reason/logits_processors                     ->  {"logits_processors": ["entropy_probe", …]}
"""

from __future__ import annotations

from argparse import Namespace
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from ..logits_processors import logits_processor_names
from ..logits_processors.registry import PROCESSORS_PAGE, REPORTS_PAGE
from .logits_processor import ReasonWorkerExtension
from .options import WORKER

MAX_IDS = 4096


class ReportsRequest(BaseModel):
    """Samples whose reports are requested.

    Attributes:
        ids: The names that their requests gave them.
    """

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_IDS)]


class ReasonEndpoint:
    """What the entry-point group `vllm.endpoint_plugins` names; vLLM calls the two methods once each."""

    name = "reason"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._engine: Any = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(REPORTS_PAGE, self.take_reports, methods=["POST"])
        app.add_api_route(PROCESSORS_PAGE, self.list_logits_processors, methods=["GET"])

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Take the engine.

        Raises:
            ValueError: The workers have no method that returns reports; the server does not start.
        """
        from vllm.utils.import_utils import resolve_obj_by_qualname

        name = getattr(args, "worker_extension_cls", "")
        if not (name and issubclass(resolve_obj_by_qualname(name), ReasonWorkerExtension)):
            raise ValueError(f"VLLM_PLUGINS names `reason`, whose routes need --worker-extension-cls {WORKER}")
        self._engine = engine_client

    async def take_reports(self, request: ReportsRequest) -> dict[str, Any]:
        """Reports of samples, by id; each can be read once, and an id without one is left out."""
        if self._engine is None:
            raise HTTPException(503, "this server has no engine")
        responses = await self._engine.collective_rpc("reason_take_reports", args=(request.ids,))
        reports: dict[str, Any] = {}
        for response in responses:
            reports |= response
        return {"reports": reports}

    async def list_logits_processors(self) -> dict[str, list[str]]:
        """Names of the installed logits processors."""
        return {"logits_processors": sorted(logits_processor_names())}
