"""`DirectorySource`: a directory of documents, searched by BM25 and embeddings."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from ....core.errors import DataError, UserError
from ....core.messages import Frozen
from ....core.run import Run
from ....serving.encoders.protocols import EmbeddingModel
from ....serving.metered.scorers import MeteredEmbedding
from ...knowledge import KnowledgeSource, Passage, Snippet, searchable_text
from ..chunking import MAX_WORDS, OVERLAP
from ..embedding_cache import EmbeddingCache
from ..passages import ChunkOptions, chunk_passages
from ..readers import MAX_BYTES, MAX_FILE_BYTES, MAX_FILES, DirectoryContents, FileNote, read_directory
from ..retriever import HybridRetriever, RetrieverOptions

DirectoryProgress = Callable[[str, int, int], None]
"""Receives the stage, "reading" files (from another thread) or "embedding" chunks, the number done, and the total."""


class DirectoryOptions(Frozen):
    """Options of splitting and searching a directory.

    Attributes:
        words: Maximum words of a chunk.
        overlap: Maximum words repeated from the previous chunk.
        num_candidates: Chunks taken from each ranking.
        max_file_bytes: Larger files are skipped.
        max_bytes: Maximum bytes of all files together.
        max_files: Maximum number of files.
        max_chunks: Maximum number of chunks; a directory with more is refused.
    """

    words: int = MAX_WORDS
    overlap: int = OVERLAP
    num_candidates: int = 50
    max_file_bytes: int = MAX_FILE_BYTES
    max_bytes: int = MAX_BYTES
    max_files: int = MAX_FILES
    max_chunks: int = 400_000


class DirectorySource:
    """A directory of documents; create it with `DirectorySource.load`. It is a snapshot of the files.

    Attributes:
        name: The string it was created from.
        kind: "directory".
        identity: Hash of the texts, the options and the models.
        notes: Skipped files, and files that were read differently; each file once.
        num_files: Number of files with text.
    """

    kind = "directory"
    records_calls = False

    def __init__(
        self,
        name: str,
        retriever: HybridRetriever,
        options: DirectoryOptions,
        *,
        notes: tuple[FileNote, ...],
        num_files: int,
        num_chunks: int,
    ) -> None:
        self.name, self.notes, self.num_files = name, notes, num_files
        content = json.dumps([retriever.identity, options.model_dump(mode="json")], sort_keys=True)
        self.identity = f"directory:{hashlib.sha256(content.encode()).hexdigest()}"
        self._retriever, self._num_chunks = retriever, num_chunks

    @classmethod
    async def load(
        cls,
        path: Path,
        *,
        name: str | None = None,
        embedding: EmbeddingModel | None = None,
        owned: bool = False,
        cache: EmbeddingCache | None = None,
        options: DirectoryOptions | None = None,
        progress: DirectoryProgress | None = None,
    ) -> Self:
        """Read and index a directory.

        Args:
            path: The directory.
            name: Name of the source; None is the path.
            embedding: Embeds chunks and queries; None searches by BM25 only.
            owned: Whether the embedding model is closed with the source.
            cache: Cache of the vectors.
            options: How the directory is split and searched.
            progress: Receives progress.

        Raises:
            DataError: There is no such directory, it cannot be read, or there is no text in it.
            UserError: The directory is too large, or bm25s is not installed.
            BackendError: The embedding model failed.
        """
        options = options or DirectoryOptions()
        cancel = threading.Event()
        try:
            contents, passages = await asyncio.to_thread(_read, path, options, cancel, progress)
        except asyncio.CancelledError:
            cancel.set()
            raise
        retriever = await HybridRetriever.build(
            passages,
            embedding,
            name=name or str(path),
            options=RetrieverOptions(
                num_candidates=options.num_candidates,
                use_titles=False,
                deduplicate=False,
            ),
            owned=owned,
            cache=cache,
            progress=None if progress is None else lambda done, total: progress("embedding", done, total),
        )
        return cls(
            retriever.name,
            retriever,
            options,
            notes=tuple(contents.notes),
            num_files=len(contents.files),
            num_chunks=len(passages),
        )

    def __len__(self) -> int:
        """Number of chunks."""
        return self._num_chunks

    def metered(self, run: Run, timeout_s: float) -> KnowledgeSource:
        """The source with its embedding of queries charged to a run (see `MeteredSource`).

        Raises:
            UserError: The run limits dollars, and the embedding model's price is unknown.
        """
        embedding = self._retriever.embedding
        if embedding is None:
            return self
        return _MeteredDirectory(self, MeteredEmbedding(embedding, "embedding", run))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The best chunks under their headings (see `KnowledgeSource`); the context is not used.

        A score is the fused one, up to 2/61.
        """
        return await self.search(text, k, self._retriever.embedding)

    async def search(self, text: str, k: int, embedding: EmbeddingModel | None) -> list[Snippet]:
        """`query` with another instance of the embedding model, such as a metered one."""
        (passages,) = await self._retriever.search([text], k, embedding)
        return [Snippet(text=searchable_text(p), source_id=p.id, score=p.score) for p in passages]

    async def aclose(self) -> None:
        """Close the embedding model if the source owns it; idempotent."""
        await self._retriever.aclose()


class _MeteredDirectory:
    """A directory as one run queries it."""

    kind = DirectorySource.kind

    def __init__(self, source: DirectorySource, embedding: EmbeddingModel) -> None:
        self.name, self.identity = source.name, source.identity
        self._source, self._embedding = source, embedding

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        return await self._source.search(text, k, self._embedding)

    async def aclose(self) -> None:
        """Do nothing: the directory is closed by its owner."""


def _read(
    path: Path, options: DirectoryOptions, cancel: threading.Event, progress: DirectoryProgress | None
) -> tuple[DirectoryContents, list[Passage]]:
    """Read and split the files, on a thread."""
    contents = read_directory(
        path,
        max_file_bytes=options.max_file_bytes,
        max_bytes=options.max_bytes,
        max_files=options.max_files,
        cancel=cancel,
        progress=None if progress is None else lambda done, total: progress("reading", done, total),
    )
    chunking = ChunkOptions(words=options.words, overlap=options.overlap)
    passages: list[Passage] = []
    for source, parts in contents.files:
        for part in parts:
            if cancel.is_set():
                return contents, []
            passages += chunk_passages(part, f"{source}#{part.name}" if part.name else source, chunking)
        if len(passages) > options.max_chunks:
            raise UserError(
                f"{path} has more than {options.max_chunks} chunks",
                hint="choose a subdirectory",
            )
    if not passages and not cancel.is_set():
        notes = contents.notes
        skipped = f"; {len(notes)} files were skipped, the first: {notes[0].path}: {notes[0].reason}" if notes else ""
        raise DataError(f"there is no text in the directory {path}{skipped}", hint="give a directory of documents")
    return contents, passages
