"""`DirectRoutes`: serves valid completion requests without FastAPI's layers, which cost a tenth of a short run.

The routes are FastAPI's as well: they describe themselves in the OpenAPI schema, and answer every request that is not
served here, so that an invalid request gets the same error as on any other route.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.errors import ReasonError
from ..auth import Caller, admit, header_of
from ..errors import send_error
from ..run_start import IdempotencyKey

Handler = Callable[[Request, Any, Caller, str | None], Awaitable[Response]]
"""A route's function: the request, its body, the caller and the idempotency key."""

_IDEMPOTENCY_KEY: TypeAdapter[str | None] = TypeAdapter(IdempotencyKey)


@dataclass(frozen=True)
class DirectRoute:
    """A route with the method POST and the scope "ask".

    Attributes:
        path: Path of the route, for requests, logs and metrics.
        body: Model of the body.
        handle: The route's function.
    """

    path: str
    body: type[BaseModel]
    handle: Handler


class DirectRoutes:
    """Middleware that serves the requests of some routes.

    `BodyLimitMiddleware` precedes it, so a body arrives in one message.

    Args:
        app: The next ASGI application.
        routes: The routes, by path.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, DirectRoute]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or pass it on."""
        route = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["query_string"]:
            route = self._routes.get(scope["path"])
        if route is None or header_of(scope, "content-type") != "application/json":
            await self._app(scope, receive, send)
            return
        message = await receive()
        try:
            body = route.body.model_validate(json.loads(message.get("body", b"")))
            key = header_of(scope, "idempotency-key")
            key = None if key is None else _IDEMPOTENCY_KEY.validate_python(key)
        except ValueError:  # the route of the same path tells the caller what is wrong
            await self._app(scope, _again(message, receive), send)
            return
        scope["route"] = route
        try:
            response = await route.handle(Request(scope, receive), body, await admit(scope), key)
        except ReasonError as e:
            await send_error(e, scope, receive, send, close=False)
            return
        await response(scope, receive, send)


def _again(message: Message, receive: Receive) -> Receive:
    """A channel that gives a message before the others."""
    first = [message]

    async def give() -> Message:
        return first.pop() if first else await receive()

    return give
