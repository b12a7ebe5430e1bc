"""`Transport`: one request to a provider as a stream of chunks that is always closed.

The `openai` client makes a typed object of every chunk and scans all its connections for every request, which at 256
concurrent requests costs more than everything else together (`benchmarks/backend_overhead.py`). So requests in OpenAI's
format are sent and their streams read here, with aiohttp, which LiteLLM itself uses for most requests. Address, key,
headers, proxy and certificates are found as the `openai` client finds them.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from ...core.concurrency import PerLoop
from ...core.errors import InvalidResponse
from ..gemini_streams import finish_watcher
from .errors import ErrorResponse, readable_response
from .providers import Target, load_litellm
from .requests import openai_body

if TYPE_CHECKING:
    import aiohttp


MAX_EVENT_BYTES = 64 << 20
"""Maximum bytes of one event; a longer one is an invalid response."""
DONE = b"[DONE]"
"""Last event of a stream in OpenAI's format."""
_EMPTY = (b"", b"\r")


class EventParser:
    """Parses bytes into events; a byte is read once, however they are split.

    Source: HTML Living Standard, section 9.2.6. Differs: a line ends with a line feed, before which a carriage return
    is dropped (lone carriage returns are in no provider's streams); names, ids and comments are ignored.

    Attributes:
        done: Whether the stream has sent its end.
    """

    def __init__(self) -> None:
        self.done = False
        self._tail = bytearray()
        self._data: list[bytes] = []

    def feed(self, data_chunk: bytes) -> list[dict[str, Any]]:
        """The objects that some bytes complete."""
        lines = data_chunk.split(b"\n")
        if len(lines) == 1:
            self._tail += data_chunk
            if len(self._tail) > MAX_EVENT_BYTES:
                raise InvalidResponse(f"an event of the stream has more than {MAX_EVENT_BYTES} bytes")
            return []
        if self._tail:
            lines[0] = bytes(self._tail) + lines[0]
        self._tail = bytearray(lines.pop())
        objects: list[dict[str, Any]] = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:])
            elif data and line in _EMPTY:
                event = (data[0] if len(data) == 1 else b"\n".join(data)).strip()
                data.clear()
                if event == DONE:
                    self.done = True
                elif event and not self.done:
                    value = from_json(event)
                    if not isinstance(value, dict):
                        raise InvalidResponse("an event of the stream is not a JSON object")
                    objects.append(value)
        return objects

    def end(self) -> list[dict[str, Any]]:
        """The object without its closing empty line, if there is one."""
        return self.feed(b"\n\n") if self._tail or self._data else []


OPENAI_API = "https://api.openai.com/v1"
CONNECT_S = 10.0
"""Maximum time to wait for a connection, in seconds."""
KEEP_S = 4.0
"""Seconds that an unused connection is kept: less than the 5 s after which servers on uvicorn, as vLLM's, close it."""
DRAIN_S = 1.0
"""Maximum wait for the end of a response after its last event, in seconds; then its connection is closed."""
MAX_ERROR_BYTES = 1 << 20
"""Maximum bytes that are read of a response that reports an error."""


