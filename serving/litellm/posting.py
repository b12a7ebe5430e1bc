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
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

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
        from aiohttp import BytesPayload
        from yarl import URL

        self._payload = BytesPayload
        self._target = target
        base = str(client.base_url).rstrip("/")
        told = {**client.default_headers, **client.auth_headers}
        # all but what the `openai` client tells of itself
        self._headers = {
            k: v for k, v in told.items() if isinstance(v, str) and not k.lower().startswith(("x-stainless", "user-"))
        }
        self._urls = {path: URL(base + path) for path in ("/chat/completions", "/completions")}
        self._proxy = _proxy_of(base)
        self._session: aiohttp.ClientSession | None = None

    def stream(self, path: str, body: Mapping[str, Any]) -> Stream:
        """A POST whose reply comes as events; it is sent when the stream is entered."""
        return Stream(self, path, to_json(body))

    async def post(self, path: str, data: bytes) -> aiohttp.ClientResponse:
        """The reply to a POST of JSON, when its head is there.

        Raises:
            openai.APIStatusError: The endpoint refused, or LiteLLM's own error of the same reply.
            aiohttp.ClientError: It cannot be reached.
            TimeoutError: It was silent for too long.
        """
        session = self._session or self._opened()
        payload = self._payload(data, content_type="application/json")
        response = await session.post(self._urls[path], data=payload, proxy=self._proxy)
        if response.status >= 400:
            try:
                raise await self._refusal(response)
            finally:
                if not response.content.at_eof():
                    response.close()
        return response

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
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, seconds), sock_read=seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
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


class Stream:
    """The events of one reply, as many as come at once; leaving the block before their end closes the connection.

    Raises:
        aiohttp.ClientError: While iterated: the endpoint broke off.
        TimeoutError: Likewise: it was silent for too long.
        ValueError: Likewise: what came is no JSON.
        BadReply: Likewise: what came is no JSON object.
    """

    def __init__(self, poster: Poster, path: str, data: bytes) -> None:
        self._poster, self._path, self._data = poster, path, data
        self._reader = EventReader()
        self._response: Any = None

    async def __aenter__(self) -> Stream:
        self._response = await self._poster.post(self._path, self._data)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._response.content.at_eof():
            self._response.close()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> list[dict[str, Any]]:
        reader, content = self._reader, self._response.content
        while not reader.done:
            piece = await content.readany()
            events = reader.feed(piece) if piece else reader.end()
            if events:
                return events
            if not piece:
                raise StopAsyncIteration
        if not content.at_eof():
            await _drain(self._response)
        raise StopAsyncIteration


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the last event, so that the connection can be used again."""
    import aiohttp

    with suppress(TimeoutError, OSError, aiohttp.ClientError):
        async with asyncio.timeout(DRAIN_S):
            await response.content.read()


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    named = urllib.request.getproxies()
    return named.get(parts.scheme) or named.get("all")
