"""What there is to say of named memories without opening them for work."""

from __future__ import annotations

from typing import Literal

from ...core.messages import Frozen
from .named_place import MemoryPlace
from .named_rows import MemoryDamaged, MemoryRows


class MemorySummary(Frozen):
    """A line of the list of memories.

    Attributes:
        name: Its name.
        state: "damaged" if its items cannot be read; the other fields are then 0.
        items: How many it has.
        changed: When it was last changed, in seconds since 1970.
        size_bytes: Bytes that it takes on disk.
    """

    name: str
    state: Literal["ready", "damaged"]
    items: int = 0
    changed: float = 0.0
    size_bytes: int = 0


def summarize(place: MemoryPlace) -> MemorySummary:
    """What there is to say of a memory; one that is damaged is told as such.

    Raises:
        StoreError: Another process holds it.
    """
    size = sum(p.stat().st_size for p in place.folder.iterdir() if p.is_file())
    try:
        rows = MemoryRows(place, create=False)
    except MemoryDamaged:
        return MemorySummary(name=place.name, state="damaged", size_bytes=size)
    try:
        return MemorySummary(
            name=place.name, state="ready", items=rows.head().rows, changed=rows.changed(), size_bytes=size
        )
    except MemoryDamaged:
        return MemorySummary(name=place.name, state="damaged", size_bytes=size)
    finally:
        rows.close()
