"""Runs that brains are asked in."""

import pytest
from support.knowledge_sources import BrainRuns
from reason.core.sqlite_store import SqliteStore


@pytest.fixture
async def runs(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield BrainRuns(store)
    await store.aclose()
