"""`summarize_index`: what a saved index holds, for people and programs, without a model."""

from __future__ import annotations

import heapq
from pathlib import Path

from ...core.errors import DataError
from ...core.messages import Frozen
from .durable import index_errors
from .index_manifest import ROWS, published, read_manifest
from .index_plan import read_plan
from .passage_rows import PassageRows

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
    plan = read_plan(folder)
    if plan is None or not (folder / ROWS).is_file():
        raise DataError(f"there is no index in {folder}", hint="`reason index build DIR PATH` makes one")
    manifest = None if read_manifest(folder) is None else published(folder)
    with index_errors(folder):
        rows = PassageRows(folder / ROWS)
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
