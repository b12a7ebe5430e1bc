"""Run stores of both kinds, for the tests that hold for each."""

from __future__ import annotations

import psycopg
import pytest
from reason.core.store import open_store
from reason.core.store.postgres import PostgresStore


class Stores:
    """Opens stores on one place, and closes them in the end."""

    def __init__(self, place: str) -> None:
        self.place, self.opened = place, []

    async def open(self):
        self.opened.append(await open_store(self.place))
        return self.opened[-1]

    async def forget(self, living):
        """Have the leases of all owners run out but one's; of a file, processes that are gone are known to be."""
        if isinstance(living, PostgresStore):
            async with await psycopg.AsyncConnection.connect(self.place, autocommit=True) as db:
                await db.execute("UPDATE owners SET lease_until = 0 WHERE id <> %s", (living.owner,))


@pytest.fixture(params=["sqlite", "postgres"])
async def stores(request, tmp_path):
    """A new place for a run store."""
    if request.param == "sqlite":
        place = str(tmp_path / "runs.sqlite3")
    else:
        place = request.getfixturevalue("postgres").new_database()
    made = Stores(place)
    yield made
    for store in made.opened:
        await store.aclose()


@pytest.fixture
async def any_store(stores):
    """An open store of either kind."""
    return await stores.open()
