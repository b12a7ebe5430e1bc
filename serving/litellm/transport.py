"""`Transport`: one request to a provider as a stream of chunks that is always closed.

The `openai` client makes a typed object of every chunk and scans all its connections for every request, which at 256
concurrent requests costs more than everything else together (`benchmarks/backend_overhead.py`). So streams in OpenAI's
format are read here, with aiohttp, which LiteLLM itself uses for most requests. Address, key, headers and certificates
are those that LiteLLM and the `openai` client derive from the settings.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from ...core.errors import InvalidResponse
from .providers import Target, load_litellm
from .requests import ParameterMap

if TYPE_CHECKING:
    import aiohttp


MAX_EVENT_BYTES = 64 << 20
"""Maximum bytes of one event: more is no response."""
DONE = b"[DONE]"
"""Last event of a stream in OpenAI's format."""
_EMPTY = (b"", b"\r")


class ServerSentEvents:
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
        """The objects that some bytes complete.

        Raises:
            InvalidResponse: An event is too long, or no JSON object.
            ValueError: An event is no JSON.
        """
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
                event = data[0] if len(data) == 1 else b"\n".join(data)
                data.clear()
                self._take(event.strip(), objects)
        return objects

    def end(self) -> list[dict[str, Any]]:
        """The object without its closing empty line, if there is one.

        Raises:
            InvalidResponse: It is no JSON object.
            ValueError: It is no JSON.
        """
        return self.feed(b"\n\n") if self._tail or self._data else []

    def _take(self, data: bytes, objects: list[dict[str, Any]]) -> None:
        if data == DONE:
            self.done = True
        elif data and not self.done:
            value = from_json(data)
            if not isinstance(value, dict):
                raise InvalidResponse("an event of the stream is no JSON object")
            objects.append(value)


CONNECT_S = 10.0
"""Maximum time to wait for a connection, in seconds."""
KEEP_S = 4.0
"""Seconds that an unused connection is kept: less than the 5 s after which servers on uvicorn, as vLLM's, close it."""
DRAIN_S = 1.0
"""Maximum wait for the end of a response after its last event, in seconds; then its connection is closed."""
MAX_ERROR_BYTES = 1 << 20
"""Maximum bytes that are read of a response that reports an error."""


