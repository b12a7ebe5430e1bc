"""What strategies noted of their solutions, as the run store has it: the rows of an evaluation leave it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from ..core.errors import DataError
from ..core.events import EventFields, SolutionFound
from ..core.sqlite_store import SqliteStore
from .comparison import StoredRun
from .folder import STORE
from .rows import Row

Notes = Mapping[str, JsonValue]


def store_of(run: StoredRun, store: Path | None = None) -> Path:
    """Where the run store of an evaluation lies.

    Args:
        run: The evaluation.
        store: Where it lies if it was moved.
    """
    if store is not None:
        return store
    said = run.manifest.store
    return run.path / STORE if said == STORE else Path(said)


async def solution_notes(rows: Sequence[Row], store: Path) -> list[Notes | None]:
    """The notes of each row's solution, in order; None for a row without a solution.

    Raises:
        DataError: There is no such store.
        StoreError: It cannot be read.
    """
    _refuse_missing(store)
    opened = await SqliteStore.open(store)
    try:
        return [last_notes(await opened.events(row.run_id)) for row in rows]
    finally:
        await opened.aclose()


def last_notes(events: Sequence[EventFields]) -> Notes | None:
    """The notes of the solution that a run ended with; None if it has none."""
    return next((event.solution.notes for event in reversed(events) if isinstance(event, SolutionFound)), None)


def _refuse_missing(store: Path) -> None:
    if not store.exists():  # opening it would make one
        raise DataError(f"there is no run store {store}", hint="say where it lies: --store FILE")
