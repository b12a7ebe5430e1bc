"""`RunFolder`: an evaluation on disk. `run.json` holds what was decided, `items.jsonl` a row a line, as they finish.

A row is written by one write of one whole line, so a process killed at any moment leaves at most a torn last line,
which is cut off when the run goes on. When all rows are there, the file is put into the items' order, whole or not at
all.

`HeldFolder`: a folder that one process at a time works in.

Shards of one run put together: the same rows in the same order as the run in one piece would have.

What strategies noted of their solutions, as the run store has it: the rows of an evaluation leave it out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from filelock import FileLock, Timeout
from pydantic import Field, JsonValue, ValidationError

from ..core.errors import DataError, StoreError, UserError
from ..core.events import Event, SolutionFinished
from ..core.messages import Frozen
from ..core.sqlite_store import SqliteStore
from .plan import EvalPlan, TaskSource, dotted
from .results import Row


class HeldFolder:
    """A folder that this process holds: a context manager, which makes it if need be.

    Args:
        path: The folder.

    Attributes:
        option: The option of the command line that names it, for messages.

    Raises:
        UserError: Another process works in it.
        StoreError: It cannot be used.
    """

    option: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> Self:
        another = f"choose another {self.option}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as e:
            raise UserError(f"another process works in {self.path}", hint=f"wait until it ends, or {another}") from e
        except OSError as e:
            raise StoreError(f"cannot use the folder {self.path}: {e.strerror}", hint=another) from e
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


MANIFEST = "run.json"
ITEMS = "items.jsonl"
STORE = "store.sqlite3"


class Manifest(Frozen):
    """What `run.json` holds.

    Attributes:
        plan: What was decided.
        task: Where its questions come from.
        label: What reports call the run.
        keys: Every (item, seed) of the run in order; where it is one shard of several, those of the shard.
        shard: Which shard of how many; None if it is the whole.
        merged: From how many shards it was put together; 0 if it was not.
        environment: Version of `reason`, of the engines and of the machine's software.
        store: The run store, relative to the folder where it lies inside.
        complete: Whether every row is there.
    """

    plan: EvalPlan
    task: TaskSource
    label: str
    keys: tuple[tuple[str, int], ...]
    shard: tuple[int, int] | None = None
    merged: int = 0
    environment: dict[str, str] = Field(default_factory=dict)
    store: str = STORE
    complete: bool = False


class RunFolder(HeldFolder):
    """One evaluation's folder, held by this process: a context manager.

    Args:
        path: The folder.

    Raises:
        UserError: Another process works in it.
    """

    option = "--out"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: int | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().__exit__(kind, error, trace)

    def begin(self, manifest: Manifest, *, resume: bool) -> list[Row]:
        """Begin or go on.

        Args:
            manifest: What was decided.
            resume: Whether to go on with what is there.

        Returns:
            The rows that are there and stand; those that ended with an error are to be made again.

        Raises:
            UserError: There is a run already and it is not to be resumed, or it is another one.
            DataError: The folder's files are damaged.
        """
        rows: list[Row] = []
        if (self.path / MANIFEST).exists():
            if not resume:
                raise UserError(
                    f"{self.path} holds a run already", hint="--resume goes on with it; or choose another --out"
                )
            before = read_manifest(self.path)
            if before.plan.digest != manifest.plan.digest or before.shard != manifest.shard:
                raise UserError(
                    f"{self.path} holds another run: {what_differs(before.plan, manifest.plan) or 'another shard'}",
                    hint="resume it with --resume --out alone; or choose another --out",
                )
            rows = read_rows(self.path, torn_end=True)
            self._cut_torn_end()
        write_whole(self.path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        self._file = os.open(self.path / ITEMS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return rows

    def add(self, row: Row) -> None:
        """Write a row: one write of one line.

        Raises:
            StoreError: It cannot be written.
        """
        if self._file is None:
            raise StoreError(f"the run in {self.path} has not begun")
        line = (row.model_dump_json() + "\n").encode("utf-8", "surrogatepass")
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise StoreError(f"no space left for {self.path / ITEMS}", hint="free some space, then --resume")
        except OSError as e:
            raise StoreError(f"cannot write {self.path / ITEMS}: {e.strerror}", hint="then --resume") from e

    def finish(self, manifest: Manifest, rows: Sequence[Row]) -> None:
        """Put the rows into the items' order and note that all are there."""
        at = {key: i for i, key in enumerate(manifest.keys)}
        lines = [r.model_dump_json() for r in sorted(rows, key=lambda r: at[r.key])]
        write_whole(self.path / ITEMS, "".join(line + "\n" for line in lines))
        write_whole(
            self.path / MANIFEST, manifest.model_copy(update={"complete": True}).model_dump_json(indent=2) + "\n"
        )

    def _cut_torn_end(self) -> None:
        path = self.path / ITEMS
        if not path.exists():
            return
        raw = path.read_bytes()
        if raw and not raw.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(raw.rfind(b"\n") + 1)


