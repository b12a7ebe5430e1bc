"""`DirectorySource`: a folder of documents, searched by words and by meaning.

Two rankings of its chunks, BM25 by words and the cosine of embeddings, become one by reciprocal-rank fusion; a
cross-encoder, if there is one, reads the best of them beside the query and decides their order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ....core.errors import DataError, UserError
from ....core.messages import Frozen
from ....core.run import Run
from ....serving.encoders.protocols import CrossEncoder, EmbeddingModel, rank
from ....serving.metered.scorers import MeteredEmbedding
from ..bm25 import BM25Index
from ..chunking import MAX_WORDS, OVERLAP, split_chunks
from ..embedding_cache import EmbeddingCache
from ..rank_fusion import fuse_rankings
from ..readers import MAX_BYTES, MAX_FILE_BYTES, MAX_FILES, DirectoryContents, FileNote, read_directory
from .protocol import KnowledgeSource, Snippet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


VERSION = 1
"""Part of the identity; another one whenever the same folder would be answered differently."""

_BATCH = 64

Told = Callable[[str, int, int], None]
"""Hears how far opening is: "reading" files or "embedding" chunks, how many are done, how many there are.

Reading is told from another thread.
"""


class DirectoryOptions(Frozen):
    """How a folder is cut and searched.

    Attributes:
        words: Most words of a chunk.
        overlap: Most words that it shares with the one before it.
        candidates: Chunks that each of the two rankings puts forward.
        reranked: Chunks that the cross-encoder reads for a query.
        most_file_bytes: A larger file is left out.
        most_bytes: Most bytes of all files together.
        most_files: Most files.
        most_chunks: Most chunks; a folder with more is refused.
    """

    words: int = MAX_WORDS
    overlap: int = OVERLAP
    candidates: int = 50
    reranked: int = 20
    most_file_bytes: int = MAX_FILE_BYTES
    most_bytes: int = MAX_BYTES
    most_files: int = MAX_FILES
    most_chunks: int = 400_000


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk with its place.

    Attributes:
        text: The chunk.
        heading: The headings it stands under.
        source_id: File, part of it if it has parts, and characters: `docs/install.md:120-480`, `facts.jsonl#12:0-80`.
    """

    text: str
    heading: str
    source_id: str

    @property
    def shown(self) -> str:
        """The chunk under its headings: what is searched and what is given."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


class DirectorySource:
    """A folder of documents; open it with `DirectorySource.open`. It is a snapshot: later changes of files are not seen.

    Attributes:
        name: The string it was opened by.
        kind: "folder".
        identity: Hash of the texts, the options and the models.
        notes: What was left out of it or read otherwise, and why; each file once.
        files: Number of files that it knows.
    """

    kind = "folder"
    keeps_replies = False

    def __init__(
        self,
        name: str,
        passages: list[Passage],
        words: BM25Index,
        vectors: NDArray[np.float32] | None,
        *,
        embedding: EmbeddingModel | None,
        reranker: CrossEncoder | None,
        options: DirectoryOptions,
        notes: tuple[FileNote, ...],
        files: int,
        owned: bool,
    ) -> None:
        self.name, self.notes, self.files = name, notes, files
        self.identity = _identity(passages, options, embedding, reranker)
        self._passages, self._words, self._vectors = passages, words, vectors
        self._embedding, self._reranker, self._options, self._owned = embedding, reranker, options, owned

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        name: str | None = None,
        embedding: EmbeddingModel | None = None,
        owned: bool = False,
        reranker: CrossEncoder | None = None,
        cache: EmbeddingCache | None = None,
        options: DirectoryOptions | None = None,
        progress: Told | None = None,
    ) -> Self:
        """Read and index a folder.

        Args:
            path: The folder.
            name: What it is called; None is the path.
            embedding: Embeds chunks and queries; None searches by words alone.
            owned: Whether the embedding model is closed with the brain.
            reranker: A cross-encoder with a single output; closed by whoever opened it.
            cache: Where vectors are kept for the next time.
            options: How it is cut and searched.
            progress: Told how far it is.

        Raises:
            DataError: There is no such folder, it cannot be read, or there is no text in it.
            UserError: The folder is too large, the reranker ranks nothing, or bm25s is not installed.
            BackendError: The embedding model failed.
        """
        options = options or DirectoryOptions()
        if reranker is not None and len(reranker.labels) != 1:
            raise UserError(f"{reranker.name} tells {', '.join(reranker.labels)}, and does not rank")
        cancel = threading.Event()
        try:
            contents, passages, words = await asyncio.to_thread(_read, path, options, cancel, progress)
        except asyncio.CancelledError:
            cancel.set()
            raise
        vectors = None
        if embedding is not None:
            vectors = await _embedded([p.shown for p in passages], embedding, cache, progress)
        return cls(
            name or str(path),
            passages,
            words,
            vectors,
            embedding=embedding,
            reranker=reranker,
            options=options,
            notes=tuple(contents.notes),
            files=len(contents.files),
            owned=owned,
        )

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._passages)

    def in_run(self, run: Run, deadline_s: float) -> KnowledgeSource:
        """The brain with its embedding of queries charged to a run (see `MeteredSource`).

        Raises:
            UserError: The run limits dollars, and the embedding model's price is unknown.
        """
        return self if self._embedding is None else _InRun(self, MeteredEmbedding(self._embedding, "embedding", run))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The chunks that answer best (see `KnowledgeSource`); the context is not used.

        A snippet's score is the reranker's raw output, or else the fused one, at most 2/61.
        """
        return await self.search(text, k, self._embedding)

    async def search(self, text: str, k: int, embedding: EmbeddingModel | None) -> list[Snippet]:
        """See `query`.

        Args:
            text: What is asked.
            k: Most snippets.
            embedding: Embeds the query; the one that the folder was opened with, or a meter over it.
        """
        most = max(k, self._options.candidates)
        vector = None
        if embedding is not None and self._vectors is not None:
            vector = (await embedding.embed([text], kind="query"))[0]
        best = await asyncio.to_thread(self._ranked, text, vector, most)
        if best and self._reranker is not None:
            some = [place for place, _ in best[: max(k, self._options.reranked)]]
            order = await rank(self._reranker, text, [self._passages[place].shown for place in some])
            best = [(some[i], score) for i, score in order]
        return [
            Snippet(text=self._passages[i].shown, source_id=self._passages[i].source_id, score=score)
            for i, score in best[:k]
        ]

    async def aclose(self) -> None:
        """Close the embedding model if it is the brain's own; idempotent."""
        if self._owned and self._embedding is not None:
            await self._embedding.aclose()

    def _ranked(self, text: str, vector: NDArray[np.float32] | None, most: int) -> list[tuple[int, float]]:
        import numpy as np

        rankings = [[place for place, _ in self._words.rank(text, most)]]
        if vector is not None and self._vectors is not None:
            likeness = self._vectors @ vector
            rankings.append([int(i) for i in np.argsort(-likeness, kind="stable")[:most]])
        return fuse_rankings(rankings)


