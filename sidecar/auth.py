"""Authentication before the body is read: API keys, scopes and protection against cross-origin requests.

`AuthMiddleware` authenticates the caller and rejects oversized headers and cross-origin requests. `KeyVerifier` looks
up keys. `authorised` is the dependency that declares the scope of a route.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from ..core.clock import monotonic
from ..core.errors import AuthenticationError, PermissionDenied, ReasonError, UserError
from ..core.settings import ServeSettings
from .api_keys import parse_key, verify_secret
from .errors import send_error
from .key_store import ApiKey, KeyLimits, KeyStore

Scope = Literal["ask", "read", "admin"]
"""Scope of a key: "ask" starts, stops, resumes and deletes runs, "read" reads them, "admin" does both for all."""
SCOPES: frozenset[str] = frozenset(get_args(Scope))


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The authenticated sender of a request.

    Attributes:
        key_id: Id of the key in the store; empty without authentication.
        tenant: Tenant that owns the caller's runs; empty without authentication.
        scopes: Scopes of the key.
        limits: Rate and spending limits of the key.
        request_id: Id of the request in logs; empty for runs that the server starts itself.
        traceparent: The W3C `traceparent` header; empty if absent.
        tracestate: The W3C `tracestate` header; empty if absent.
    """

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[str] = frozenset()
    limits: KeyLimits = NO_LIMITS
    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope; "admin" includes every scope."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """The tenant whose runs are visible to the caller; None means all tenants."""
        return None if "admin" in self.scopes else self.tenant


ANONYMOUS = Caller(scopes=SCOPES)
"""The caller when authentication is off."""

_BEARER = HTTPBearer(
    scheme_name="key",
    description="API key from `reason keys create`, sent as a bearer token or, by Anthropic's clients, in `x-api-key`.",
    auto_error=False,
)


def authorised(scope: Scope, *also: Scope) -> Callable[..., Awaitable[Caller]]:
    """A FastAPI dependency that returns the caller and raises `PermissionDenied` if its key lacks the scope.

    Routes with scope "ask" count towards the key's requests per minute; the response carries the rate limit headers.

    Args:
        scope: The required scope, which also decides whether requests are counted.
        also: Scopes that are accepted instead.
    """

    async def caller_of(
        request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> Caller:
        return await admit(request.scope, scope, *also)

    return caller_of


async def admit(request: ASGIScope, scope: Scope = "ask", *also: Scope) -> Caller:
    """The caller of a request if its key has one of the scopes; see `authorised`.

    Raises:
        PermissionDenied: The key lacks the scope.
        KeyLimitExceeded: The key has reached its limit of requests per minute.
    """
    caller = await identify(request)
    if not any(map(caller.may, (scope, *also))):
        raise PermissionDenied(scope)
    if scope == "ask" and caller.key_id:
        standing = await request["app"].state.gate.use.count(caller)
        request["state"]["rate_headers"] = standing.headers
        if standing.refused is not None:
            raise standing.refused
    return caller


async def identify(scope: ASGIScope) -> Caller:
    """Authenticate a request; the result is cached in its state as `caller`.

    Raises:
        AuthenticationError: Authentication is on and the request has no valid key.
    """
    state = scope.setdefault("state", {})
    known = state.get("caller")
    if isinstance(known, Caller):
        return known
    app_state = scope["app"].state
    caller = ANONYMOUS
    if app_state.serve.auth:
        caller = await app_state.gate.keyring.caller(authorization_of(scope))
    caller = Caller(
        key_id=caller.key_id,
        tenant=caller.tenant,
        scopes=caller.scopes,
        limits=caller.limits,
        request_id=state.get("request_id", ""),
        traceparent=header_of(scope, "traceparent") or "",
        tracestate=header_of(scope, "tracestate") or "",
    )
    state["caller"] = caller
    return caller


def authorization_of(scope: ASGIScope) -> str | None:
    """The `Authorization` header, or what it would be for the key in `x-api-key`; None if there is neither.

    Raises:
        AuthenticationError: The request has several of one of the two headers.
    """
    authorization = header_of(scope, "authorization")
    key = header_of(scope, "x-api-key") if authorization is None else None
    return authorization if key is None else f"Bearer {key}"


def header_of(scope: ASGIScope, name: str) -> str | None:
    """The value of a header; None if it is absent.

    Raises:
        AuthenticationError: The request has several headers with a key.
    """
    wanted = name.encode()
    values = [value for key, value in scope["headers"] if key == wanted]
    if len(values) > 1 and name in ("authorization", "x-api-key"):
        raise AuthenticationError(f"the request has several {name.title()} headers", hint="send one")
    return values[0].decode("latin-1") if values else None


CACHE_TTL_S = 3.0
"""Lifetime of cached keys, in seconds; a revoked key is accepted for at most this long."""
CACHE_SIZE = 4096
_NO_KEY = "this server asks for a key"
_BAD_KEY = "the key is unknown, revoked or expired"
_HOW = "send `Authorization: Bearer KEY` or `x-api-key: KEY`; `reason keys create` on the server makes one"


class KeyVerifier:
    """Verifies keys against the store.

    Unknown ids and wrong secrets take the same code path and get the same response.

    Args:
        store: The store with the keys.
        now: Wall clock in seconds since the epoch, for expiry.
    """

    def __init__(self, store: KeyStore, *, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._seen: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()

    async def caller(self, authorization: str | None) -> Caller:
        """The caller that an `Authorization` header identifies.

        Raises:
            AuthenticationError: The key is missing, malformed, unknown, revoked or expired.
        """
        if not authorization:
            raise AuthenticationError(_NO_KEY, hint=_HOW)
        scheme, _, text = authorization.partition(" ")
        parts = parse_key(text.strip()) if scheme.lower() == "bearer" else None
        if parts is None:
            raise AuthenticationError(_BAD_KEY, hint=_HOW)
        key_id, secret = parts
        key = await self._find(key_id)
        if (
            not verify_secret(secret, None if key is None else key.digest)
            or key is None
            or not key.is_valid(self._now())
        ):
            raise AuthenticationError(_BAD_KEY, hint=_HOW)
        return Caller(key_id=key.id, tenant=key.tenant, scopes=key.scopes, limits=key.limits)

    async def _find(self, key_id: str) -> ApiKey | None:
        """The key, cached for `CACHE_TTL_S`; unknown ids are cached too."""
        seen = self._seen.get(key_id)
        if seen is not None and monotonic() - seen[0] < CACHE_TTL_S:
            return seen[1]
        cached_at = monotonic()
        key = await self._store.find(key_id)
        self._seen[key_id] = (cached_at, key)
        self._seen.move_to_end(key_id)
        while len(self._seen) > CACHE_SIZE:
            self._seen.popitem(last=False)
        return key


MAX_HEADER_BYTES = 32 << 10
"""Maximum size of the URL and the headers of a request, in bytes."""
_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class CrossOriginRequest(UserError):
    """A page of another origin calls a server without authentication from a browser."""

    code = "foreign_page"
    http_status = 403


class HeadersTooLarge(UserError):
    """The URL and the headers of a request exceed `MAX_HEADER_BYTES`."""

    code = "headers_too_large"
    http_status = 431


class AuthMiddleware:
    """Rejects unauthorised requests before their bodies are read.

    With authentication on, requests with unsafe methods need a valid key; routes check the rest. With authentication
    off, the server accepts any client, so web pages must not reach it through a user's browser: requests with a foreign
    `Origin` are rejected, and on a loopback address also requests whose `Host` is another name (DNS rebinding).

    Args:
        app: The next ASGI application.
        serve: Server settings: authentication, host and allowed origins.
    """

    def __init__(self, app: ASGIApp, *, serve: ServeSettings) -> None:
        self._app, self._serve = app, serve

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Check the request and pass it on, or respond with an error."""
        if scope["type"] == "http":
            try:
                _check_header_size(scope)
                if not self._serve.auth:
                    self._refuse_foreign_pages(scope)
                if scope["method"] in _UNSAFE_METHODS:
                    await identify(scope)
            except ReasonError as e:
                await send_error(e, scope, receive, send, unread=True)
                return
        await self._app(scope, receive, send)

    def _refuse_foreign_pages(self, scope: ASGIScope) -> None:
        host = header_of(scope, "host") or ""
        origin = header_of(scope, "origin")
        if origin is not None and origin not in self._serve.cors_origins and _netloc(origin) != host:
            raise CrossOriginRequest(
                "pages of other origins may not call this server", hint="see the setting cors_origins"
            )
        if is_loopback(self._serve.host) and not _is_same_host(host, self._serve.host):
            raise CrossOriginRequest(
                "this server runs without authentication, so the Host header must be an address, not a name",
                hint="use 127.0.0.1 or localhost, or turn authentication on",
            )


def _check_header_size(scope: ASGIScope) -> None:
    """Uvicorn's own limit does not apply to headers that arrive in one piece."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"the URL and the headers exceed {MAX_HEADER_BYTES} bytes", hint="send fewer headers")


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same_host(host: str, own: str) -> bool:
    """Whether a `Host` header is absent, the own host, an IP address or a name that always means this machine.

    Any other name, with a dot or without, may have been pointed to this machine (DNS rebinding).
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if not host or name == own.lower() or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None for "null" and for malformed origins."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
