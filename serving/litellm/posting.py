"""`Poster`: requests to one endpoint in OpenAI's format, whose streamed replies come as plain JSON objects.

The `openai` client makes a typed object of every piece of a reply and looks through all its connections for every
request, which at 256 requests at once costs more than everything else together (`benchmarks/backend_overhead.py`). So
streams are read here, from aiohttp, which LiteLLM itself sends most requests with. Address, key, headers and
certificates are what LiteLLM and the `openai` client have made of the settings.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from .events import EventReader
from .target import Target, load_litellm

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10.0
"""Longest time to wait for a connection, in seconds."""
KEEP_S = 4.0
"""Seconds that an unused connection is kept: less than the 5 s after which servers on uvicorn, as vLLM's, close it."""
DRAIN_S = 1.0
"""Longest wait for the end of a reply that has said that it is complete, in seconds; then its connection is closed."""
LONGEST_ERROR = 1 << 20
"""Most bytes that are read of a reply that tells of an error."""


class Poster:
    """Sends requests to one endpoint.

    Args:
        target: The endpoint.
        client: The `openai` client of the same endpoint.
    """

    def __init__(self, target: Target, client: Any) -> None:
        self._target = target
        self._base = str(client.base_url).rstrip("/")
        told = {**client.default_headers, **client.auth_headers}
        self._headers = {k: v for k, v in told.items() if isinstance(v, str)}
        self._proxy = _proxy_of(self._base)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """POST and read the events that come back; leaving the block before their end closes the connection.

        Raises:
            openai.APIStatusError: The endpoint refused, or LiteLLM's own error of the same reply.
            aiohttp.ClientError: It cannot be reached or broke off.
            TimeoutError: It was silent for too long.
        """
        data = json.dumps(body).encode()
        async with self._opened().post(
            self._base + path, data=data, headers=self._headers, proxy=self._proxy
        ) as response:
            try:
                if response.status >= 400:
                    raise await self._refusal(response)
                async with aclosing(_events(response)) as events:
                    yield events
            finally:
                if not response.content.at_eof():
                    response.close()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp
            from litellm.llms.custom_httpx.http_handler import get_ssl_configuration

            seconds = self._target.settings.timeout_s
            certificates: Any = get_ssl_configuration()
            self._session = aiohttp.ClientSession(
                # the limiter bounds the requests, so the connections are not bounded once more
                connector=aiohttp.TCPConnector(limit=0, ssl=certificates, keepalive_timeout=KEEP_S),
                timeout=aiohttp.ClientTimeout(total=None, connect=min(CONNECT_S, seconds), sock_read=seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        """A reply of status 400 or more as the exception that LiteLLM makes of it."""
        import httpx
        import openai

        text = (await response.content.read(LONGEST_ERROR)).decode(errors="replace")
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        body = told.get("error", told) if isinstance(told, dict) else None
        message = body.get("message") if isinstance(body, dict) else None
        kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 429: openai.RateLimitError}
        reply: Any = httpx.Response(
            response.status,
            headers=[(k, v) for k, v in response.headers.items() if k.lower() != "content-encoding"],
            text=text,
            request=httpx.Request("POST", str(response.url)),
        )
        made = kinds.get(response.status, openai.APIStatusError)(str(message or text), response=reply, body=body)
        try:
            load_litellm().exception_type(
                model=self._target.served,
                original_exception=made,
                custom_llm_provider=self._target.provider,
            )
        except Exception as e:  # noqa: BLE001 (it raises what it has made)
            return e
        return made


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    reader = EventReader()
    async for piece in response.content.iter_any():
        for event in reader.feed(piece):
            yield _checked(event)
        if reader.done:
            break
    for event in reader.end():
        yield _checked(event)
    if not response.content.at_eof():
        await _drain(response)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the last event, so that the connection can be used again."""
    import aiohttp

    with suppress(TimeoutError, OSError, aiohttp.ClientError):
        async with asyncio.timeout(DRAIN_S):
            await response.content.read()


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    """The event, if it does not tell of an error.

    Raises:
        openai.APIError: It does.
    """
    error = event.get("error")
    if error:
        import httpx
        import openai

        message = error.get("message") if isinstance(error, dict) else error
        request: Any = httpx.Request("POST", "stream:")
        raise openai.APIError(str(message), request, body=error)
    return event


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    named = urllib.request.getproxies()
    return named.get(parts.scheme) or named.get("all")