class HttpClient:
    """Sends requests to one endpoint in OpenAI's format.

    Attributes:
        base_url: Its address, to which the paths of requests are added.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.base_url = (target.api_base or OPENAI_API).rstrip("/")
        self._headers = {"Accept": "application/json", "Authorization": f"Bearer {target.api_key or 'none'}"}
        if target.provider == "openai":
            named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
            self._headers |= {name: value for name, key in named.items() if (value := os.environ.get(key))}
        self._headers |= target.settings.headers
        self._proxy = proxy_of(self.base_url)
        self._sessions = PerLoop(self._open_session, lambda session: session.close())

    def stream(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> EventStream:
        """A POST with a streamed response; it is sent when the stream is entered."""
        return EventStream(self, path, to_json(body), headers)

    async def get_json(self, path: str) -> Any:
        """The JSON of a page. Errors as `post`, and ValueError for a page that is not JSON."""
        return await self._read(await self._send("GET", path))

    async def post_json(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """The JSON of the response to a POST of JSON. Errors as `post`, and ValueError for a page that is not JSON."""
        return await self._read(await self.post(path, to_json(body), headers))

    async def post(self, path: str, data: bytes, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """The response to a POST of JSON, when its headers are received."""
        return await self._send("POST", path, data, headers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def _send(
        self, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        from aiohttp import BytesPayload

        session = self._sessions.get()
        url = path if path.startswith(("http://", "https://")) else self.base_url + path
        payload = None if data is None else BytesPayload(data, content_type="application/json")
        response = await session.request(method, url, data=payload, headers=headers, proxy=self._proxy)
        if response.status >= 400:
            try:
                raise await self._refusal(response)
            finally:
                if not response.content.at_eof():
                    response.close()
        return response

    async def _read(self, response: aiohttp.ClientResponse) -> Any:
        content = await response.read()
        with readable_response(self.base_url):
            return from_json(content)

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        seconds = self._target.settings.timeout_s
        return aiohttp.ClientSession(
            # the limiter bounds the requests, so the connections are not bounded once more
            connector=aiohttp.TCPConnector(limit=0, ssl=_certificates(self.base_url), keepalive_timeout=KEEP_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, seconds), sock_read=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )

    async def _refusal(self, response: aiohttp.ClientResponse) -> ErrorResponse:
        """The error of a response of status 400 or more."""
        text = (await response.content.read(MAX_ERROR_BYTES)).decode(errors="replace")
        try:
            page = json.loads(text)
        except ValueError:
            page = None
        body = page.get("error", page) if isinstance(page, dict) else None
        message = body.get("message") if isinstance(body, dict) else body
        return ErrorResponse(str(message or text), response.status, response.headers, body)


def _certificates(url: str) -> ssl.SSLContext | bool:
    """The certificates that a server is verified with: `SSL_CERT_FILE`, or those of `certifi`, as httpx does."""
    if not url.startswith("https"):
        return True
    import certifi

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())


class EventStream:
    """The events of one response, in batches; leaving the block before their end closes the connection.

    Raises:
        aiohttp.ClientError: While iterated: the connection broke.
        TimeoutError: While iterated: the endpoint did not respond in time.
        ValueError: While iterated: an event is not JSON.
        InvalidResponse: While iterated: an event is not a JSON object.
    """

    def __init__(self, client: HttpClient, path: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._client, self._path, self._data, self._headers = client, path, data, headers
        self._reader = EventParser()
        self._response: Any = None

    async def __aenter__(self) -> EventStream:
        self._response = await self._client.post(self._path, self._data, self._headers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._response.content.at_eof():
            self._response.close()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> list[dict[str, Any]]:
        reader, content = self._reader, self._response.content
        while not reader.done:
            data_chunk = await content.readany()
            with readable_response(self._client.base_url):
                events = reader.feed(data_chunk) if data_chunk else reader.end()
            if events:
                return events
            if not data_chunk:
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


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    named = urllib.request.getproxies()
    return named.get(parts.scheme) or named.get("all")


COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


class Transport:
    """The connection to one target.

    Providers in OpenAI's format are called without LiteLLM, which joins all samples of a response under one finish
    reason, invents a finish where the stream broke off, drops fields, and takes milliseconds for each call and seconds
    to import. All other providers are called through `litellm.acompletion`.

    Attributes:
        client: Sends requests in OpenAI's format; None for a provider with another one.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.client = HttpClient(target) if target.openai_wire else None

    @property
    def http(self) -> HttpClient:
        """The client, where the provider is known to speak OpenAI's format."""
        assert self.client is not None
        return self.client

    def chat(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A chat request; its chunks in OpenAI's JSON, in batches."""
        if self.client is None:
            return self._through_litellm({**body, **COUNTED})
        json_body = openai_body({**body, **COUNTED}, self._target)
        return self.client.stream("/chat/completions", json_body, body.get("extra_headers"))

    def complete(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A request to `/v1/completions`; its chunks in OpenAI's JSON, in batches."""
        sent = {k: v for k, v in body.items() if k != "extra_headers"}
        json_body = {"model": self._target.served, **COUNTED, **sent}
        return self.http.stream("/completions", json_body, body.get("extra_headers"))

    @asynccontextmanager
    async def _through_litellm(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[list[Any]]]:
        target = self._target
        how: dict[str, Any] = {
            "model": target.name,
            "timeout": target.settings.timeout_s,
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": False,
            "caching": False,
            "no-log": True,
            "api_base": target.api_base,
            "api_key": target.api_key,
            "extra_headers": {**target.settings.headers, **body.get("extra_headers", {})},
        }
        async with self._deadline() as renew:
            with readable_response(target.endpoint):
                stream = await load_litellm().acompletion(**{**body, **how})
            async with aclosing(_whole(stream, renew)) as chunks:
                try:
                    yield chunks
                finally:
                    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
                    if close is not None:
                        await asyncio.shield(close())

    async def aclose(self) -> None:
        """Close the connections."""
        if self.client is not None:
            await self.client.aclose()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[Any]:
        """A deadline that restarts with every chunk."""
        seconds = self._target.settings.timeout_s
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds) as clock:
            yield lambda: clock.reschedule(loop.time() + seconds)


async def _whole(stream: Any, renew: Any) -> AsyncGenerator[list[Any], None]:
    """LiteLLM's stream without the finish that it invents where the provider's stream broke off."""
    held: Any = None
    is_finished = finish_watcher(stream) or (lambda: getattr(stream, "received_finish_reason", None) is not None)
    async for chunk in stream:
        renew()
        if held is not None:
            yield [held]
        held = None
        event = chunk.model_dump(warnings=False)
        if any(choice.finish_reason is not None for choice in chunk.choices):
            held = event
            if not is_finished():
                return
        else:
            yield [event]
    if held is not None:
        yield [held]
