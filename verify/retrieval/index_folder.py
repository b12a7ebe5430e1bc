"""A saved index of passages in a folder: `build_index` makes one, `add_to_index` brings it up to date.

The folder holds the rows (`passages.sqlite3`), what was computed of them in shards (`counts`, `vectors`), the indexes
made of those (`words-…`, `near`), and `index.json`, which publishes them. Work that is stopped at any moment goes on
from the shards; until it is through, the index answers as before. Of all passages, memory holds a number each.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...core.errors import Cancelled, DataError, UserError
from ...core.whole_files import replace_file
from ...serving.embeddings import EmbeddingModel
from ...serving.pulling import run_pull
from .documents import Cutting, nothing_found
from .durable import PARTIAL, index_errors
from .index_making import Step, VectorMaker, count_new_words, open_rows, publish_index, shards_of
from .index_manifest import LOCK, ROWS, IndexManifest
from .index_plan import PLAN, EmbeddedBy, IndexPlan, check_model, read_plan
from .index_reading import Changes, read_documents
from .near_blocks import load_faiss
from .passage_rows import PassageRows


@dataclass(frozen=True, slots=True)
class Built:
    """What a build or an addition came to.

    Attributes:
        manifest: What is published now.
        changes: What was read.
    """

    manifest: IndexManifest
    changes: Changes


async def build_index(
    folder: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    cutting: Cutting | None = None,
    told: Step | None = None,
) -> Built:
    """Make an index of all documents of some paths; a stopped build goes on, a finished one is brought up to date.

    Args:
        folder: Where it goes; made if it is not there. Documents in it that the paths do not name are taken out.
        paths: Files and folders.
        embedding: Makes the vectors; closed by whoever opened it. None searches by words alone.
        cutting: How documents are cut; None is as before, or the default.
        told: Told of each stage, also from other threads; must be quick and must not raise.

    Raises:
        UserError: The folder holds something else, or another process builds there.
        DataError: There is no text, a named file cannot be read, or the index was begun with other settings or models.
        StoreError: It cannot be written: the disk is full, for example.
        BackendError: The embedding model failed.
    """
    return await _Work(folder, told).run(paths, embedding, cutting, whole=True, prune=True)


async def add_to_index(
    folder: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    prune: bool = False,
    told: Step | None = None,
) -> Built:
    """Take new and changed documents of some paths into an index.

    Args:
        folder: The index.
        paths: Files and folders.
        embedding: The model that made the index's vectors; None if it has none.
        prune: Whether documents under these paths whose files are gone are taken out; they are reported in any case.
        told: See `build_index`.

    Raises:
        DataError: There is no index there, or another model made its vectors.
        ReasonError: As `build_index` does.
    """
    if read_plan(folder) is None:
        raise DataError(f"there is no index in {folder}", hint="`reason index build DIR PATH` makes one")
    return await _Work(folder, told).run(paths, embedding, None, whole=False, prune=prune)


class _Work:
    """One build or addition under way."""

    def __init__(self, folder: Path, told: Step | None) -> None:
        self._folder, self._told = folder, told

    async def run(
        self,
        paths: Sequence[Path],
        embedding: EmbeddingModel | None,
        cutting: Cutting | None,
        *,
        whole: bool,
        prune: bool,
    ) -> Built:
        with self._locked():
            plan = self._plan(embedding, cutting)
            if plan.embedding is not None:
                load_faiss()  # better missed now than after hours
            rows = await self._on_thread(lambda step: open_rows(self._folder))
            try:
                changes: Changes = await self._on_thread(
                    lambda step: read_documents(rows, paths, plan.cutting, step, whole=whole, prune=prune)
                )
                live = await self._on_thread(lambda step: rows.live())
                if not len(live):
                    raise nothing_found(paths, changes.notes)
                await self._on_thread(partial(count_new_words, self._folder, rows))
                if embedding is not None:
                    maker = VectorMaker(self._folder, rows, embedding.dimension, live)
                    while maker.done < maker.end:
                        self._tell("embedding", maker.done, maker.end)
                        with index_errors(self._folder):
                            await maker.embed_some(embedding, lambda work: self._on_thread(lambda step: work()))
                manifest: IndexManifest = await self._on_thread(partial(publish_index, self._folder, rows, plan, live))
            finally:
                await asyncio.to_thread(rows.close)
        return Built(manifest, changes)

    async def _on_thread(self, work: Callable[..., Any]) -> Any:
        """Run blocking work; cancelling stops it at its next step and waits for that."""

        def inside(cancel: threading.Event) -> Any:
            def step(stage: str, done: int, total: int | None) -> None:
                if cancel.is_set():
                    raise Cancelled("the work on the index was stopped; what was saved stays")
                if stage:
                    self._tell(stage, done, total)

            with index_errors(self._folder):
                return work(step=step)

        return await run_pull(inside)

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        if self._told is not None:
            self._told(stage, done, total)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._folder
        with index_errors(folder):
            if folder.exists():
                if not folder.is_dir():
                    raise UserError(f"{folder} is no folder", hint="an index is a folder of its own")
                held = {path.name for path in folder.iterdir() if not path.name.startswith(PARTIAL)} - {LOCK}
                if held and PLAN not in held:
                    raise UserError(f"the folder {folder} holds something else", hint="choose an empty or a new folder")
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as e:
                raise UserError(
                    f"another process is at work on the index {folder}", hint="wait for it, or choose another folder"
                ) from e
        try:
            yield
        finally:
            lock.release()

    def _plan(self, embedding: EmbeddingModel | None, cutting: Cutting | None) -> IndexPlan:
        """What the index was begun with, if the models fit; or else what it is begun with now."""
        # an index that nothing was read into is begun anew
        known = read_plan(self._folder) if saved_so_far(self._folder).passages else None
        made_by = None
        if embedding is not None:
            made_by = EmbeddedBy(name=embedding.name, identity=embedding.identity, dimension=embedding.dimension)
        if known is None:
            plan = IndexPlan(cutting=cutting or Cutting(), embedding=made_by)
            with index_errors(self._folder):
                replace_file(self._folder / PLAN, json.dumps(plan.model_dump(mode="json"), indent=2).encode(), PARTIAL)
            return plan
        check_model(self._folder, known.embedding, embedding)
        if cutting is not None and cutting != known.cutting:
            raise DataError(
                f"the index {self._folder} has passages of {known.cutting.words} words, "
                f"and {cutting.words} were asked for",
                hint="build another index in a new folder",
            )
        return known


@dataclass(frozen=True, slots=True)
class Saved:
    """How far an index is.

    Attributes:
        passages: Passages that are saved, with those of documents that are no longer part of it.
        embedded: Places that have vectors.
    """

    passages: int
    embedded: int


def saved_so_far(folder: Path) -> Saved:
    """How far an index is, finished or not."""
    if not (folder / ROWS).is_file():
        return Saved(0, 0)
    with index_errors(folder):
        rows = PassageRows(folder / ROWS)
        try:
            return Saved(rows.end(), shards_of(folder)[1].end)
        finally:
            rows.close()
