"""The backend contract on one name with two endpoints, one of which fails now and then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from reason.core.messages import Prompt
from reason.core.settings import Settings
from reason.serving.litellm.errors import RetryPolicy
from reason.serving.litellm.factory import load_litellm_model
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies


@pytest.fixture
async def trio() -> AsyncIterator[SimpleNamespace]:
    texts = ("blue sky", "blue rose", "red grass")
    servers = [FaultServer(ScriptedModel(replies(*texts), context_tokens=1000), pause_s=0.001) for _ in range(2)]
    async with servers[0].run() as one, servers[1].run() as other:
        given = {"endpoints": [{"api_base": one}, {"api_base": other}]}
        model = await load_litellm_model("hosted_vllm/small", Settings(providers={"hosted_vllm": given}))
        model._retrying = RetryPolicy(initial_wait_s=0.01)
        servers[0].fault = lambda n: "cut" if n % 3 == 0 else None
        yield SimpleNamespace(servers=servers, model=model)
        await model.aclose()


@pytest.fixture
def backend(trio):
    return trio.model


@pytest.fixture
def probe(trio) -> Probe:
    ask = Prompt.user("colour?")
    return Probe(
        prompt=ask,
        others=(ask.with_prefix("re"), ask.with_prefix("blue r"), ask),
        too_long=Prompt.user("x" * 1000),
        under_way=lambda: sum(s.open for s in trio.servers),
        tolerance=1e-9,
    )
