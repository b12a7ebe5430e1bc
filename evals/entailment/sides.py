"""Which claims are trained on, which are watched meanwhile, and which are kept back until the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..navigator.problems import is_held_out
from .cases import Case, normal

HELD: Final = 0.2
"""Share of the claims that is kept back."""
WATCHED: Final = 0.04
"""Share of all claims that is looked at during a training; settings may be chosen by it, the rest may not."""


@dataclass(frozen=True)
class Sides:
    """Cases by what is done with them.

    Attributes:
        training: Trained on.
        watched: Looked at during the training; the temperature is fitted to them.
        held: Kept back for the scores.
        apart: Left out, because a stress test has their claims.
    """

    training: tuple[Case, ...]
    watched: tuple[Case, ...]
    held: tuple[Case, ...]
    apart: tuple[Case, ...]


def sides_of(cases: Sequence[Case], *, held: float = HELD, apart: Iterable[str] = ()) -> Sides:
    """Split cases by SHA-256 of their claims' text.

    Cases with the same claim, and cases of one contrast group, fall on the same side: the digest is that of the first
    claim, by alphabet, of all that hang together.

    Args:
        cases: All of them, of all datasets.
        held: Share to keep back.
        apart: Claims of a stress test; what hangs together with one of them and is not kept back is left out.
    """
    groups = _Groups()
    keys = [normal(case.claim) for case in cases]
    for case, key in zip(cases, keys, strict=True):
        if case.case:
            groups.join(key, f"{case.source.partition('_full')[0]}\x00{case.case}")
    first: dict[str, str] = {}
    for key in sorted(set(keys), reverse=True):
        first[groups.root(key)] = key
    shunned = {groups.root(normal(claim)) for claim in apart}
    found: dict[str, list[Case]] = {"training": [], "watched": [], "held": [], "apart": []}
    for case, key in zip(cases, keys, strict=True):
        root = groups.root(key)
        digest = hashlib.sha256(first[root].encode()).hexdigest()
        if is_held_out(digest, held):
            side = "held"
        elif root in shunned:
            side = "apart"
        else:
            side = "watched" if is_held_out(digest, held + WATCHED) else "training"
        found[side].append(case)
    return Sides(*(tuple(found[side]) for side in ("training", "watched", "held", "apart")))


class _Groups:
    """What hangs together (union and find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (above := self._above.get(name, name)) != name:
            self._above[name] = name = self._above.get(above, above)
        return name

    def join(self, a: str, b: str) -> None:
        self._above[self.root(a)] = self.root(b)
