"""Fixtures of the tests of strategies and of what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from reason.core.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A run store of one test."""
    sqlite = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield sqlite
    await sqlite.aclose()
