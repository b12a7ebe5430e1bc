"""Models behind servers of tests, through LiteLLM's interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from reason.core.messages import Completion, Message, Request
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel

from support.wires.server import WireServer


@asynccontextmanager
async def served(
    server: Any, name: str, *, profiles: dict[str, Any] | None = None, **provider: Any
) -> AsyncIterator[LiteLLMModel]:
    """A model of a server that runs meanwhile.

    Args:
        server: The server; `run` serves, and gives its address.
        name: Name of the model.
        profiles: Profiles of the user.
        provider: Settings of the provider.
    """
    async with server.run() as address:
        base = server.kind.api_base(address) if isinstance(server, WireServer) else address
        own = {"api_base": base, "timeout_s": 60.0, **provider}
        settings = Settings(providers={name.partition("/")[0]: own}, profiles=profiles or {})
        model = await load_litellm_model(name, settings)
        try:
            yield model
        finally:
            await model.aclose()


def with_results(messages: Sequence[Message], made: Completion) -> list[Message]:
    """The conversation with a turn of tool calls, and their results."""
    called = Message(role="assistant", content=made.text, tool_calls=made.tool_calls, thought=made.thought)
    results = [Message(role="tool", content="24 degrees", tool_call_id=call.id) for call in made.tool_calls]
    return [*messages, called, *results]


async def turns_of(model: LiteLLMModel, ask: Callable[..., Request], *messages: Message) -> list[Completion]:
    """The turns of a conversation until one without calls."""
    turns: list[Completion] = []
    while not turns or turns[-1].tool_calls:
        [[made]] = await model.generate([ask(*messages)])
        turns.append(made)
        messages = tuple(with_results(messages, made))
    return turns
