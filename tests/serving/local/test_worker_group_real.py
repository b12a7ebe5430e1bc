"""Workers of a real model read one another's pages: a fact on B's page is quoted by A."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles
from reason.serving.worker_group import Layout
from support.split_facts import FACTS, quotes

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(smollm2_files: ModelFiles) -> AsyncIterator[LocalModel]:
    opened = LocalModel.load(smollm2_files, weight_format="fp32", threads=1)
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("layout", ["combined", "contiguous"])
async def test_a_quotes_the_page_of_b(model: LocalModel, layout: Layout) -> None:
    assert await quotes(model, layout) == {end: (True, False) for _, end in FACTS}


async def test_a_does_not_see_an_unfinished_page_in_the_interleaved_layout(model: LocalModel) -> None:
    assert await quotes(model, "interleaved") == {end: (False, False) for _, end in FACTS}
