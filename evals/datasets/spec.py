"""`DatasetSpec`: how one dataset is read; `ReadOptions`: the options of one reading, with its shuffled orders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.registry import Registry
from .items import Item
from .records import HubSource, PackageSource, Record


@dataclass(frozen=True)
class ReadOptions:
    """What was requested.

    Attributes:
        name: Name of the dataset.
        variant: Which reading of it; checked against the recipe's.
        seed: Seed of the choices' order; None leaves the source's.
        data: The local path, if the rows are not from the hub.
        options: The dataset's own options, as texts.
    """

    name: str
    variant: str = ""
    seed: int | None = 0
    data: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def order(self, item: str, count: int) -> list[int]:
        """In which order `count` things of an item are shown: entry `k` is the position of the `k`-th in the source.

        A function of seed and item only: neither the number of items nor their order changes it.
        """
        if self.seed is None:
            return list(range(count))

        def draw(i: int) -> bytes:
            return hashlib.sha256(f"{self.seed}\x1f{item}\x1f{i}".encode("utf-8", "surrogatepass")).digest()

        return sorted(range(count), key=draw)


Reader = Callable[[Iterator[Record], ReadOptions], Iterable[Item]]
"""Turns records into items; records that a variant leaves out give none."""


@dataclass(frozen=True)
class DatasetSpec:
    """How one dataset is read. Packages register theirs in the entry-point group `reason.datasets`.

    Attributes:
        name: Its name.
        summary: What it is, in one line.
        licence: Of the data.
        warning: What a reader of a score should know, contamination above all.
        read: Turns records into items.
        hub: Where it is on the hub for a variant; empty if it does not.
        package: The Python package that brings it, if one does.
        variants: What each variant is; the first is the default. Empty: there is one reading only.
        free_variant: What else a variant may be (a range of years); None if nothing.
        folders: Names of its directories under a local data directory.
        options: What each of its own options is.
    """

    name: str
    summary: str
    licence: str
    warning: str
    read: Reader
    hub: Callable[[str], tuple[HubSource, ...]] = lambda variant: ()
    package: PackageSource | None = None
    variants: Mapping[str, str] = field(default_factory=dict)
    free_variant: str | None = None
    folders: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def default_variant(self) -> str:
        """The variant that is read if none is named."""
        return next(iter(self.variants), "")


DATASETS: Registry[DatasetSpec] = Registry("reason.datasets", "dataset")
"""All datasets, ours and other packages'."""
