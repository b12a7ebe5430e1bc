"""The backend contract on `VllmModel`: vLLM's asynchronous engine in processes of its own, fp32."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.messages import Prompt
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.real]


@pytest.fixture
def backend(vllm_model: Any) -> Any:
    return vllm_model


@pytest.fixture
def probe(vllm_model: Any) -> Probe:
    return Probe(
        prompt=Prompt.user("What is the capital of France?"),
        others=(Prompt.user("Name a colour."), Prompt.user("Say hello."), Prompt.user("Count to five.")),
        too_long=Prompt.user("word " * 2000),
        under_way=lambda: int(vllm_model.num_running),
        tolerance=1e-3,
    )
