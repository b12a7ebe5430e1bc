"""Builds a saved index in a directory: `build_index` creates or updates one.

The directory holds documents, passages and vectors (`passages.sqlite3`), the indexes made from them (`index-…`), and
`index.json`, which publishes them. An interrupted build continues from the database; until it has finished, searches
use the previous index.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from ...knowledge import Passage
from ..bm25 import BM25Index
from ..passages import ChunkOptions, SourceFile, file_passages, list_source_files, no_text_error, path_text
from ..readers import FileNote
from ..vector_index import VectorIndex, load_faiss
from .database import PassageDatabase, index_errors
from .saved_index import (
    CONFIG_FILE,
    DATABASE_FILE,
    FORMAT,
    MANIFEST_FILE,
    POSITIONS_FILE,
    VECTORS_FILE,
    EmbeddingInfo,
    IndexConfig,
    IndexManifest,
    check_embedding,
    published_manifest,
    read_config,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDING_BATCH = 512
"""Passages embedded at once, the maximum that an interrupted build embeds again."""

BuildProgress = Callable[[str, int, int | None], None]
"""Receives the stage, the amount done, and the total if it is known; within a build it may raise to stop."""

_LOCK_FILE, _PARTIAL, _FILES_PREFIX = ".lock", ".partial-", "index-"
_HASH_BYTES = 1 << 20
_REPORT_EVERY = 500


@dataclass(slots=True)
class DocumentChanges:
    """What reading the documents has changed.

    Attributes:
        new: Sources of new documents.
        changed: Sources of documents with other content.
        unchanged: Number of documents that were not read again.
        removed: Sources of removed documents: their files no longer exist, or are no longer named.
        notes: Skipped files and files that were read differently, with the reason.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    removed: list[str] = field(default_factory=list)
    notes: list[FileNote] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """The result of a build: the published manifest, and the changes of the documents."""

    manifest: IndexManifest
    changes: DocumentChanges


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Saved passages, those of removed documents included, and those with vectors."""

    num_passages: int
    num_embedded: int


async def build_index(
    directory: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    progress: BuildProgress | None = None,
) -> IndexBuild:
    """Build an index of all documents of some paths; an interrupted build continues, a finished one is updated.

    Args:
        directory: Directory of the index, created if necessary. Documents that the paths do not name are removed.
        paths: Files and directories.
        embedding: Makes the vectors; not closed here. None searches by BM25 only.
        progress: Receives progress, also from other threads; must be quick and must not raise.

    Raises:
        UserError: The directory contains other files, or another process builds there.
        DataError: There is no text, a named file cannot be read, or another model made the index's vectors.
        StoreError: It cannot be written, for example because the disk is full.
        BackendError: The embedding model failed.
    """
    return await _Builder(directory, progress).run(paths, embedding)


def index_progress(directory: Path) -> IndexProgress:
    """The progress of an index, finished or not."""
    if not (directory / DATABASE_FILE).is_file():
        return IndexProgress(0, 0)
    with index_errors(directory):
        database = PassageDatabase(directory / DATABASE_FILE)
        try:
            return IndexProgress(*database.num_passages())
        finally:
            database.close()


class _Builder:
    """One build in progress."""

    def __init__(self, directory: Path, progress: BuildProgress | None) -> None:
        self._directory, self._progress = directory, progress

    async def run(self, paths: Sequence[Path], embedding: EmbeddingModel | None) -> IndexBuild:
        directory = self._directory
        with self._locked():
            config = self._config(embedding)
            if config.embedding is not None:
                load_faiss()  # fails now rather than after hours
            database = await self._on_thread(lambda progress: PassageDatabase(directory / DATABASE_FILE, write=True))
            try:
                changes: DocumentChanges = await self._on_thread(partial(_read_documents, database, paths))
                live = await self._on_thread(lambda progress: database.live_positions())
                if not len(live):
                    raise no_text_error(paths, changes.notes)
                if embedding is not None:
                    await self._embed(database, embedding, live)
                manifest: IndexManifest = await self._on_thread(
                    partial(_publish_index, directory, database, config, live)
                )
            finally:
                await asyncio.to_thread(database.close)
        return IndexBuild(manifest, changes)

    async def _embed(self, database: PassageDatabase, embedding: EmbeddingModel, live: NDArray[np.int64]) -> None:
        """Embed the passages without vectors in batches, and store each batch before the next."""
        import numpy as np

        done = -1
        while True:
            self._report("embedding", int(np.searchsorted(live, done, side="right")), len(live))
            rows = await self._on_thread(lambda progress: database.without_vectors(done, EMBEDDING_BATCH))  # noqa: B023
            if not rows:
                return
            texts = {content_hash: text for _, content_hash, text in rows}
            vectors = await embedding.embed(list(texts.values()), kind="document")
            if vectors.shape != (len(texts), embedding.dimension) or not np.isfinite(vectors).all():
                raise InvalidResponse(
                    f"{embedding.name} returned an array of shape {vectors.shape} for {len(texts)} texts, or numbers "
                    "that are not finite"
                )
            by_hash = dict(zip(texts, vectors, strict=True))
            await self._on_thread(lambda progress: database.add_vectors(by_hash))  # noqa: B023
            done = rows[-1][0]

    async def _on_thread(self, work: Callable[..., Any]) -> Any:
        """Run blocking work; cancellation stops it at its next progress report and waits until it stops."""

        def run(cancel: threading.Event) -> Any:
            def progress(stage: str, done: int, total: int | None) -> None:
                if cancel.is_set():
                    raise Cancelled("the work on the index was cancelled; what was saved is kept")
                if stage:
                    self._report(stage, done, total)

            with index_errors(self._directory):
                return work(progress=progress)

        return await run_pull(run)

    def _report(self, stage: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(stage, done, total)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        directory = self._directory
        with index_errors(directory):
            if directory.exists():
                if not directory.is_dir():
                    raise UserError(f"{directory} is not a directory", hint="choose another directory")
                names = {path.name for path in directory.iterdir() if not path.name.startswith(_PARTIAL)}
                names -= {_LOCK_FILE}
                if names and CONFIG_FILE not in names:
                    raise UserError(
                        f"the directory {directory} holds something else", hint="choose an empty or a new directory"
                    )
            directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(directory / _LOCK_FILE)
            try:
                lock.acquire(timeout=0)
            except Timeout as e:
                raise UserError(
                    f"another process is building the index {directory}",
                    hint="wait for it, or choose another directory",
                ) from e
        try:
            yield
        finally:
            lock.release()

    def _config(self, embedding: EmbeddingModel | None) -> IndexConfig:
        """The configuration of the index if the model fits; otherwise a new one is written."""
        stored_config = read_config(self._directory)
        # an index without passages starts over
        if stored_config is None or not index_progress(self._directory).num_passages:
            info = None
            if embedding is not None:
                info = EmbeddingInfo(name=embedding.name, identity=embedding.identity, dimension=embedding.dimension)
            config = IndexConfig(embedding=info)
            content = json.dumps(config.model_dump(mode="json"), indent=2).encode()
            with index_errors(self._directory):
                atomic_write(self._directory / CONFIG_FILE, content, _PARTIAL)
            return config
        check_embedding(self._directory, stored_config.embedding, embedding)
        return stored_config


# -- documents


def _read_documents(database: PassageDatabase, paths: Sequence[Path], progress: BuildProgress) -> DocumentChanges:
    """Bring the database to the current content of the files."""
    changes = DocumentChanges()
    database.delete_incomplete()
    files = list_source_files(paths, changes.notes)
    progress("reading", 0, None)
    read = 0
    for file in files:
        path = path_text(file.path)
        indexed = database.document(path)
        try:
            digest = _file_digest(file, progress)
            if indexed is not None and indexed.digest == digest:
                changes.unchanged += 1
                continue
            source = database.unique_source(path, file.source)
            unique = SourceFile(file.path, source, file.inside)
            passages = file_passages(unique, ChunkOptions(), changes.notes, streaming=True)
            count = database.add_document(path, source, digest, _with_reports(passages, read, progress))
        except DataError as e:
            database.delete_incomplete()
            if file.is_named:
                raise
            changes.notes.append(FileNote(file.source, e.message))
            continue
        read += count
        if indexed is not None:
            changes.changed.append(source)
        elif count:
            changes.new.append(source)
    present = {path_text(file.path) for file in files}
    for document in [document for document in database.documents() if document.path not in present]:
        changes.removed.append(document.source)
        database.remove_document(document.number)
    return changes


def _file_digest(file: SourceFile, progress: BuildProgress) -> str:
    hashed = hashlib.sha256()
    try:
        # anything but a regular file is refused when it is read
        if file.path.is_file():
            with file.path.open("rb") as content:
                while block := content.read(_HASH_BYTES):
                    hashed.update(block)
                    progress("", 0, None)
    except OSError as e:
        raise DataError(f"cannot read {file.path}: {e.strerror or e}") from e
    return hashed.hexdigest()


def _with_reports(passages: Iterator[Passage], before: int, progress: BuildProgress) -> Iterator[Passage]:
    for count, passage in enumerate(passages, before + 1):
        if count % _REPORT_EVERY == 0:
            progress("reading", count, None)
        yield passage


# -- publication


def _publish_index(
    directory: Path, database: PassageDatabase, config: IndexConfig, live: NDArray[np.int64], progress: BuildProgress
) -> IndexManifest:
    """Index words and vectors of the live positions, and publish the result; the last one if nothing has changed."""
    digest = database.digest()
    name = _FILES_PREFIX + hashlib.blake2b(live.tobytes() + digest.encode(), digest_size=8).hexdigest()
    try:
        previous = published_manifest(directory)
    except DataError:
        previous = None
    if previous is not None and previous.files == name:
        _delete_unpublished(directory, database, name)
        return previous
    partial_directory = directory / f"{_PARTIAL}{name}"
    shutil.rmtree(partial_directory, ignore_errors=True)
    partial_directory.mkdir()
    earlier = None if previous is None else directory / previous.files
    num_lists = _write_files(partial_directory, database, config.embedding, live, earlier, progress)
    shutil.rmtree(directory / name, ignore_errors=True)
    os.replace(partial_directory, directory / name)
    manifest = IndexManifest(
        format=FORMAT,
        config=config,
        created=time.time(),
        num_documents=sum(1 for _ in database.documents()),
        num_passages=len(live),
        digest=digest,
        files=name,
        num_lists=num_lists,
        sizes={path.name: path.stat().st_size for path in sorted((directory / name).iterdir())},
    )
    atomic_write(directory / MANIFEST_FILE, json.dumps(manifest.model_dump(mode="json"), indent=2).encode())
    _delete_unpublished(directory, database, name)
    return manifest


def _delete_unpublished(directory: Path, database: PassageDatabase, name: str) -> None:
    """Delete what the published index does not need, also what an interrupted build has left."""
    for path in directory.iterdir():
        if path.name.startswith((_FILES_PREFIX, _PARTIAL)) and path.name != name:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    database.delete_removed()


def _write_files(
    directory: Path,
    database: PassageDatabase,
    embedding: EmbeddingInfo | None,
    live: NDArray[np.int64],
    earlier: Path | None,
    progress: BuildProgress,
) -> int:
    """Write the indexes of words and vectors; returns the number of lists of the latter."""
    import numpy as np

    np.save(directory / POSITIONS_FILE, live, allow_pickle=False)

    def words() -> Iterator[list[str]]:
        for done, one in enumerate(database.live_words()):
            if done % _REPORT_EVERY == 0:
                progress("indexing words", done, len(live))
            yield one

    BM25Index.of(words()).save(directory)
    num_lists = 0
    if embedding is not None:
        vectors = VectorIndex.build(
            live,
            lambda positions: database.vectors(positions, embedding.dimension),
            embedding.dimension,
            lambda done, total: progress("indexing vectors", done, total),
            None if earlier is None else (earlier / VECTORS_FILE, np.load(earlier / POSITIONS_FILE)),
        )
        vectors.save(directory / VECTORS_FILE)
        num_lists = vectors.num_lists
    for path in directory.iterdir():  # published files are on the disk
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return num_lists
