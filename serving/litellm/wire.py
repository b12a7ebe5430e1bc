"""`Wire`: one request to a provider as a stream of chunks that is closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from .target import Target

CONNECT_S = 10.0
"""Longest time to wait for a connection, in seconds."""


class Wire:
    """The connection to one target.

    Providers that speak OpenAI's format are read from the `openai` client's stream, below LiteLLM's own: LiteLLM joins
    all samples of a reply under one finish reason, makes up a finish where the stream broke off, and drops fields.

    Attributes:
        client: The `openai` client; None for a provider with another format.
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

    @asynccontextmanager
    async def chat(self, body: Mapping[str, Any], *, wants_usage: bool) -> AsyncIterator[AsyncIterator[Any]]:
        """A chat request; its chunks."""
        target = self._target
        how: dict[str, Any] = {
            "model": f"openai/{target.served}" if target.openai_wire else target.name,
            "stream": True,
            "timeout": target.settings.timeout_s,
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": False,
            "caching": False,
            "no-log": True,
        }
        if wants_usage:
            how["stream_options"] = {"include_usage": True}
        if self.client is not None:
            how["client"] = self.client
        else:
            how |= {"api_base": target.api_base, "api_key": target.api_key, "extra_headers": target.settings.headers}
        async with self._deadline() as renew:
            stream = await self._litellm.acompletion(**body, **how)
            inner = getattr(stream, "completion_stream", None)
            is_raw = self.client is not None and type(inner).__module__.partition(".")[0] == "openai"
            async with aclosing(_renewing(inner if is_raw else _whole(stream), renew)) as chunks:
                try:
                    yield chunks
                finally:
                    await _close(inner if is_raw else stream)

    @asynccontextmanager
    async def complete(self, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[Any]]:
        """A request to `/v1/completions`; its chunks."""
        async with self._deadline() as renew:
            stream = await self.client.completions.create(
                model=self._target.served, stream=True, stream_options={"include_usage": True}, **body
            )
            async with aclosing(_renewing(stream, renew)) as chunks:
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
            await self.client.close()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[Any]:
        """A deadline that starts anew with every sign of life."""
        seconds = self._target.settings.timeout_s
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds) as clock:
            yield lambda: clock.reschedule(loop.time() + seconds)


async def _renewing(stream: Any, renew: Any) -> AsyncGenerator[Any, None]:
    async for chunk in stream:
        renew()
        yield chunk


async def _whole(stream: Any) -> AsyncIterator[Any]:
    """LiteLLM's stream without the finish that it makes up where the provider's stream broke off."""
    held: Any = None
    async for chunk in stream:
        if held is not None:
            yield held
        held = None
        if any(choice.finish_reason is not None for choice in chunk.choices):
            held = chunk
            if getattr(stream, "received_finish_reason", None) is None:
                return
        else:
            yield chunk
    if held is not None:
        yield held


async def _close(stream: Any) -> None:
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is not None:
        await asyncio.shield(_awaited(close))


async def _awaited(close: Any) -> None:
    await close()
