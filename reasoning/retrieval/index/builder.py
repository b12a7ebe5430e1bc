"""A saved index of passages in a folder: `build_index` makes one, `add_to_index` brings it up to date.

The folder holds the rows (`passages.sqlite3`), what was computed of them in shards (`counts`, `vectors`), the indexes
made of those (`words-…`, `near`), and `index.json`, which publishes them. Work that is stopped at any moment goes on
from the shards; until it is through, the index answers as before. Of all passages, memory holds a number each.

From rows to a published index: words counted, vectors kept, both indexed, and then one file that says so.

Which documents of an index are new, changed or gone, and reading those into its rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ....core.errors import Cancelled, DataError, InvalidResponse, UserError
from ....core.files import atomic_write
from ....serving.encoders.protocols import EmbeddingModel
from ....serving.model_files.downloads import run_pull
from ..bm25 import SHARD_PASSAGES, append_word_counts, write_bm25_index
from ..passages import ChunkOptions, Passage, SourceFile, file_passages, list_source_files, no_text_error, path_text
from ..readers import FileNote
from ..vector_index import append_vectors, load_faiss, make_blocks, read_vectors
from .database import PassageDatabase
from .manifest import (
    BM25_PREFIX,
    CONFIG_FILE,
    COUNTS_DIR,
    DATABASE_FILE,
    FORMAT,
    LOCK_FILE,
    POSITIONS_FILE,
    VECTOR_INDEX_DIR,
    VECTORS_DIR,
    EmbeddingInfo,
    IndexConfig,
    IndexManifest,
    check_embedding,
    publish,
    read_config,
    read_manifest,
)
from .shards import PARTIAL_PREFIX, ArrayShards, index_errors, write_durably

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


EMBEDDING_BATCH = 512
"""Places of one file of vectors: what a killed build computes again at most."""

Step = Callable[[str, int, int | None], None]
"""Told of a stage, what of it is done and what there is in all; may raise to stop."""


def shards_of(folder: Path) -> tuple[ArrayShards, ArrayShards]:
    """Counts of words and vectors of an index."""
    return ArrayShards(folder / COUNTS_DIR, ".npz"), ArrayShards(folder / VECTORS_DIR, ".npy")


def open_rows(folder: Path) -> PassageDatabase:
    """The rows of an index, to be written."""
    counts, vectors = shards_of(folder)
    return PassageDatabase(folder / DATABASE_FILE, write=True, floor=max(counts.end, vectors.end))


def count_new_words(folder: Path, rows: PassageDatabase, step: Step) -> None:
    """Count the words of passages that are not counted yet. Blocks."""
    counts, _ = shards_of(folder)
    end = rows.end()
    while counts.end < end:
        step("counting words", counts.end, end)
        stop = min(counts.end + SHARD_PASSAGES, end)
        append_word_counts(counts, stop, rows.rows(counts.end, stop))


class VectorMaker:
    """Embeds the passages that have no vector yet, some at a time, and keeps each lot before the next.

    Args:
        folder: The index.
        rows: Its rows.
        dimension: Numbers of a vector.
        live: Its places.
    """

    def __init__(self, folder: Path, rows: PassageDatabase, dimension: int, live: NDArray[np.int64]) -> None:
        self._rows, self._dimension, self._live = rows, dimension, live
        self._shards = shards_of(folder)[1]
        self.end = rows.end()

    @property
    def done(self) -> int:
        """Places that have vectors."""
        return self._shards.end

    async def embed_some(self, embedding: EmbeddingModel, on_thread: Callable[[Callable[[], Any]], Any]) -> None:
        """Embed the next lot; texts that were embedded before are not again.

        Args:
            embedding: The model.
            on_thread: Runs blocking work.
        """
        start, stop = self.done, min(self.done + EMBEDDING_BATCH, self.end)
        vectors, missing = await on_thread(lambda: self._known(start, stop))
        if missing:
            texts = list(missing)
            made = await embedding.embed(texts, kind="document")
            if made.shape != (len(texts), self._dimension):
                raise InvalidResponse(f"{embedding.name} gave {made.shape} numbers for {len(texts)} texts")
            for text, vector in zip(texts, made, strict=True):
                vectors[missing[text]] = vector
        await on_thread(lambda: append_vectors(self._shards, stop, vectors))

    def _known(self, start: int, stop: int) -> tuple[NDArray[np.float32], dict[str, list[int]]]:
        """Vectors as far as equal passages have them, and the texts that need one with the rows they are for."""
        import numpy as np

        low, high = np.searchsorted(self._live, [start, stop])
        live = set(self._live[low:high].tolist())
        rows = [row for row in self._rows.rows(start, stop) if row.place in live]
        vectors: NDArray[np.float32] = np.zeros((stop - start, self._dimension), dtype=np.float32)
        earlier = self._rows.earlier([row.same for row in rows], start)
        places = np.array(sorted(set(earlier.values())), dtype=np.int64)
        held = dict(zip(places.tolist(), read_vectors(self._shards, places, self._dimension), strict=True))
        missing: dict[str, list[int]] = {}
        for row in rows:
            known = held.get(earlier.get(row.same, -1))
            if known is not None and known.any():
                vectors[row.place - start] = known
            else:
                missing.setdefault(row.shown, []).append(row.place - start)
        return vectors, missing


def publish_index(
    folder: Path, rows: PassageDatabase, plan: IndexConfig, live: NDArray[np.int64], step: Step
) -> IndexManifest:
    """Index words and vectors of the live places, and let the index be that. Blocks.

    Args:
        folder: The index.
        rows: Its rows.
        plan: What it is made with.
        live: Its places, at least one.
        step: See `Step`.

    Returns:
        What is published.

    Raises:
        OSError: It cannot be written; what was published before stays.
        DataError: A file of it is damaged.
    """
    before = read_manifest(folder)
    counts, vectors = shards_of(folder)
    digest = rows.digest()
    words, wordless = _make_words(folder, counts, live, digest, step)
    near = None
    if plan.embedding is not None:
        known = None if before is None else before.near
        near = make_blocks(
            folder / VECTOR_INDEX_DIR,
            vectors,
            live,
            plan.embedding.dimension,
            known,
            lambda d, n: step("indexing vectors", d, n),
        )
    files = [f"{words}/{path.name}" for path in (folder / words).iterdir()]
    files += [f"{VECTOR_INDEX_DIR}/{name}" for name in (near.files() if near is not None else ())]
    manifest = IndexManifest(
        format=FORMAT,
        plan=plan,
        made=time.time(),
        documents=sum(1 for _ in rows.documents()),
        passages=len(live),
        digest=digest,
        words=words,
        wordless=wordless,
        near=near,
        sizes={name: (folder / name).stat().st_size for name in sorted(files)},
    )
    publish(folder, manifest)
    _clear(folder, manifest)
    rows.drop_gone()
    return manifest


def _make_words(
    folder: Path, counts: ArrayShards, live: NDArray[np.int64], digest: str, step: Step
) -> tuple[str, bool]:
    """The BM25 index, under a name that tells what it is of."""
    import numpy as np

    mark = hashlib.blake2b(live.tobytes() + digest.encode(), digest_size=8).hexdigest()
    name = f"{BM25_PREFIX}-{mark}"
    if not (folder / name).is_dir():
        partial = folder / f"{PARTIAL_PREFIX}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            write_bm25_index(counts, live, partial, lambda done, of: step("indexing words", done, of))
            write_durably(partial / POSITIONS_FILE, lambda file: np.save(file, live, allow_pickle=False))
            os.replace(partial, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return name, len(list((folder / name).iterdir())) == 1


def _clear(folder: Path, manifest: IndexManifest) -> None:
    """Remove what is no longer published, and what stopped builds have left."""
    for path in folder.iterdir():
        if path.name.startswith((f"{BM25_PREFIX}-", PARTIAL_PREFIX)) and path.name != manifest.words:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    kept = set() if manifest.near is None else set(manifest.near.files())
    if (folder / VECTOR_INDEX_DIR).is_dir():
        for path in (folder / VECTOR_INDEX_DIR).iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


_CHUNK = 1 << 20
_TOLD_EVERY = 500


@dataclass(slots=True)
class DocumentChanges:
    """What reading has changed.

    Attributes:
        new: Sources of documents that were not there.
        changed: Sources of documents whose content is another.
        same: How many documents were not read again.
        missing: Sources of documents whose files are no longer there, or no longer named.
        removed: Whether the missing ones were taken out.
        notes: What was left out or read otherwise, and why.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    same: int = 0
    missing: list[str] = field(default_factory=list)
    removed: bool = False
    notes: list[FileNote] = field(default_factory=list)