class _InRun:
    """A folder as one run asks it."""

    kind = DirectorySource.kind

    def __init__(self, folder: DirectorySource, embedding: EmbeddingModel) -> None:
        self.name, self.identity = folder.name, folder.identity
        self._folder, self._embedding = folder, embedding

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        return await self._folder.search(text, k, self._embedding)

    async def aclose(self) -> None:
        """Do nothing: the folder belongs to whoever opened it."""


def _read(
    path: Path, options: DirectoryOptions, cancel: threading.Event, progress: Told | None
) -> tuple[DirectoryContents, list[Passage], BM25Index]:
    """Read, cut and index, on a thread."""
    contents = read_directory(
        path,
        most_file_bytes=options.most_file_bytes,
        most_bytes=options.most_bytes,
        most_files=options.most_files,
        cancel=cancel,
        told=None if progress is None else lambda done, of: progress("reading", done, of),
    )
    passages: list[Passage] = []
    for source, parts in contents.files:
        for part in parts:
            if cancel.is_set():
                return contents, [], BM25Index([])
            cut = split_chunks(part.text, words=options.words, overlap=options.overlap, headings=part.headings)
            whole = f"{source}#{part.name}" if part.name else source
            passages += [Passage(part.text[c.start : c.end], c.heading, f"{whole}:{c.start}-{c.end}") for c in cut]
        if len(passages) > options.most_chunks:
            raise UserError(
                f"{path} has more than {options.most_chunks} pieces of text",
                hint="choose a folder within it, or save an index (`save_faiss_source`)",
            )
    if not passages and not cancel.is_set():
        left = f"; {len(contents.notes)} files were left out, the first: {contents.notes[0]}" if contents.notes else ""
        raise DataError(f"there is no text in the folder {path}{left}", hint="give a folder of documents")
    return contents, passages, BM25Index([p.shown for p in passages])


async def _embedded(
    texts: list[str], embedding: EmbeddingModel, cache: EmbeddingCache | None, progress: Told | None
) -> NDArray[np.float32]:
    """Vectors of all texts, batch by batch, each kept as soon as it is there."""
    import numpy as np

    identity = f"{embedding.identity}/document"
    vectors: NDArray[np.float32] = np.zeros((len(texts), embedding.dimension), dtype=np.float32)
    for start in range(0, len(texts), _BATCH):
        batch = list(dict.fromkeys(texts[start : start + _BATCH]))
        known = {} if cache is None else await cache.find(identity, embedding.dimension, batch)
        new = [text for text in batch if text not in known]
        if new:
            made = dict(zip(new, await embedding.embed(new, kind="document"), strict=True))
            if cache is not None:
                await cache.keep(identity, made)
            known |= made
        for i, text in enumerate(texts[start : start + _BATCH], start):
            vectors[i] = known[text]
        if progress is not None:
            progress("embedding", min(start + _BATCH, len(texts)), len(texts))
    return vectors


def _identity(
    passages: list[Passage],
    options: DirectoryOptions,
    embedding: EmbeddingModel | None,
    reranker: CrossEncoder | None,
) -> str:
    hashed = hashlib.sha256()
    about = [
        VERSION,
        options.model_dump(mode="json"),
        None if embedding is None else embedding.identity,
        None if reranker is None else reranker.identity,
    ]
    hashed.update(json.dumps(about, sort_keys=True).encode())
    for passage in passages:
        for part in (passage.source_id, passage.heading, passage.text):
            encoded = part.encode("utf-8", "surrogatepass")
            hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return f"folder:{hashed.hexdigest()}"
