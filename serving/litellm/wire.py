"""`Wire`: one request to a provider as a stream of chunks that is closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

from .mapping import ParameterMap
from .posting import CONNECT_S, Poster
from .target import Target

STREAMED = {"stream": True}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


class Wire:
    """The connection to one target.

    To providers that speak OpenAI's format, the request that LiteLLM's parameter map makes is sent and its stream is
    read here, below LiteLLM's own: LiteLLM joins all samples of a reply under one finish reason, makes up a finish
    where the stream broke off, drops fields, and takes milliseconds for each call. All other providers go through
    `litellm.acompletion`.

    Attributes:
        client: The `openai` client, for the pages beside chat; None for a provider with another format.
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
            self._poster = Poster(target, self.client)
            self._map = ParameterMap(target)

    def chat(
        self, body: Mapping[str, Any], *, wants_usage: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A chat request; its chunks in OpenAI's JSON, as many as come at once."""
        how = COUNTED if wants_usage else STREAMED
        if self.client is None:
            return self._through_litellm({**body, **how})
        return self._poster.stream("/chat/completions", self._map.chat({**body, **how}))

    def complete(self, body: Mapping[str, Any]) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """A request to `/v1/completions`; its chunks likewise."""
        named = {k: v for k, v in body.items() if k != "extra_body"}
        whole = {"model": self._target.served, **COUNTED, **named, **(body.get("extra_body") or {})}
        return self._poster.stream("/completions", whole)

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
        """LiteLLM's count of a text's tokens; exact for few models, near for most."""
        return int(self._litellm.token_counter(model=self._target.served, text=text))

    async def aclose(self) -> None:
        """Close the connections."""
        if self.client is not None:
            await self._poster.aclose()
            await self.client.close()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[Any]:
        """A deadline that starts anew with every sign of life."""
        seconds = self._target.settings.timeout_s
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds) as clock:
            yield lambda: clock.reschedule(loop.time() + seconds)


async def _whole(stream: Any, renew: Any) -> AsyncGenerator[list[Any], None]:
    """LiteLLM's stream without the finish that it makes up where the provider's stream broke off."""
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
