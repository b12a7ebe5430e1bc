"""Who sent a request, known before its body is read: API keys, scopes, and protection against cross-origin requests.

`AuthMiddleware` identifies the caller and rejects oversized headers and foreign pages, `KeyVerifier` looks keys up, and
`authorised` is the dependency through which a route states the scope that it needs.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, Protocol, get_args
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from ..core.errors import AuthenticationError, PermissionDenied, ReasonError, UserError
from ..core.messages import Frozen
from ..core.settings import ServeSettings
from ..core.store.protocol import ApiKey, KeyLimits
from .api_keys import parse_key, verify_secret
from .errors import send_error

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
        tracestate: What belongs to it.
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


ANONYMOUS = Caller(scopes=SCOPES)
"""The caller where no keys are requested."""

_BEARER = HTTPBearer(
    scheme_name="key", description="A key that `reason keys create` made, as a bearer token.", auto_error=False
)


def authorised(scope: Scope, *also: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller of a request and refuses one that lacks a scope.

    A request with scope "ask" counts for the key's requests a minute; how the key is is reported in the response.

    Args:
        scope: What the key must allow.
        also: What it may allow instead; no such request is counted.
    """

    async def caller_of(
        request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> Caller:
        caller = await identify(request.scope)
        if not any(map(caller.may, (scope, *also))):
            raise PermissionDenied(scope)
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
        AuthenticationError: The server asks for a key and there is no good one.
    """
    state = scope.setdefault("state", {})
    known = state.get("caller")
    if isinstance(known, Caller):
        return known
    app_state = scope["app"].state
    caller = ANONYMOUS
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
        AuthenticationError: It is `Authorization` and there are several: no one knows which is meant.
    """
    values = [value for key, value in scope["headers"] if key == name.encode()]
    if len(values) > 1 and name == "authorization":
        raise AuthenticationError("the request has several Authorization headers", hint="send one")
    return values[0].decode("latin-1") if values else None


CACHE_TTL_S = 3.0
"""How long a key is not retrieved again, in seconds: so long may a revoked one continue to open the door."""
CACHE_SIZE = 4096
_NO_KEY = "this server asks for a key"
_BAD_KEY = "the key is unknown, revoked or expired"
_HOW = "send `Authorization: Bearer KEY`; `reason keys create` on the server makes one"


class KeyStore(Protocol):
    """What is needed of the run store."""

    async def find_key(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None if there is none."""


class KeyVerifier:
    """The keys of a store.

    An unknown id and a wrong secret take the same way and get the same answer.

    Args:
        store: Where the keys are.
        clock: Monotonic seconds; replaced in tests.
        now: Seconds since the epoch; likewise.
    """

    def __init__(
        self, store: KeyStore, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._clock, self._now = store, clock, now
        self._seen: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent a request.

        Args:
            authorization: The header's value; None if there is none.

        Raises:
            AuthenticationError: There is no key, or not a good one.
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
        """The key, retrieved up to once in a few seconds; ids that do not exist are remembered too."""
        seen = self._seen.get(key_id)
        if seen is not None and self._clock() - seen[0] < CACHE_TTL_S:
            return seen[1]
        cached_at = self._clock()
        key = await self._store.find_key(key_id)
        self._seen[key_id] = (cached_at, key)
        self._seen.move_to_end(key_id)
        while len(self._seen) > CACHE_SIZE:
            self._seen.popitem(last=False)
        return key


MAX_HEADER_BYTES = 32 << 10
"""Maximum number of bytes of a request's address and headers."""
_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class CrossOriginRequest(UserError):
    """A page of another origin, in someone's browser, calls a server that asks no one for a key."""

    code = "foreign_page"
    http_status = 403


class HeadersTooLarge(UserError):
    """Address and headers of a request are larger than the server takes."""

    code = "headers_too_large"
    http_status = 431


class AuthMiddleware:
    """Refuses callers before their bodies are read.

    A request that changes something needs a good key, where keys are requested. A server without keys answers anyone
    who reaches it, so it must not be reached through the browsers of people who look at other pages: requests that bear
    another page's origin are refused, and on a loopback address also those that name the server by a domain, which its
    owner may have pointed here.

    Args:
        app: What answers.
        serve: Whether keys are requested, where the server listens, which pages may call.
    """

    def __init__(self, app: ASGIApp, *, serve: ServeSettings) -> None:
        self._app, self._serve = app, serve

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            try:
                _check_header_size(scope)
                if not self._serve.auth:
                    self._refuse_foreign_pages(scope)
                elif scope["method"] in _UNSAFE_METHODS:
                    await identify(scope)
            except ReasonError as e:
                await send_error(e, scope, receive, send, close=scope["method"] in _UNSAFE_METHODS)
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
                "this server asks nobody for a key, so it answers to its address alone, not to a domain",
                hint="call it as 127.0.0.1 or localhost, or serve with keys",
            )


def _check_header_size(scope: ASGIScope) -> None:
    """The server's own limit holds only for what does not come in one piece."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"address and headers have more than {MAX_HEADER_BYTES} bytes", hint="send less")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same_host(host: str, own: str) -> bool:
    """Whether a `Host` header names an address, or a name that no stranger's domain can have."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == own.lower() or "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None for "null" and for nonsense."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
