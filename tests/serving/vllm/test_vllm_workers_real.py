"""Workers of a real model in vLLM read one another's pages: a fact on B's page is quoted by A."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from support.split_facts import FACTS, quotes

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(_vllm: None, smollm2_files: ModelFiles) -> AsyncIterator[Any]:
    from reason.serving.vllm.model import VllmModel

    settings = VllmSettings(
        shared_workers=True,
        engine={"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20, "dtype": "float32", "max_num_seqs": 8},
    )
    opened = await asyncio.to_thread(VllmModel.load, "vllm/smollm2-135m", smollm2_files, settings)
    await opened.check_logits_processors()
    yield opened
    await opened.aclose()


@pytest.mark.parametrize(("layout", "is_visible"), [("combined", True), ("contiguous", True), ("interleaved", False)])
async def test_only_an_unfinished_page_of_the_interleaved_layout_is_hidden(model, layout, is_visible):
    assert await quotes(model, layout) == [(is_visible, False)] * len(FACTS)
