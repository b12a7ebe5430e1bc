"""`installed`: the entry points of a group, read once.

Reading them goes through every installed package, some milliseconds each time, and a run asks dozens of times.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def installed(group: str, name: str | None = None) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of one name or of all.

    They are read again where `sys.path` has changed; what is installed into a place that was looked through already is
    seen by the next process.
    """
    found = _read(group, tuple(sys.path))
    return found if name is None else tuple(e for e in found if e.name == name)


@cache
def _read(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))
