"""`PlaceShards`: arrays on disk, each of a run of places, that were kept as soon as they were computed."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .durable import write_durably

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})(\.[a-z]+)")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A file of the places from `start` up to `stop`."""

    start: int
    stop: int
    path: Path


class PlaceShards:
    """The files of a folder that together have the places from 0 on, without a gap.

    Each is written whole or not at all. What does not follow on the others is not looked at.

    Args:
        folder: The folder; made when the first one is written.
        suffix: Of the files.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self.shards: list[Shard] = []
        named = [(m, p) for p in (folder.iterdir() if folder.is_dir() else ()) if (m := _NAME.fullmatch(p.name))]
        found = sorted(Shard(int(m[1]), int(m[2]), p) for m, p in named if m[3] == suffix)
        for shard in found:
            if shard.start == self.end < shard.stop:
                self.shards.append(shard)
        self._starts = [shard.start for shard in self.shards]

    @property
    def end(self) -> int:
        """One past the last place that is there."""
        return self.shards[-1].stop if self.shards else 0

    def add(self, stop: int, write: Callable[[IO[bytes]], None]) -> None:
        """Keep the places from the end up to `stop`.

        Raises:
            OSError: It cannot be written.
        """
        start = self.end
        path = self._folder / f"{start:012d}-{stop:012d}{self._suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, write)
        self.shards.append(Shard(start, stop, path))
        self._starts.append(start)

    def of(self, place: int) -> Shard | None:
        """The file that has a place."""
        at = bisect.bisect_right(self._starts, place) - 1
        return self.shards[at] if at >= 0 and place < self.shards[at].stop else None
