"""`RunDirectory`: an evaluation on disk, and what is read from it.

`run.json` holds the plan, `items.jsonl` one row a line, appended as items finish. A row is written in one write, so a
killed process leaves at most one torn line, which is cut off when the run is resumed. When all rows are there, the file
is sorted into the order of the items. The store holds the runs of the items.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pydantic import Field, JsonValue, ValidationError

from ..core.errors import DataError, StoreError, UserError
from ..core.events import Event, SolutionFinished
from ..core.files import write_file
from ..core.messages import Frozen
from ..core.store import open_store
from ..core.store.location import parse_location
from ..core.store.sql import RunStore
from .plan import DatasetSource, EvalPlan, flatten
from .results import ResultRow

MANIFEST = "run.json"
ITEMS = "items.jsonl"
STORE = "store.sqlite3"


class RunManifest(Frozen):
    """What `run.json` holds.

    Attributes:
        plan: The plan.
        source: Where its dataset is loaded from.
        label: Name of the run in reports.
        keys: Every (item, seed) of the run, in order.
        environment: Versions of `reason`, the engines and the machine's software.
        store: The run store: a file, relative if it is in the directory, or the URL of a database without a password.
        complete: Whether every row is there.
    """

    plan: EvalPlan
    source: DatasetSource
    label: str
    keys: tuple[tuple[str, int], ...]
    environment: dict[str, str] = Field(default_factory=dict)
    store: str = STORE
    complete: bool = False


class RunDirectory:
    """The directory of one evaluation, created and locked by this process: a context manager.

    Raises:
        UserError: Another process uses it.
        StoreError: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)
        self._file: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as e:
            raise UserError(
                f"another process uses {self.path}", hint="wait until it ends, or choose another --out"
            ) from e
        except OSError as e:
            raise StoreError(f"cannot use the directory {self.path}: {e.strerror}", hint="choose another --out") from e
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()

    def begin(self, manifest: RunManifest, *, resume: bool) -> list[ResultRow]:
        """Start or resume the run.

        Returns:
            The finished rows; those that ended with an error are to be repeated.

        Raises:
            UserError: There is a run already and `resume` is false, or it has another plan or executor.
            DataError: The directory's files are damaged.
        """
        rows: list[ResultRow] = []
        if (self.path / MANIFEST).exists():
            if not resume:
                raise UserError(
                    f"{self.path} holds a run already", hint="--resume continues it; or choose another --out"
                )
            before = read_manifest(self.path)
            if before.plan.digest != manifest.plan.digest:
                raise UserError(
                    f"{self.path} holds another run: {plan_differences(before.plan, manifest.plan)}",
                    hint="--resume --out alone continues it; or choose another --out",
                )
            rows = read_rows(self.path, torn_end=True)
            self._cut_torn_end()
        self._write_manifest(manifest)
        self._file = os.open(self.path / ITEMS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return rows

    def add(self, row: ResultRow) -> None:
        """Append a row in one write.

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
            raise StoreError(f"cannot write {self.path / ITEMS}: {e.strerror}", hint="resume with --resume") from e

    def finish(self, manifest: RunManifest, rows: Sequence[ResultRow]) -> None:
        """Sort the rows into the order of the items and mark the run as complete."""
        at = {key: i for i, key in enumerate(manifest.keys)}
        lines = [r.model_dump_json() for r in sorted(rows, key=lambda r: at[r.key])]
        write_file(self.path / ITEMS, "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
        self._write_manifest(manifest.model_copy(update={"complete": True}))

    def _write_manifest(self, manifest: RunManifest) -> None:
        text = manifest.model_dump_json(indent=2) + "\n"
        write_file(self.path / MANIFEST, text.encode("utf-8", "surrogatepass"))

    def _cut_torn_end(self) -> None:
        path = self.path / ITEMS
        if not path.exists():
            return
        raw = path.read_bytes()
        if raw and not raw.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(raw.rfind(b"\n") + 1)


def read_manifest(data_dir: Path) -> RunManifest:
    """The manifest of a run.

    Raises:
        DataError: There is no run in the directory, or its file is damaged or of another version.
    """
    path = data_dir / MANIFEST
    try:
        return RunManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{data_dir} holds no evaluation", hint=f"a run's directory has a file {MANIFEST}") from e
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        raise DataError(f"{path} is damaged or of another version of reason", hint="run the evaluation again") from e


def read_rows(data_dir: Path, *, torn_end: bool = False) -> list[ResultRow]:
    """The rows of a run; of a repeated row the last one.

    Args:
        torn_end: Whether to skip a last line without its end, which a killed process may leave.

    Raises:
        DataError: A line is not a row; names file and line.
    """
    path = data_dir / ITEMS
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    lines = raw.split(b"\n")
    last = lines.pop()
    if last and not torn_end:
        raise DataError(f"{path}:{len(lines) + 1}: the line is torn", hint="resume the run with --resume")
    results: dict[tuple[str, int], ResultRow] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = ResultRow.model_validate_json(line)
        except ValidationError as e:
            raise DataError(f"{path}:{number}: not a row of an evaluation", hint="the file is damaged") from e
        results[row.key] = row
    return list(results.values())


def plan_differences(a: EvalPlan, b: EvalPlan) -> str:
    """The settings in which two plans differ, with both values, in one line; empty if in none."""
    left, right = flat_settings(a), flat_settings(b)
    names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n) and n != "limit"]
    return ", ".join(f"{n} {_shorten(left.get(n))} → {_shorten(right.get(n))}" for n in names)


def flat_settings(plan: EvalPlan) -> dict[str, JsonValue]:
    """A plan as dotted names and plain values; a calibration map by its name."""
    plain = plan.model_dump(mode="json")
    plain["calibration"] = None if plan.calibration is None else f"{plan.calibration} {plan.calibration.digest}"
    return flatten(plain)


def _shorten(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


@dataclass(frozen=True)
class EvalRun:
    """A run, read from its directory."""

    path: Path
    manifest: RunManifest
    rows: list[ResultRow]

    @property
    def label(self) -> str:
        """Its name in reports."""
        return self.manifest.label


def load_run(path: Path) -> EvalRun:
    """Read a run.

    Raises:
        DataError: The directory holds none, or it is damaged.
        UserError: It has no rows yet.
    """
    manifest = read_manifest(path)
    rows = read_rows(path, torn_end=not manifest.complete)
    if not rows:
        raise UserError(f"the run in {path} has no rows yet", hint="let it run first")
    return EvalRun(path, manifest, rows)


def load_runs(paths: Sequence[Path]) -> list[EvalRun]:
    """Read several runs; the directory's name is added to equal labels.

    Raises:
        DataError: A directory holds none, or it is damaged.
        UserError: A run has no rows yet, or a directory is named twice.
    """
    runs = [load_run(path) for path in paths]
    if len({r.path.resolve() for r in runs}) < len(runs):
        raise UserError("a run is named twice")
    labels = Counter(r.label for r in runs)
    return [
        r
        if labels[r.label] == 1
        else EvalRun(r.path, r.manifest.model_copy(update={"label": f"{r.label} ({r.path.name})"}), r.rows)
        for r in runs
    ]


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The directories of runs among `paths` and directly below them (the runs of a sweep), by name.

    Raises:
        UserError: A path contains no run.
    """
    results: list[Path] = []
    for path in paths:
        if (path / MANIFEST).is_file():
            results.append(path)
            continue
        inside = sorted((p.parent for p in path.glob(f"*/{MANIFEST}")), key=_natural_order)
        if not inside:
            raise UserError(f"{path} holds no evaluation", hint=f"a run's directory has a file {MANIFEST}")
        results += inside
    return results


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sorts n=2 before n=16."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


SolutionNotes = Mapping[str, JsonValue]
"""What a strategy noted of its solution; only the run store has it."""


def run_store_path(run: EvalRun, store: Path | None = None) -> Path | str:
    """The run store of an evaluation, a file or the URL of a database; `store` if it was moved there."""
    if store is not None:
        return store
    path = run.manifest.store
    return run.path / STORE if path == STORE else parse_location(path)


def begun_store(out: Path) -> Path | str | None:
    """The run store that the run in a directory began with; None if there is no run, or its store is in the directory.

    Raises:
        DataError: The directory's manifest is damaged.
    """
    if not (out / MANIFEST).exists():
        return None
    store = read_manifest(out).store
    location = parse_location(store) if store != STORE else None
    return None if isinstance(location, Path) and not location.exists() else location


async def open_run_store(path: Path | str) -> RunStore:
    """Open the run store of an evaluation.

    Raises:
        DataError: There is no such store.
        StoreError: It cannot be read.
    """
    if isinstance(path, Path) and not path.exists():  # noqa: ASYNC240 - opening it would create one
        raise DataError(f"there is no run store {path}", hint="move it back to where the run had it")
    return await open_store(path)


async def read_solution_notes(rows: Sequence[ResultRow], store: Path | str) -> list[SolutionNotes | None]:
    """The notes of each row's solution, in order; None for a row without a solution.

    Raises:
        DataError: There is no such store.
        StoreError: It cannot be read.
    """
    opened = await open_run_store(store)
    try:
        return [final_notes(await opened.list_events(row.run_id)) for row in rows]
    finally:
        await opened.aclose()


def final_notes(events: Sequence[Event]) -> SolutionNotes | None:
    """The notes of the solution that a run ended with; None if it has none."""
    return next((event.solution.notes for event in reversed(events) if isinstance(event, SolutionFinished)), None)
