"""The run store: `open_store` opens it, in a SQLite file or a Postgres database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .location import is_postgres_url, parse_location

if TYPE_CHECKING:
    from .sql import RunStore


async def open_store(location: Path | str) -> RunStore:
    """Open or create a run store."""
    parsed = parse_location(location)
    if not is_postgres_url(parsed):
        from .sqlite import SqliteStore

        return await SqliteStore.open(Path(parsed))
    try:
        from .postgres import PostgresStore
    except ImportError as e:
        from ..extras import install_command

        raise UserError(
            f"a run store in Postgres needs a package that is not installed ({e.name or e})",
            hint=install_command("postgres"),
        ) from e
    return await PostgresStore.open(str(parsed))
