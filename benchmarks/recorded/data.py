"""Recorded pools on this machine: their rows, and the fingerprints that pages print."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every table takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=Path, required=True, help="directory with the sides dev/ and heldout/")
    parser.add_argument("--side", default="dev", choices=("dev", "heldout"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="directory that the pages are written to")
    return parser


def path_of(pools: Path, side: str, name: str) -> Path:
    """The file of one pool."""
    return pools / side / f"{name}.jsonl.gz"


def read(pools: Path, side: str, name: str) -> list[Row]:
    """All rows of one pool, in the order of the file."""
    with gzip.open(path_of(pools, side, name), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fingerprint(pools: Path, side: str, name: str) -> str:
    """`name/side sha256:…` of the unpacked file, its first 16 hexadecimal digits."""
    digest = hashlib.sha256(gzip.decompress(path_of(pools, side, name).read_bytes())).hexdigest()
    return f"{name}/{side} sha256:{digest[:16]}"


def grouped(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, list[Row]]:
    """Rows by a key, both in the order of the rows."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)
