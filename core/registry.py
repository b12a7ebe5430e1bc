"""Named things that packages bring along: strategies, hooks, verifiers. They are found through entry points.

Listing names imports nothing. A plug-in that fails to load is an error with its name in it when it is asked for, and a
line in `reason doctor`; it never takes the others along.

`installed`: the entry points of a group, read once.

Reading them goes through every installed package, some milliseconds each time, and a run asks dozens of times.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from .errors import ReasonError, UnknownName, UserError


def entry_points_in(group: str, name: str | None = None) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of one name or of all.

    They are read again where `sys.path` has changed; what is installed into a place that was looked through already is
    seen by the next process.
    """
    found = _read(group, tuple(sys.path))
    return found if name is None else tuple(e for e in found if e.name == name)


@cache
def _read(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


T = TypeVar("T")


class Registry(Generic[T]):
    """The objects of one entry-point group, loaded when asked for.

    Args:
        group: Entry-point group, for example `reason.strategies`.
        kind: What one of them is called in messages, for example "strategy".
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._loaded: dict[str, T] = {}
        """By what the entry point names; a run asks for its strategy again and again."""

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({e.name for e in entry_points_in(self.group)})

    def load(self, name: str) -> T:
        """The object of that name.

        Raises:
            UnknownName: There is none; the nearest names are suggested.
            UserError: It is there but cannot be imported, or two packages claim the name.
        """
        found = {e.value: e for e in entry_points_in(self.group, name)}
        if not found:
            raise UnknownName(self.kind, name, nearest(name, self.names()))
        if len(found) > 1:
            raise UserError(f"{self.kind} {name!r} is claimed by {' and '.join(sorted(found))}", hint="uninstall one")
        ((value, entry),) = found.items()
        loaded = self._loaded.get(value)
        if loaded is None:
            loaded = self._loaded[value] = self._import(entry)
        return loaded

    def load_errors(self) -> dict[str, str]:
        """Why some cannot be loaded, by name; empty if all can."""
        errors: dict[str, str] = {}
        for name in self.names():
            try:
                self.load(name)
            except ReasonError as e:
                errors[name] = str(e)
        return errors

    def _import(self, entry: EntryPoint) -> T:
        try:
            loaded: T = entry.load()
        except Exception as e:  # a plug-in may fail in any way at import
            package = entry.dist.name if entry.dist else entry.value
            raise UserError(
                f"{self.kind} {entry.name!r} of {package} cannot be loaded: {type(e).__name__}: {e}",
                hint="reinstall or remove that package",
            ) from e
        return loaded


def nearest(name: str, known: Iterable[str], most: int = 2) -> tuple[str, ...]:
    """The known names that look most like a given one, best first."""
    by_lower = {k.lower().replace("_", "-"): k for k in known}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), by_lower, n=most, cutoff=0.55)
    return tuple(by_lower[c] for c in close)
