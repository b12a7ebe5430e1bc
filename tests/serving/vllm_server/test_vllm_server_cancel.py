"""A run that is cancelled leaves the server idle: its gauge of running requests returns to 0, 50 times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from reason.core.messages import Chunk, LogitsProcessorSpec, Prompt, Request, SamplingParams
from support.vllm_server import RealServer
from support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
TIMES = 10
"""Of each kind; there are five."""


def endless(i: int, **more: Any) -> Request:
    sampling = SamplingParams(**{"temperature": 1.0, "seed": i, "max_tokens": 600, "ignore_eos": True} | more)
    return Request(prompt=Prompt.user(f"Tell story number {i}."), sampling=sampling)


async def idle(server: RealServer) -> None:
    await wait_until(lambda: asyncio.to_thread(lambda: not server.under_way()))


async def busy(server: RealServer) -> None:
    await wait_until(lambda: asyncio.to_thread(server.under_way))


async def cancelled(server: RealServer, hosted: Any, requests: list[Request], when: Callable[[int], bool]) -> None:
    """Cancel when so many tokens have come; at 0 tokens, as soon as the server has the request."""
    tokens = 0
    ready = asyncio.Event()

    def listen(chunk: Chunk) -> None:
        nonlocal tokens
        tokens += len(chunk.token_ids)
        if when(tokens):
            ready.set()

    task = asyncio.create_task(hosted.generate(requests, listen))
    await (busy(server) if when(0) else ready.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(server)


@pytest.mark.parametrize("kind", ["before the first token", "in the middle", "n > 1", "a batch", "under hooks"])
async def test_cancelling_leaves_the_server_idle(server, hosted, kind):
    draw = random.Random(kind)
    await idle(server)
    for i in range(TIMES):
        after = draw.randint(1, 24)
        requests = [endless(i)]
        when = lambda n, after=after: n >= after  # noqa: E731
        if kind == "before the first token":
            requests = [endless(i).model_copy(update={"prompt": Prompt.user(f"{i} " + "word " * 300)})]
            when = lambda n: True  # noqa: E731
        elif kind == "n > 1":
            requests = [endless(i, n=5)]
        elif kind == "a batch":
            requests = [endless(100 * i + k, n=2) for k in range(12)]  # more than the server runs at once
        elif kind == "under hooks":
            requests = [endless(i, n=2, logits_processors=(LogitsProcessorSpec(name="entropy_probe"),))]
        await cancelled(server, hosted, requests, when)
    [[after]] = await hosted.generate([endless(0, max_tokens=2)])
    assert after.ok


async def test_closing_the_model_does_too(server, settings_for, hosted):
    from reason.serving.litellm.factory import load_litellm_model

    model = await load_litellm_model(hosted.name, settings_for())
    task = asyncio.create_task(model.generate([endless(1, n=3)]))
    await busy(server)
    await model.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(server)
