"""`ReasonEndpoint`: two pages that a vLLM server gets beside its own, by which hooks' reports are fetched.

vLLM adds them if `VLLM_PLUGINS` names `reason`; so its development mode, which lets everybody call any method of the
workers, is not needed. They stand below `/v1`, where `--api-key` guards them:

    POST /v1/reason/reports  {"ids": ["a1"]}  ->  {"reports": {"a1": {"extras": {…}, "failure": null}}}
    GET  /v1/reason/hooks                     ->  {"hooks": ["entropy_probe", …]}
"""

from __future__ import annotations

from argparse import Namespace
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from ..logits_processors import hook_names
from .options import HOOKS_PAGE, REPORTS_PAGE, WORKER
from .worker import ReasonWorker

MOST_IDS = 4096


class Wanted(BaseModel):
    """Which samples' reports are wanted.

    Attributes:
        ids: The names that their requests gave them.
    """

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MOST_IDS)]


class ReasonEndpoint:
    """What the entry-point group `vllm.endpoint_plugins` names; vLLM calls the two methods once each."""

    name = "reason"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._engine: Any = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the pages."""
        app.add_api_route(REPORTS_PAGE, self.take_reports, methods=["POST"])
        app.add_api_route(HOOKS_PAGE, self.list_hooks, methods=["GET"])

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Take the engine.

        Raises:
            ValueError: The workers have no method that gives reports; the server does not start.
        """
        from vllm.utils.import_utils import resolve_obj_by_qualname

        named = getattr(args, "worker_extension_cls", "")
        if not (named and issubclass(resolve_obj_by_qualname(named), ReasonWorker)):
            raise ValueError(f"VLLM_PLUGINS names `reason`, whose pages need --worker-extension-cls {WORKER}")
        self._engine = engine_client

    async def take_reports(self, wanted: Wanted) -> dict[str, Any]:
        """Reports of samples, by id; each can be taken once, and an id without one is left out."""
        if self._engine is None:
            raise HTTPException(503, "this server has no engine")
        answers = await self._engine.collective_rpc("reason_take_reports", args=(wanted.ids,))
        found: dict[str, Any] = {}
        for answer in answers:
            found |= answer
        return {"reports": found}

    async def list_hooks(self) -> dict[str, list[str]]:
        """Names of the hooks that are installed here, but for those over several requests, which must start at once."""
        return {"hooks": sorted(hook_names(groups=False))}
