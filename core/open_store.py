"""`open_store`: a run store by where it is."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError
from .sql.sql_store import SqlStore
from .sqlite_store import SqliteStore
from .store_place import is_postgres, read_place


async def open_store(where: Path | str) -> SqlStore:
    """Open or make a run store.

    Args:
        where: A file, or `postgresql://USER@HOST:PORT/DATABASE`; a password may be in it, in the environment variable
            PGPASSWORD or in the file that Postgres's own programs read it from.

    Raises:
        UserError: The address is none, or the package for it is missing.
        StoreError: The store cannot be opened or is of a newer version of `reason`.
    """
    place = read_place(where)
    if is_postgres(place):
        try:
            from .postgres_store import PostgresStore
        except ImportError as e:
            raise UserError(
                f"a run store in Postgres needs a package that is not here ({e.name or e})",
                hint="pip install 'reason-orchestrator[postgres]'",
            ) from e
        return await PostgresStore.open(str(place))
    return await SqliteStore.open(Path(place))
