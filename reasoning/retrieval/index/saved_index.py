"""`load_index`: a saved index as a retriever, memory-mapped; `summarize_index`: its contents, without a model."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ....core.errors import DataError
from ....core.messages import Frozen
from ....serving.encoders.protocols import EmbeddingModel
from ...knowledge import Passage
from ..bm25 import SavedBM25Index, load_bm25s
from ..retriever import HybridRetriever, RetrieverOptions, SearchIndex
from ..vector_index import BlockVectorIndex
from .database import PassageDatabase
from .manifest import (
    DATABASE_FILE,
    POSITIONS_FILE,
    VECTOR_INDEX_DIR,
    IndexManifest,
    check_embedding,
    published_manifest,
    read_config,
    read_manifest,
)
from .shards import index_errors

LoadEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Loads the embedding model of a name; None is the default."""

NUM_LARGEST = 10


async def load_index(
    directory: Path,
    load_embedding: LoadEmbedding | None,
    *,
    options: RetrieverOptions | None = None,
    owned: bool = True,
) -> HybridRetriever:
    """Load an index for searching.

    Args:
        directory: The index.
        load_embedding: Loads the embedding model that made the vectors. None searches by BM25 only, which `degraded`
            reports.
        options: How passages are ranked.
        owned: Whether the embedding model is closed with the retriever.

    Raises:
        DataError: There is no index, it is damaged or unfinished, or the model did not make its vectors.
        UserError: A library is not installed.
        ReasonError: The embedding model could not be loaded.
    """
    manifest, index = await asyncio.to_thread(_load, directory)
    info = manifest.config.embedding
    model = None
    if load_embedding is not None and info is not None:
        model = await load_embedding(info.name)
        try:
            check_embedding(directory, info, model)
        except DataError:
            if owned:
                await model.aclose()
            raise
    return HybridRetriever(
        str(directory),
        index,
        model,
        options=options,
        owned=owned,
    )


class _SavedPassages:
    """Reads passages on demand; every read opens the file again, so that any thread may read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, positions: Sequence[int]) -> dict[int, Passage]:
        with index_errors(self._directory):
            database = PassageDatabase(self._directory / DATABASE_FILE)
            try:
                return database.passages_at(positions)
            finally:
                database.close()


def _load(directory: Path) -> tuple[IndexManifest, SearchIndex]:
    import numpy as np

    load_bm25s()
    manifest = published_manifest(directory)
    try:
        positions = np.load(directory / manifest.bm25 / POSITIONS_FILE, mmap_mode="r", allow_pickle=False)
        keywords = SavedBM25Index(directory / manifest.bm25, positions, empty=manifest.has_no_words)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"the words of the index {directory} are damaged: {e}", hint="rebuild it") from e
    vectors = None
    if manifest.vectors is not None:
        vectors = BlockVectorIndex(directory / VECTOR_INDEX_DIR, manifest.vectors)
    info = manifest.config.embedding
    digest = f"{manifest.digest}:{manifest.config.chunking}:{'' if info is None else info.identity}"
    return manifest, SearchIndex(_SavedPassages(directory), keywords, vectors, digest)


class DocumentSize(Frozen):
    """A document and its number of passages."""

    source: str
    passages: int


class IndexSummary(Frozen):
    """Summary of an index.

    Attributes:
        directory: The index.
        state: "ready", or "unfinished" if nothing is published yet.
        created: When it was published, in seconds since 1970.
        num_documents: Number of documents.
        num_passages: Number of passages.
        embedding: Name of the model that made the vectors; empty if there are none.
        embedding_identity: Its identity.
        vectors: How they are searched.
        words: Maximum words of a passage.
        overlap: Maximum words repeated from the previous passage.
        size_bytes: Bytes of all its files.
        digest: Hash of the content; empty if nothing is published.
        largest: The documents with the most passages.
        unpublished: Description of saved but unpublished documents; empty if there are none.
    """

    directory: str
    state: str
    created: float | None
    num_documents: int
    num_passages: int
    embedding: str
    embedding_identity: str
    vectors: str
    words: int
    overlap: int
    size_bytes: int
    digest: str
    largest: tuple[DocumentSize, ...]
    unpublished: str


def summarize_index(directory: Path) -> IndexSummary:
    """Summary of an index. Blocks.

    Raises:
        DataError: There is no index, or it is damaged.
    """
    config = read_config(directory)
    if config is None or not (directory / DATABASE_FILE).is_file():
        raise DataError(f"there is no index in {directory}", hint="`reason index build DIR PATH` builds one")
    manifest = None if read_manifest(directory) is None else published_manifest(directory)
    with index_errors(directory):
        database = PassageDatabase(directory / DATABASE_FILE)
        try:
            digest = database.digest()
            num_documents = num_passages = 0
            sizes: list[tuple[int, str]] = []
            for document in database.documents():
                num_documents, num_passages = num_documents + 1, num_passages + document.passages
                sizes = heapq.nlargest(NUM_LARGEST, [*sizes, (document.passages, document.source)])
        finally:
            database.close()
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    unpublished = ""
    if manifest is None or manifest.digest != digest:
        unpublished = (
            f"{num_passages:,} passages of {num_documents:,} documents are saved but not all indexed: run it again"
        )
    files = None if manifest is None else manifest.vectors
    return IndexSummary(
        directory=str(directory),
        state="unfinished" if manifest is None else "ready",
        created=None if manifest is None else manifest.created,
        num_documents=num_documents if manifest is None else manifest.num_documents,
        num_passages=num_passages if manifest is None else manifest.num_passages,
        embedding="" if config.embedding is None else config.embedding.name,
        embedding_identity="" if config.embedding is None else config.embedding.identity,
        vectors="none" if files is None else "exact" if files.kind == "exact" else f"IVF, {files.num_lists:,} lists",
        words=config.chunking.words,
        overlap=config.chunking.overlap,
        size_bytes=size,
        digest="" if manifest is None else manifest.digest,
        largest=tuple(DocumentSize(source=source, passages=count) for count, source in sizes),
        unpublished=unpublished,
    )
