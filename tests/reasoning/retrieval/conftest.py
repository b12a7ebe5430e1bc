"""Runs that sources are asked in."""

import pytest
from reason.core.store.sqlite import SqliteStore
from support.knowledge_sources import KnowledgeRuns


@pytest.fixture
async def runs(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield KnowledgeRuns(store)
    await store.aclose()
