"""The backend contract on LiteLLM: a server that speaks like vLLM, and one that knows OpenAI's fields alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from reason.core.messages import Prompt
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe


@pytest.fixture(params=["hosted_vllm", "openai"])
async def pair(request, opened) -> AsyncIterator[tuple]:
    async with opened(
        "blue sky", "blue rose", "red grass", provider=request.param, context_tokens=1000, pause_s=0.001
    ) as pair:
        yield pair


@pytest.fixture
def backend(pair):
    return pair[1]


@pytest.fixture
def probe(pair) -> Probe:
    server, model = pair
    ask = Prompt.user("colour?")
    if model.capabilities.prefix:
        others = (ask.with_prefix("re"), ask.with_prefix("blue r"), ask)
    else:
        others = (Prompt.user("echo one"), Prompt.user("echo another"), ask)
    return Probe(
        prompt=ask,
        others=others,
        too_long=Prompt.user("x" * 1000),
        under_way=lambda: server.open,
        tolerance=1e-9,
        reports_stop=server.vllm,
    )
