"""Shards of one run put together: the same rows in the same order as the run in one piece would have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import DataError, UserError
from .folder import Manifest, RunFolder, read_manifest, read_rows, what_differs
from .rows import Row


def merge(shards: Sequence[Path], out: Path) -> list[Row]:
    """Put shards together into one run.

    Args:
        shards: Folders of all shards of one run, in any order.
        out: Folder of the whole.

    Raises:
        UserError: They are not the shards of one run, one is missing, or `out` holds a run.
        DataError: One is damaged or not finished.
    """
    found: dict[int, tuple[Manifest, list[Row]]] = {}
    for path in shards:
        manifest = read_manifest(path)
        if manifest.shard is None:
            raise UserError(f"{path} is not a shard", hint="run it with --shard I/N")
        if not manifest.complete:
            raise DataError(f"the shard in {path} is not finished", hint="go on with it: --resume")
        if manifest.shard[0] in found:
            raise UserError(f"shard {manifest.shard[0] + 1} of {manifest.shard[1]} was given twice")
        found[manifest.shard[0]] = (manifest, read_rows(path))
    if not found:
        raise UserError("there is no shard to merge")
    first, _ = next(iter(found.values()))
    wanted = first.shard[1] if first.shard is not None else 0
    for manifest, _ in found.values():
        if differs := what_differs(first.plan, manifest.plan):
            raise UserError(f"the shards are not of one run: {differs}")
    missing = sorted(set(range(wanted)) - set(found))
    if missing:
        raise UserError(f"shard {missing[0] + 1} of {wanted} is missing")
    return write_merged([found[i] for i in range(wanted)], out)


def write_merged(parts: Sequence[tuple[Manifest, Sequence[Row]]], out: Path, *, resume: bool = False) -> list[Row]:
    """Write the shards, given in order, as one run."""
    whole = parts[0][0].model_copy(
        update={
            "keys": woven([m.keys for m, _ in parts], parts[0][0].plan.seeds),
            "shard": None,
            "merged": len(parts),
            "store": ", ".join(dict.fromkeys(m.store for m, _ in parts)),
            "complete": False,
        }
    )
    rows = [row for _, part in parts for row in part]
    with RunFolder(out) as folder:
        folder.begin(whole, resume=resume)
        folder.finish(whole, rows)
    at = {key: i for i, key in enumerate(whole.keys)}
    return sorted(rows, key=lambda row: at[row.key])


def woven(shards: Sequence[Sequence[tuple[str, int]]], seeds: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """The order of the whole, from the orders of its shards: seed by seed, one item of each shard in turn."""
    keys: list[tuple[str, int]] = []
    for seed in seeds:
        columns = [[key for key in shard if key[1] == seed] for shard in shards]
        for i in range(max(map(len, columns), default=0)):
            keys += [column[i] for column in columns if i < len(column)]
    return tuple(keys)
