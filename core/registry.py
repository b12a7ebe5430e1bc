"""`Registry`: strategies, logits processors and verifiers that packages provide through entry points.

Listing names imports nothing. A plug-in that cannot be imported is an error with its name when it is used, and a line
in `reason doctor`; it does not affect the others.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from .errors import ReasonError, UnknownName, UserError

T = TypeVar("T")

Stability = Literal["stable", "beta", "experimental"]
"""How far a plug-in or a public name can be relied on; docs/stability.md says what each label promises."""


def entry_points_in(group: str, name: str | None = None) -> tuple[EntryPoint, ...]:
    """The entry points of a group, or those of one name.

    They are read once, since reading goes through every installed package, and again if `sys.path` has changed; a
    package installed into a directory that was read already is seen by the next process.
    """
    points = _read_entry_points(group, tuple(sys.path))
    return points if name is None else tuple(e for e in points if e.name == name)


@cache
def _read_entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(_read_all(path).select(group=group))


@cache
def _read_all(path: tuple[str, ...]) -> Any:
    return entry_points()


@cache
def _read_names(group: str, path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({e.name for e in _read_entry_points(group, path)}))


class Registry(Generic[T]):
    """The objects of one entry-point group, imported at first use.

    Args:
        group: Entry-point group, for example `reason.strategies`.
        kind: Name of one of them in messages, for example "strategy".
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._loaded: dict[tuple[str, tuple[str, ...]], T] = {}
        """By name and `sys.path`; a run loads its strategy again and again."""

    def names(self) -> list[str]:
        """All names, sorted."""
        return list(_read_names(self.group, tuple(sys.path)))

    def load(self, name: str) -> T:
        """The object of that name.

        Raises:
            UnknownName: There is none; similar names are suggested.
            UserError: It cannot be imported, or two packages claim the name.
        """
        key = name, tuple(sys.path)
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = self._find(name)
        return loaded

    def _find(self, name: str) -> T:
        by_value = {e.value: e for e in entry_points_in(self.group, name)}
        if not by_value:
            raise UnknownName(self.kind, name, nearest(name, self.names()))
        if len(by_value) > 1:
            raise UserError(
                f"{self.kind} {name!r} is claimed by {' and '.join(sorted(by_value))}", hint="uninstall one"
            )
        (entry,) = by_value.values()
        return self._import(entry)

    def load_errors(self) -> dict[str, str]:
        """Errors of the objects that cannot be loaded, by name."""
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


def nearest(name: str, known: Iterable[str], max_matches: int = 2) -> tuple[str, ...]:
    """The known names most similar to a given one, best first."""
    by_lower = {k.lower().replace("_", "-"): k for k in known}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), by_lower, n=max_matches, cutoff=0.55)
    return tuple(by_lower[c] for c in close)
