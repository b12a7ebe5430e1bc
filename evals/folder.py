"""`RunFolder`: an evaluation on disk. `run.json` holds what was decided, `items.jsonl` a row a line, as they finish.

A row is written by one write of one whole line, so a process killed at any moment leaves at most a torn last line,
which is cut off when the run goes on. When all rows are there, the file is put into the items' order, whole or not at
all.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pydantic import Field, JsonValue, ValidationError

from ..core.errors import DataError, StoreError, UserError
from ..core.messages import Frozen
from .dotted import dotted
from .held_folder import HeldFolder
from .plan import EvalPlan, TaskSource
from .rows import Row

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
