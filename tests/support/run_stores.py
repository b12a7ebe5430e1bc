"""Fixtures of run stores in a file and in Postgres, for the tests that hold for each."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import replace

import psycopg
import pytest
from reason.core.store import open_store
from reason.core.store.postgres import PostgresStore
from reason.core.store.sqlite import _start_time


class Stores:
    """Opens stores on one place, and closes them in the end."""

    def __init__(self, place: str) -> None:
        self.place, self.opened, self._processes = place, [], {}

    async def open(self):
        self.opened.append(await open_store(self.place))
        return self.opened[-1]

    async def open_other(self):
        """A store that the others take for that of another process, which lives until `kill`."""
        if self.place.startswith("postgresql"):
            store = await PostgresStore.open(self.place, lease_s=3600, renew_s=3600)
            self.opened.append(store)
            return store
        store = await self.open()
        process = self._processes[store] = subprocess.Popen(["sleep", "infinity"])
        owner = f"{socket.gethostname()}:{process.pid}:{_start_time(process.pid)}"
        store.ownership = replace(store.ownership, owner=owner)
        return store

    async def kill(self, store):
        """Kill the process of a store, or have its lease run out."""
        if isinstance(store, PostgresStore):
            async with await psycopg.AsyncConnection.connect(self.place, autocommit=True) as db:
                await db.execute("UPDATE owners SET lease_until = 0 WHERE id = %s", (store.owner,))
        else:
            self._processes[store].kill()
            self._processes[store].wait()

    async def close(self):
        for process in self._processes.values():
            process.kill()
            process.wait()
        for store in self.opened:
            await store.aclose()


@pytest.fixture(params=["sqlite", "postgres"])
async def stores(request, tmp_path):
    """A new place for a run store."""
    if request.param == "sqlite":
        place = str(tmp_path / "runs.sqlite3")
    else:
        place = request.getfixturevalue("postgres").new_database()
    made = Stores(place)
    yield made
    await made.close()


@pytest.fixture
async def any_store(stores):
    """An open store of either kind."""
    return await stores.open()
