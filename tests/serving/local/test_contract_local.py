"""The backend contract on the default model in the embedded engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from reason.core.messages import Prompt
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def backend(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1, kv_cache_bytes=256 << 20)
    yield model
    asyncio.run(model.aclose())


@pytest.fixture
def probe(backend: LocalModel) -> Probe:
    context = backend.capabilities.context_tokens
    assert context is not None
    return Probe(
        prompt=Prompt.user("Name a colour."),
        others=(Prompt.user("Name a city in France."), Prompt.user("What is 2 + 3?")),
        too_long=Prompt.user("word " * (context + 1)),
        under_way=lambda: backend.num_running,
        tolerance=1e-3,
    )