def read_manifest(folder: Path) -> Manifest:
    """What a run decided.

    Raises:
        DataError: There is no run in the folder, or its file is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{folder} holds no evaluation", hint=f"a run's folder has a file {MANIFEST}") from e
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise DataError(f"{path} is damaged or of another version of reason", hint="run the evaluation anew") from e


def read_rows(folder: Path, *, torn_end: bool = False) -> list[Row]:
    """The rows of a run; of a row that was made again, the last one.

    Args:
        folder: The run's folder.
        torn_end: Whether a last line without its end is passed over: a run that was killed may have one.

    Raises:
        DataError: A line is no row; names file and line.
    """
    path = folder / ITEMS
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    lines = raw.split(b"\n")
    last = lines.pop()
    if last and not torn_end:
        raise DataError(f"{path}:{len(lines) + 1}: the line is cut short", hint="go on with the run: --resume")
    found: dict[tuple[str, int], Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = Row.model_validate_json(line)
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a row of an evaluation", hint="the file is damaged") from e
        found[row.key] = row
    return list(found.values())


def what_differs(a: EvalPlan, b: EvalPlan) -> str:
    """The settings in which two plans differ, with both values, in one line; empty if in none."""
    left, right = flat_settings(a), flat_settings(b)
    names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n) and n != "limit"]
    return ", ".join(f"{n} {_shown(left.get(n))} → {_shown(right.get(n))}" for n in names)


def flat_settings(plan: EvalPlan) -> dict[str, JsonValue]:
    """A plan as dotted names and plain values; of a calibration map what it is called."""
    plain = plan.model_dump(mode="json")
    plain["calibration"] = None if plan.calibration is None else f"{plan.calibration} {plan.calibration.digest}"
    return dotted(plain)


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def write_whole(path: Path, text: str) -> None:
    """Replace a file by another content, whole or not at all.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another place, or free some space") from e


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in its folder."""

    path: Path
    manifest: Manifest
    rows: list[Row]

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.manifest.label


def load_run(path: Path) -> StoredRun:
    """Read a run.

    Raises:
        DataError: The folder holds none, or it is damaged.
        UserError: It holds no rows yet.
    """
    manifest = read_manifest(path)
    rows = read_rows(path, torn_end=not manifest.complete)
    if not rows:
        raise UserError(f"the run in {path} has no rows yet", hint="let it run first")
    return StoredRun(path, manifest, rows)


def load_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Read several runs; those that share a label get their folders' names.

    Raises:
        DataError: A folder holds none, or it is damaged.
        UserError: A run has no rows yet, or a folder was named twice.
    """
    runs = [load_run(path) for path in paths]
    if len({r.path.resolve() for r in runs}) < len(runs):
        raise UserError("a run was named twice")
    labels = [r.label for r in runs]
    return [
        r
        if labels.count(r.label) == 1
        else StoredRun(r.path, r.manifest.model_copy(update={"label": f"{r.label} ({r.path.name})"}), r.rows)
        for r in runs
    ]


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


def last_notes(events: Sequence[Event]) -> Notes | None:
    """The notes of the solution that a run ended with; None if it has none."""
    return next((event.solution.notes for event in reversed(events) if isinstance(event, SolutionFinished)), None)


def _refuse_missing(store: Path) -> None:
    if not store.exists():  # opening it would make one
        raise DataError(f"there is no run store {store}", hint="say where it lies: --store FILE")
