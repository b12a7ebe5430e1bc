"""`load_index`: a saved index as a retriever; its files are memory-mapped, its passages read when they are found.

`summarize_index`: what a saved index holds, for people and programs, without a model.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ....core.errors import DataError, UserError
from ....core.messages import Frozen
from ....serving.encoders.protocols import EmbeddingModel
from ..bm25 import SavedBM25Index
from ..passages import Passage
from ..retriever import HybridRetriever, Reranker, RetrieverOptions, SearchIndex
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

OpenEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Opens the embedding model of a name."""


async def load_index(
    folder: Path,
    embedding: OpenEmbedding | None,
    *,
    options: RetrieverOptions | None = None,
    scorer: Reranker | None = None,
    scorer_identity: str = "",
    owned: bool = True,
) -> HybridRetriever:
    """Open an index for searching.

    Args:
        folder: The index.
        embedding: Opens the embedding model of a name; it is asked for the one that made the vectors. None searches by
            words alone, and `degraded` says so.
        options: How passages are ranked.
        scorer: See `HybridRetriever`.
        scorer_identity: Likewise.
        owned: Whether the embedding model is closed with the retriever.

    Raises:
        DataError: There is no index, it is damaged or not finished, or the model is not the one that made its vectors.
        UserError: A library is not installed.
        ReasonError: The embedding model could not be opened.
    """
    manifest, searched = await asyncio.to_thread(_load, folder)
    made_by = manifest.plan.embedding
    if embedding is None or made_by is None:
        return HybridRetriever(
            str(folder), searched, None, options=options, scorer=scorer, scorer_identity=scorer_identity
        )
    model = await embedding(made_by.name)
    try:
        check_embedding(folder, made_by, model)
    except DataError:
        if owned:
            await model.aclose()
        raise
    return HybridRetriever(
        str(folder), searched, model, options=options, scorer=scorer, scorer_identity=scorer_identity, owned=owned
    )


class _SavedPassages:
    """Passages read when they are wanted; each look opens the file anew, so any thread may look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def at(self, places: Sequence[int]) -> dict[int, Passage]:
        with index_errors(self._folder):
            rows = PassageDatabase(self._folder / DATABASE_FILE)
            try:
                return rows.at(places)
            finally:
                rows.close()


def _load(folder: Path) -> tuple[IndexManifest, SearchIndex]:
    import numpy as np

    try:
        import bm25s  # noqa: F401
    except ModuleNotFoundError as e:
        raise UserError(
            f"searching an index needs the package {e.name!r}, which is not installed",
            hint="pip install 'reason-orchestrator[local]'",
        ) from e
    manifest = published_manifest(folder)
    try:
        places = np.load(folder / manifest.words / POSITIONS_FILE, mmap_mode="r", allow_pickle=False)
        words = SavedBM25Index(folder / manifest.words, places, empty=manifest.wordless)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"the words of the index {folder} are damaged: {e}", hint="build it anew") from e
    near = None if manifest.near is None else BlockVectorIndex(folder / VECTOR_INDEX_DIR, manifest.near)
    made_by = manifest.plan.embedding
    digest = f"{manifest.digest}:{manifest.plan.cutting}:{'' if made_by is None else made_by.identity}"
    return manifest, SearchIndex(_SavedPassages(folder), words, near, digest)


LARGEST = 10
"""Most documents that are named."""


class DocumentSize(Frozen):
    """A document and its passages."""

    source: str
    passages: int


class IndexSummary(Frozen):
    """What an index holds.

    Attributes:
        folder: The index.
        state: "ready", or "unfinished" if nothing is published yet.
        made: When it was published, in seconds since 1970.
        documents: Number of documents.
        passages: Number of passages.
        embedding: Name of the model that made the vectors; empty if there are none.
        embedding_identity: Its identity.
        vectors: How they are searched.
        words: Most words of a passage.
        overlap: Most words that it shares with the one before it.
        size_bytes: Bytes of all its files.
        digest: Hash of what it holds; empty if nothing is published.
        largest: The documents with the most passages.
        unfinished: What is saved and not published; empty if nothing is.
    """

    folder: str
    state: str
    made: float | None
    documents: int
    passages: int
    embedding: str
    embedding_identity: str
    vectors: str
    words: int
    overlap: int
    size_bytes: int
    digest: str
    largest: tuple[DocumentSize, ...]
    unfinished: str


def summarize_index(folder: Path) -> IndexSummary:
    """What an index holds. Blocks.

    Raises:
        DataError: There is no index, or it is damaged.
    """
    plan = read_config(folder)
    if plan is None or not (folder / DATABASE_FILE).is_file():
        raise DataError(f"there is no index in {folder}", hint="`reason index build DIR PATH` makes one")
    manifest = None if read_manifest(folder) is None else published_manifest(folder)
    with index_errors(folder):
        rows = PassageDatabase(folder / DATABASE_FILE)
        try:
            now = rows.digest()
            documents = passages = 0
            sizes: list[tuple[int, str]] = []
            for document in rows.documents():
                documents, passages = documents + 1, passages + document.passages
                sizes = heapq.nlargest(LARGEST, [*sizes, (document.passages, document.source)])
        finally:
            rows.close()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    unfinished = ""
    if manifest is None or manifest.digest != now:
        unfinished = f"{passages:,} passages of {documents:,} documents are saved and not all indexed: run it again"
    near = None if manifest is None else manifest.near
    vectors = "none" if near is None else "all are compared" if near.kind == "exact" else f"{near.lists:,} lists"
    return IndexSummary(
        folder=str(folder),
        state="unfinished" if manifest is None else "ready",
        made=None if manifest is None else manifest.made,
        documents=documents if manifest is None else manifest.documents,
        passages=passages if manifest is None else manifest.passages,
        embedding="" if plan.embedding is None else plan.embedding.name,
        embedding_identity="" if plan.embedding is None else plan.embedding.identity,
        vectors=vectors,
        words=plan.cutting.words,
        overlap=plan.cutting.overlap,
        size_bytes=size,
        digest="" if manifest is None else manifest.digest,
        largest=tuple(DocumentSize(source=source, passages=count) for count, source in sizes),
        unfinished=unfinished,
    )