class StreamingClient:
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
        headers = {**client.default_headers, **client.auth_headers}
        # all but what the `openai` client reports itself
        self._headers = {
            k: v
            for k, v in headers.items()
            if isinstance(v, str) and not k.lower().startswith(("x-stainless", "user-"))
        }
        self._urls = {path: URL(base + path) for path in ("/chat/completions", "/completions")}
        self._proxy = _proxy_of(base)
        self._session: aiohttp.ClientSession | None = None

    def stream(self, path: str, body: Mapping[str, Any]) -> EventStream:
        """A POST with a streamed response; it is sent when the stream is entered."""
        return EventStream(self, path, to_json(body))

    async def post(self, path: str, data: bytes) -> aiohttp.ClientResponse:
        """The response to a POST of JSON, when its headers are received.

        Raises:
            openai.APIStatusError: The endpoint refused, or LiteLLM's own error for the response.
            aiohttp.ClientError: It cannot be reached.
            TimeoutError: It did not respond in time.
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
        """The exception that LiteLLM raises for a response of status 400 or more."""
        import httpx
        import openai

        text = (await response.content.read(MAX_ERROR_BYTES)).decode(errors="replace")
        try:
            headers = json.loads(text)
        except ValueError:
            headers = None
        body = headers.get("error", headers) if isinstance(headers, dict) else None
        message = body.get("message") if isinstance(body, dict) else None
        kinds = {400: openai.BadRequestError, 401: openai.AuthenticationError, 429: openai.RateLimitError}
        reply: Any = httpx.Response(
            response.status,
            headers=[(k, v) for k, v in response.headers.items() if k.lower() != "content-encoding"],
            text=text,
            request=httpx.Request("POST", str(response.url)),
        )
        error = kinds.get(response.status, openai.APIStatusError)(str(message or text), response=reply, body=body)
        try:
            load_litellm().exception_type(
                model=self._target.served,
                original_exception=error,
                custom_llm_provider=self._target.provider,
            )
        except Exception as e:  # noqa: BLE001 (it raises what it has error)
            return e
        return error


class EventStream:
    """The events of one response, in batches; leaving the block before their end closes the connection.

    Raises:
        aiohttp.ClientError: While iterated: the connection broke.
        TimeoutError: While iterated: the endpoint did not respond in time.
        ValueError: While iterated: an event is no JSON.
        InvalidResponse: While iterated: an event is no JSON object.
    """

    def __init__(self, poster: StreamingClient, path: str, data: bytes) -> None:
        self._poster, self._path, self._data = poster, path, data
        self._reader = ServerSentEvents()
        self._response: Any = None

    async def __aenter__(self) -> EventStream:
        self._response = await self._poster.post(self._path, self._data)
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


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    named = urllib.request.getproxies()
    return named.get(parts.scheme) or named.get("all")


COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


class Transport:
    """The connection to one target.

    For providers that use OpenAI's format, the request of LiteLLM's parameter map is sent and its stream is read here,
    below LiteLLM's own: LiteLLM joins all samples of a response under one finish reason, invents a finish where the
    stream broke off, drops fields, and takes milliseconds for each call. All other providers are called through
    `litellm.acompletion`.

    Attributes:
        client: The `openai` client, for the pages in addition to chat; None for a provider with another format.
    """

    def __init__(self, target: Target) -> None:
        import litellm

        self._litellm = litellm
        self._target = target
        self.client: Any = None
        if target.openai_wire:
            import openai

            self.client = openai.AsyncOpenAI(
                api_key=target.api_key or "none",
                base_url=target.api_base,
                max_retries=0,
                timeout=openai.Timeout(target.settings.timeout_s, connect=min(CONNECT_S, target.settings.timeout_s)),
                default_headers=target.settings.headers,
            )
            self._poster = StreamingClient(target, self.client)
            self._map = ParameterMap(target)

    def chat(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A chat request; its chunks in OpenAI's JSON, in batches."""
        if self.client is None:
            return self._through_litellm({**body, **COUNTED})
        return self._poster.stream("/chat/completions", self._map.chat({**body, **COUNTED}))

    def complete(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A request to `/v1/completions`; its chunks in OpenAI's JSON, in batches."""
        named = {k: v for k, v in body.items() if k != "extra_body"}
        event = {"model": self._target.served, **COUNTED, **named, **(body.get("extra_body") or {})}
        return self._poster.stream("/completions", event)

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
            "extra_headers": target.settings.headers,
        }
        async with self._deadline() as renew:
            stream = await self._litellm.acompletion(**body, **how)
            async with aclosing(_whole(stream, renew)) as chunks:
                try:
                    yield chunks
                finally:
                    await _close(stream)

    def count(self, text: str) -> int:
        """LiteLLM's count of a text's tokens: exact for some models, approximate for most."""
        return int(self._litellm.token_counter(model=self._target.served, text=text))

    async def aclose(self) -> None:
        """Close the connections."""
        if self.client is not None:
            await self._poster.aclose()
            await self.client.close()

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
    async for chunk in stream:
        renew()
        if held is not None:
            yield [held]
        held = None
        event = chunk.model_dump(warnings=False)
        if any(choice.finish_reason is not None for choice in chunk.choices):
            held = event
            if getattr(stream, "received_finish_reason", None) is None:
                return
        else:
            yield [event]
    if held is not None:
        yield [held]


async def _close(stream: Any) -> None:
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is not None:
        await asyncio.shield(_awaited(close))


async def _awaited(close: Any) -> None:
    await close()
