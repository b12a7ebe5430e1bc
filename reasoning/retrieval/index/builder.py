"""Builds a saved index in a directory: `build_index` creates or updates one, `add_to_index` adds documents.

The directory holds the passages (`passages.sqlite3`), word counts and vectors in shards (`counts`, `vectors`), the
indexes built from them (`bm25-…`, `faiss`), and `index.json`, which publishes them. An interrupted build continues
from the shards; until it has finished, searches use the previous index. Memory holds one number for each passage.
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
from ...knowledge import Passage
from ..bm25 import SHARD_PASSAGES, append_word_counts, write_bm25_index
from ..passages import ChunkOptions, SourceFile, file_passages, list_source_files, no_text_error, path_text
from ..readers import FileNote
from ..vector_index import append_vectors, build_vector_index, load_faiss, read_vectors
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
"""Positions in one file of vectors, the maximum that an interrupted build embeds again."""

BuildProgress = Callable[[str, int, int | None], None]
"""Receives the stage, the amount done, and the total if it is known; within a build it may raise to stop."""

_HASH_BYTES = 1 << 20
_REPORT_EVERY = 500


@dataclass(slots=True)
class DocumentChanges:
    """What reading the documents has changed.

    Attributes:
        new: Sources of new documents.
        changed: Sources of documents with other content.
        unchanged: Number of documents that were not read again.
        missing: Sources of documents whose files no longer exist or are no longer named.
        removed: Whether the missing ones were removed from the index.
        notes: Skipped files and files that were read differently, with the reason.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    removed: bool = False
    notes: list[FileNote] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """The result of a build: the published manifest, and the changes of the documents."""

    manifest: IndexManifest
    changes: DocumentChanges


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Saved passages, those of removed documents included, and positions with vectors."""

    num_passages: int
    num_embedded: int


async def build_index(
    directory: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    chunking: ChunkOptions | None = None,
    progress: BuildProgress | None = None,
) -> IndexBuild:
    """Build an index of all documents of some paths; an interrupted build continues, a finished one is updated.

    Args:
        directory: Directory of the index, created if necessary. Documents that the paths do not name are removed.
        paths: Files and directories.
        embedding: Makes the vectors; not closed here. None searches by BM25 only.
        chunking: How documents are split; None keeps the current setting, or the default.
        progress: Receives progress, also from other threads; must be quick and must not raise.

    Raises:
        UserError: The directory contains other files, or another process builds there.
        DataError: There is no text, a named file cannot be read, or the index has other settings or models.
        StoreError: It cannot be written, for example because the disk is full.
        BackendError: The embedding model failed.
    """
    return await _Builder(directory, progress).run(paths, embedding, chunking, is_complete=True, prune=True)


async def add_to_index(
    directory: Path,
    paths: Sequence[Path],
    embedding: EmbeddingModel | None,
    *,
    prune: bool = False,
    progress: BuildProgress | None = None,
) -> IndexBuild:
    """Add new and changed documents of some paths to an index.

    Args:
        directory: The index.
        paths: Files and directories.
        embedding: The model that made the index's vectors; None if it has none.
        prune: Whether documents below these paths whose files no longer exist are removed; they are always reported.
        progress: See `build_index`.

    Raises:
        DataError: There is no index, or another model made its vectors.
        ReasonError: As `build_index`.
    """
    if read_config(directory) is None:
        raise DataError(f"there is no index in {directory}", hint="`reason index build DIR PATH` builds one")
    return await _Builder(directory, progress).run(paths, embedding, None, is_complete=False, prune=prune)


def index_progress(directory: Path) -> IndexProgress:
    """The progress of an index, finished or not."""
    if not (directory / DATABASE_FILE).is_file():
        return IndexProgress(0, 0)
    with index_errors(directory):
        database = PassageDatabase(directory / DATABASE_FILE)
        try:
            return IndexProgress(database.end(), _vector_shards(directory).end)
        finally:
            database.close()


class _Builder:
    """One build in progress."""

    def __init__(self, directory: Path, progress: BuildProgress | None) -> None:
        self._directory, self._progress = directory, progress

    async def run(
        self,
        paths: Sequence[Path],
        embedding: EmbeddingModel | None,
        chunking: ChunkOptions | None,
        *,
        is_complete: bool,
        prune: bool,
    ) -> IndexBuild:
        directory = self._directory
        with self._locked():
            config = self._config(embedding, chunking)
            if config.embedding is not None:
                load_faiss()  # fails now rather than after hours
            database = await self._on_thread(lambda progress: _open_database(directory))
            try:
                changes: DocumentChanges = await self._on_thread(
                    lambda progress: _read_documents(
                        database, paths, config.chunking, progress, is_complete=is_complete, prune=prune
                    )
                )
                live = await self._on_thread(lambda progress: database.live_positions())
                if not len(live):
                    raise no_text_error(paths, changes.notes)
                await self._on_thread(partial(_count_words, directory, database))
                if embedding is not None:
                    embedder = _PassageEmbedder(directory, database, embedding.dimension, live)
                    while embedder.done < embedder.end:
                        self._report("embedding", embedder.done, embedder.end)
                        with index_errors(directory):
                            await embedder.embed_batch(embedding, lambda work: self._on_thread(lambda progress: work()))
                manifest: IndexManifest = await self._on_thread(
                    partial(_publish_index, directory, database, config, live)
                )
            finally:
                await asyncio.to_thread(database.close)
        return IndexBuild(manifest, changes)

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
                names = {path.name for path in directory.iterdir() if not path.name.startswith(PARTIAL_PREFIX)}
                names -= {LOCK_FILE}
                if names and CONFIG_FILE not in names:
                    raise UserError(
                        f"the directory {directory} holds something else", hint="choose an empty or a new directory"
                    )
            directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(directory / LOCK_FILE)
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

    def _config(self, embedding: EmbeddingModel | None, chunking: ChunkOptions | None) -> IndexConfig:
        """The configuration of the index if the model fits; otherwise a new one is written."""
        # an index without passages starts over
        stored_config = read_config(self._directory) if index_progress(self._directory).num_passages else None
        if stored_config is None:
            info = None
            if embedding is not None:
                info = EmbeddingInfo(name=embedding.name, identity=embedding.identity, dimension=embedding.dimension)
            config = IndexConfig(chunking=chunking or ChunkOptions(), embedding=info)
            content = json.dumps(config.model_dump(mode="json"), indent=2).encode()
            with index_errors(self._directory):
                atomic_write(self._directory / CONFIG_FILE, content, PARTIAL_PREFIX)
            return config
        check_embedding(self._directory, stored_config.embedding, embedding)
        if chunking is not None and chunking != stored_config.chunking:
            raise DataError(
                f"the index {self._directory} has passages of {stored_config.chunking.words} words, "
                f"but {chunking.words} were requested",
                hint="build another index in a new directory",
            )
        return stored_config


def _count_shards(directory: Path) -> ArrayShards:
    return ArrayShards(directory / COUNTS_DIR, ".npz")


def _vector_shards(directory: Path) -> ArrayShards:
    return ArrayShards(directory / VECTORS_DIR, ".npy")


def _open_database(directory: Path) -> PassageDatabase:
    min_position = max(_count_shards(directory).end, _vector_shards(directory).end)
    return PassageDatabase(directory / DATABASE_FILE, write=True, min_position=min_position)


# -- documents


def _read_documents(
    database: PassageDatabase,
    paths: Sequence[Path],
    chunking: ChunkOptions,
    progress: BuildProgress,
    *,
    is_complete: bool,
    prune: bool,
) -> DocumentChanges:
    """Bring the database to the current content of the files."""
    changes = DocumentChanges(removed=prune)
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
            passages = file_passages(unique, chunking, changes.notes, streaming=True)
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
    _find_missing(database, paths, files, changes, is_complete=is_complete)
    return changes


def _find_missing(
    database: PassageDatabase,
    paths: Sequence[Path],
    files: Iterable[SourceFile],
    changes: DocumentChanges,
    *,
    is_complete: bool,
) -> None:
    present = {path_text(file.path) for file in files}
    roots = [path_text(path.expanduser().resolve()) for path in paths]
    for document in list(database.documents()):
        is_in_scope = is_complete or any(Path(document.path).is_relative_to(root) for root in roots)
        if is_in_scope and document.path not in present:
            changes.missing.append(document.source)
            if changes.removed:
                database.remove_document(document.number)


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


# -- counts, vectors, publication


def _count_words(directory: Path, database: PassageDatabase, progress: BuildProgress) -> None:
    """Count the words of passages without counts."""
    counts = _count_shards(directory)
    end = database.end()
    while counts.end < end:
        progress("counting words", counts.end, end)
        stop = min(counts.end + SHARD_PASSAGES, end)
        append_word_counts(counts, stop, [(row.position, row.text) for row in database.rows(counts.end, stop)])


class _PassageEmbedder:
    """Embeds the passages without vectors in batches, and stores each batch before the next."""

    def __init__(self, directory: Path, database: PassageDatabase, dimension: int, live: NDArray[np.int64]) -> None:
        self._database, self._dimension, self._live = database, dimension, live
        self._shards = _vector_shards(directory)
        self.end = database.end()

    @property
    def done(self) -> int:
        """Positions with vectors."""
        return self._shards.end

    async def embed_batch(self, embedding: EmbeddingModel, on_thread: Callable[[Callable[[], Any]], Any]) -> None:
        """Embed the next batch; texts that were embedded before are not embedded again.

        Args:
            embedding: The model.
            on_thread: Runs blocking work.
        """
        start, stop = self.done, min(self.done + EMBEDDING_BATCH, self.end)
        vectors, missing = await on_thread(lambda: self._known_vectors(start, stop))
        if missing:
            texts = list(missing)
            computed = await embedding.embed(texts, kind="document")
            if computed.shape != (len(texts), self._dimension):
                raise InvalidResponse(
                    f"{embedding.name} returned an array of shape {computed.shape} for {len(texts)} texts"
                )
            for text, vector in zip(texts, computed, strict=True):
                vectors[missing[text]] = vector
        await on_thread(lambda: append_vectors(self._shards, stop, vectors))

    def _known_vectors(self, start: int, stop: int) -> tuple[NDArray[np.float32], dict[str, list[int]]]:
        """Vectors that equal passages already have, and the other texts with the rows they belong to."""
        import numpy as np

        low, high = np.searchsorted(self._live, [start, stop])
        live = set(self._live[low:high].tolist())
        rows = [row for row in self._database.rows(start, stop) if row.position in live]
        vectors: NDArray[np.float32] = np.zeros((stop - start, self._dimension), dtype=np.float32)
        earlier = self._database.earlier_positions([row.content_hash for row in rows], start)
        positions = np.array(sorted(set(earlier.values())), dtype=np.int64)
        stored = read_vectors(self._shards, positions, self._dimension)
        by_position = dict(zip(positions.tolist(), stored, strict=True))
        missing: dict[str, list[int]] = {}
        for row in rows:
            known_vector = by_position.get(earlier.get(row.content_hash, -1))
            if known_vector is not None and known_vector.any():
                vectors[row.position - start] = known_vector
            else:
                missing.setdefault(row.text, []).append(row.position - start)
        return vectors, missing


def _publish_index(
    directory: Path, database: PassageDatabase, config: IndexConfig, live: NDArray[np.int64], progress: BuildProgress
) -> IndexManifest:
    """Index words and vectors of the live positions, and publish the result."""
    previous = read_manifest(directory)
    digest = database.digest()
    bm25, has_no_words = _build_bm25(directory, live, digest, progress)
    vectors = None
    if config.embedding is not None:
        vectors = build_vector_index(
            directory / VECTOR_INDEX_DIR,
            _vector_shards(directory),
            live,
            config.embedding.dimension,
            None if previous is None else previous.vectors,
            lambda done, total: progress("indexing vectors", done, total),
        )
    files = [f"{bm25}/{path.name}" for path in (directory / bm25).iterdir()]
    files += [f"{VECTOR_INDEX_DIR}/{name}" for name in (vectors.files() if vectors is not None else ())]
    manifest = IndexManifest(
        format=FORMAT,
        config=config,
        created=time.time(),
        num_documents=sum(1 for _ in database.documents()),
        num_passages=len(live),
        digest=digest,
        bm25=bm25,
        has_no_words=has_no_words,
        vectors=vectors,
        sizes={name: (directory / name).stat().st_size for name in sorted(files)},
    )
    publish(directory, manifest)
    _delete_unpublished(directory, manifest)
    database.delete_removed()
    return manifest


def _build_bm25(directory: Path, live: NDArray[np.int64], digest: str, progress: BuildProgress) -> tuple[str, bool]:
    """Name of the directory of the BM25 index, made of a hash of its content, and whether it has no words."""
    import numpy as np

    content = hashlib.blake2b(live.tobytes() + digest.encode(), digest_size=8).hexdigest()
    name = f"{BM25_PREFIX}-{content}"
    if not (directory / name).is_dir():
        partial_directory = directory / f"{PARTIAL_PREFIX}{name}"
        shutil.rmtree(partial_directory, ignore_errors=True)
        partial_directory.mkdir()
        try:
            write_bm25_index(
                _count_shards(directory),
                live,
                partial_directory,
                lambda done, total: progress("indexing words", done, total),
            )
            write_durably(partial_directory / POSITIONS_FILE, lambda file: np.save(file, live, allow_pickle=False))
            os.replace(partial_directory, directory / name)
        finally:
            shutil.rmtree(partial_directory, ignore_errors=True)
    return name, len(list((directory / name).iterdir())) == 1


def _delete_unpublished(directory: Path, manifest: IndexManifest) -> None:
    """Delete unpublished files, and files left by interrupted builds."""
    for path in directory.iterdir():
        if path.name.startswith((f"{BM25_PREFIX}-", PARTIAL_PREFIX)) and path.name != manifest.bm25:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    published = set() if manifest.vectors is None else set(manifest.vectors.files())
    if (directory / VECTOR_INDEX_DIR).is_dir():
        for path in (directory / VECTOR_INDEX_DIR).iterdir():
            if path.name not in published:
                path.unlink(missing_ok=True)
