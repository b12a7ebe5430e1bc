"""Workers of a real model read one another's pages: a fact on B's page is quoted by A."""

import pytest
from support.split_facts import FACTS, quotes

pytestmark = pytest.mark.real


async def test_a_quotes_the_page_of_b(smollm2):
    assert await quotes(smollm2, "combined", FACTS[:1]) == [(True, False)]


@pytest.mark.nightly
@pytest.mark.parametrize(("layout", "is_visible"), [("combined", True), ("contiguous", True), ("interleaved", False)])
async def test_only_an_unfinished_page_of_the_interleaved_layout_is_hidden(smollm2, layout, is_visible):
    assert await quotes(smollm2, layout) == [(is_visible, False)] * len(FACTS)
