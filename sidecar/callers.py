"""Who calls: `Caller`, and the dependency through which a route says what the caller must be allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, get_args

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field
from starlette.types import Scope as ASGIScope

from ..core.api_keys import KeyLimits
from ..core.errors import KeyRefused, ScopeMissing
from ..core.messages import Frozen

Scope = Literal["ask", "read", "admin"]
"""What a key allows: "ask" starts, cancels and resumes runs, "read" looks at them, "admin" does so for every tenant."""
SCOPES: frozenset[str] = frozenset(get_args(Scope))


class Caller(Frozen):
    """Who sent a request.

    Attributes:
        key_id: The key's name in the store; empty without keys.
        tenant: Whose runs it sees and makes; empty without keys.
        scopes: What it may do.
        limits: What it may use.
        request_id: The request's name in logs; empty where a process starts something itself.
        traceparent: The trace that the request belongs to, as W3C Trace Context writes it; empty if to none.
        tracestate: What goes with it.
    """

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[str] = Field(default_factory=frozenset)
    limits: KeyLimits = KeyLimits()
    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""

    def may(self, scope: Scope) -> bool:
        """Whether its key allows that; "admin" allows everything."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """The tenant whose runs it may see; None are all."""
        return None if "admin" in self.scopes else self.tenant


EVERYBODY = Caller(scopes=SCOPES)
"""The caller where no keys are asked for."""

_BEARER = HTTPBearer(
    scheme_name="key", description="A key that `reason keys create` made, as a bearer token.", auto_error=False
)


def authorised(scope: Scope, *also: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller of a request and refuses one that lacks a scope.

    A request with scope "ask" counts for the key's requests a minute; how the key stands is told in the response.

    Args:
        scope: What the key must allow.
        also: What it may allow instead; no such request is counted.
    """

    async def caller_of(
        request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> Caller:
        caller = await identify(request.scope)
        if not any(map(caller.may, (scope, *also))):
            raise ScopeMissing(scope)
        if scope == "ask" and caller.key_id:
            standing = await request.app.state.gate.use.count(caller)
            request.state.rate_headers = standing.headers
            if standing.refused is not None:
                raise standing.refused
        return caller

    return caller_of


async def identify(scope: ASGIScope) -> Caller:
    """Who sent a request; found out once and kept in its state as `caller`.

    Raises:
        KeyRefused: The server asks for a key and there is no good one.
    """
    state = scope.setdefault("state", {})
    known = state.get("caller")
    if isinstance(known, Caller):
        return known
    app_state = scope["app"].state
    caller = EVERYBODY
    if app_state.serve.auth:
        caller = await app_state.gate.keyring.caller(header_of(scope, "authorization"))
    caller = caller.model_copy(
        update={
            "request_id": state.get("request_id", ""),
            "traceparent": header_of(scope, "traceparent") or "",
            "tracestate": header_of(scope, "tracestate") or "",
        }
    )
    state["caller"] = caller
    return caller


def header_of(scope: ASGIScope, name: str) -> str | None:
    """A header's value; None if it is not there.

    Raises:
        KeyRefused: It is `Authorization` and there are several: nobody knows which is meant.
    """
    found = [value for key, value in scope["headers"] if key == name.encode()]
    if len(found) > 1 and name == "authorization":
        raise KeyRefused("the request has several Authorization headers", hint="send one")
    return found[0].decode("latin-1") if found else None
