"""`Doorkeeper`: who sent a request is known before its body is read, and no foreign page speaks for its reader."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ...core.errors import ReasonError, UserError
from ...core.serve_settings import ServeSettings
from ..callers import header_of, identify
from ..errors import refuse

HEADER_BYTES = 32 << 10
"""Most bytes of a request's address and headers."""
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ForeignPage(UserError):
    """A page of another origin, in somebody's browser, calls a server that asks nobody for a key."""

    code = "foreign_page"
    http_status = 403


class HeadersTooLarge(UserError):
    """Address and headers of a request are larger than the server takes."""

    code = "headers_too_large"
    http_status = 431


class Doorkeeper:
    """Refuses callers before their bodies are read.

    A request that changes something needs a good key, where keys are asked for. A server without keys answers whoever
    reaches it, so it must not be reached through the browsers of people who look at other pages: requests that bear
    another page's origin are refused, and on a loopback address also those that name the server by a domain, which
    its owner may have pointed here.

    Args:
        app: What answers.
        serve: Whether keys are asked for, where the server listens, which pages may call.
    """

    def __init__(self, app: ASGIApp, *, serve: ServeSettings) -> None:
        self._app, self._serve = app, serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            try:
                _refuse_floods(scope)
                if not self._serve.auth:
                    self._refuse_foreign_pages(scope)
                elif scope["method"] in _CHANGES:
                    await identify(scope)
            except ReasonError as e:
                await refuse(e, scope, receive, send, close=scope["method"] in _CHANGES)
                return
        await self._app(scope, receive, send)

    def _refuse_foreign_pages(self, scope: Scope) -> None:
        host = header_of(scope, "host") or ""
        origin = header_of(scope, "origin")
        if origin is not None and origin not in self._serve.cors_origins and _netloc(origin) != host:
            raise ForeignPage("pages of other origins may not call this server", hint="see the setting cors_origins")
        if is_loopback(self._serve.host) and not _is_here(host, self._serve.host):
            raise ForeignPage(
                "this server asks nobody for a key, so it answers to its address alone, not to a domain",
                hint="call it as 127.0.0.1 or localhost, or serve with keys",
            )


def _refuse_floods(scope: Scope) -> None:
    """The server's own limit holds only for what does not come in one piece."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        raise HeadersTooLarge(f"address and headers have more than {HEADER_BYTES} bytes", hint="send less")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_here(host: str, own: str) -> bool:
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