def read_documents(
    rows: PassageDatabase,
    paths: Sequence[Path],
    cutting: ChunkOptions,
    step: Callable[[str, int, int | None], None],
    *,
    whole: bool,
    prune: bool,
) -> DocumentChanges:
    """Bring the rows to what files hold now. Blocks.

    Args:
        rows: The rows.
        paths: Files and folders.
        cutting: How they are cut.
        step: Told of the stage, and how much of it is done; may raise to stop.
        whole: Whether the paths are all that the index is to have; if not, documents elsewhere are no concern.
        prune: Whether documents whose files are gone are taken out.

    Raises:
        DataError: A path is not there, or a named file cannot be read. What was read before it stays.
    """
    changes = DocumentChanges(removed=prune)
    rows.drop_half_read()
    files = list_source_files(paths, changes.notes)
    step("reading", 0, None)
    read = 0
    for file in files:
        path = path_text(file.path)
        known = rows.document(path)
        try:
            digest = _digest(file, step)
            if known is not None and known.digest == digest:
                changes.same += 1
                continue
            named = SourceFile(file.path, rows.free_source(path, file.source), file.inside)
            passages = file_passages(named, cutting, changes.notes, indexing=True)
            count = rows.put(path, named.source, digest, _told(passages, read, step))
        except DataError as e:
            rows.drop_half_read()
            if file.named:
                raise
            changes.notes.append(FileNote(file.source, e.message))
            continue
        read += count
        if known is not None:
            changes.changed.append(named.source)
        elif count:
            changes.new.append(named.source)
    _find_missing(rows, paths, files, changes, whole=whole)
    return changes


def _find_missing(
    rows: PassageDatabase, paths: Sequence[Path], files: Iterable[SourceFile], changes: DocumentChanges, *, whole: bool
) -> None:
    there = {path_text(file.path) for file in files}
    roots = [path_text(path.expanduser().resolve()) for path in paths]
    for document in list(rows.documents()):
        concerned = whole or any(Path(document.path).is_relative_to(root) for root in roots)
        if concerned and document.path not in there:
            changes.missing.append(document.source)
            if changes.removed:
                rows.take_out(document.number)


def _digest(file: SourceFile, step: Callable[[str, int, int | None], None]) -> str:
    hashed = hashlib.sha256()
    try:
        # what is no regular file is refused when it is read
        if file.path.is_file():
            with file.path.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    hashed.update(chunk)
                    step("", 0, None)
    except OSError as e:
        raise DataError(f"cannot read {file.path}: {e.strerror or e}") from e
    return hashed.hexdigest()


def _told(passages: Iterator[Passage], before: int, step: Callable[[str, int, int | None], None]) -> Iterator[Passage]:
    for count, passage in enumerate(passages, before + 1):
        if count % _TOLD_EVERY == 0:
            step("reading", count, None)
        yield passage


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """What a build or an addition came to.

    Attributes:
        manifest: What is published now.
        changes: What was read.
    """

    manifest: IndexManifest
    changes: DocumentChanges


async def build_index(
    folder: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    cutting: ChunkOptions | None = None,
    told: Step | None = None,
) -> IndexBuild:
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
) -> IndexBuild:
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
    if read_config(folder) is None:
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
        cutting: ChunkOptions | None,
        *,
        whole: bool,
        prune: bool,
    ) -> IndexBuild:
        with self._locked():
            plan = self._plan(embedding, cutting)
            if plan.embedding is not None:
                load_faiss()  # better missed now than after hours
            rows = await self._on_thread(lambda step: open_rows(self._folder))
            try:
                changes: DocumentChanges = await self._on_thread(
                    lambda step: read_documents(rows, paths, plan.cutting, step, whole=whole, prune=prune)
                )
                live = await self._on_thread(lambda step: rows.live())
                if not len(live):
                    raise no_text_error(paths, changes.notes)
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
        return IndexBuild(manifest, changes)

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
                held = {path.name for path in folder.iterdir() if not path.name.startswith(PARTIAL_PREFIX)} - {
                    LOCK_FILE
                }
                if held and CONFIG_FILE not in held:
                    raise UserError(f"the folder {folder} holds something else", hint="choose an empty or a new folder")
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK_FILE)
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

    def _plan(self, embedding: EmbeddingModel | None, cutting: ChunkOptions | None) -> IndexConfig:
        """What the index was begun with, if the models fit; or else what it is begun with now."""
        # an index that nothing was read into is begun anew
        known = read_config(self._folder) if index_progress(self._folder).passages else None
        made_by = None
        if embedding is not None:
            made_by = EmbeddingInfo(name=embedding.name, identity=embedding.identity, dimension=embedding.dimension)
        if known is None:
            plan = IndexConfig(cutting=cutting or ChunkOptions(), embedding=made_by)
            with index_errors(self._folder):
                atomic_write(
                    self._folder / CONFIG_FILE,
                    json.dumps(plan.model_dump(mode="json"), indent=2).encode(),
                    PARTIAL_PREFIX,
                )
            return plan
        check_embedding(self._folder, known.embedding, embedding)
        if cutting is not None and cutting != known.cutting:
            raise DataError(
                f"the index {self._folder} has passages of {known.cutting.words} words, "
                f"and {cutting.words} were asked for",
                hint="build another index in a new folder",
            )
        return known


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far an index is.

    Attributes:
        passages: Passages that are saved, with those of documents that are no longer part of it.
        embedded: Places that have vectors.
    """

    passages: int
    embedded: int


def index_progress(folder: Path) -> IndexProgress:
    """How far an index is, finished or not."""
    if not (folder / DATABASE_FILE).is_file():
        return IndexProgress(0, 0)
    with index_errors(folder):
        rows = PassageDatabase(folder / DATABASE_FILE)
        try:
            return IndexProgress(rows.end(), shards_of(folder)[1].end)
        finally:
            rows.close()
