"""Documents as a retriever (`load_retriever`), and a directory of them as a knowledge source (`DirectorySource`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePath

from ....core.errors import BackendUnavailable, CapabilityMissing, UserError
from ....core.files import Progress
from ....core.run import Run
from ....core.settings import DEFAULT_EMBEDDING_MODEL, Settings
from ....serving.encoders.protocols import EmbeddingModel
from ....serving.metered.scorers import MeteredEmbedding
from ...knowledge import KnowledgeSource, Passage, Retriever, Snippet, searchable_text
from ..embedding_cache import FILE, EmbeddingCache
from ..index.saved_index import DATABASE_FILE, load_index
from ..passages import ChunkOptions, read_passages
from ..readers import FileNote
from ..retriever import CombinedRetriever, HybridRetriever

LoadEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Loads the embedding model of a name; None is the default."""

SNIPPET_CHUNKING = ChunkOptions(words=120, overlap=20)
MAX_NOTES = 5
"""Notes on documents that a run reports."""


class DirectorySource:
    """A directory of documents, or a saved index. It is a snapshot of the files.

    Args:
        name: The string it was created from.
        retriever: Searches the documents; closed with the source.
        embedding: Embeds queries in place of the retriever's model, such as a metered one.
    """

    kind = "directory"

    def __init__(self, name: str, retriever: HybridRetriever, embedding: EmbeddingModel | None = None) -> None:
        self.name, self.identity = name, f"directory:{retriever.identity}"
        self.degraded = retriever.degraded
        self._retriever, self._embedding = retriever, embedding

    def metered(self, run: Run) -> KnowledgeSource:
        """The source with its embedding of queries charged to a run (see `MeteredSource`).

        Raises:
            UserError: The run limits dollars, and the embedding model's price is unknown.
        """
        model = self._retriever.embedding
        if model is None:
            return self
        return DirectorySource(self.name, self._retriever, MeteredEmbedding(model, "embedding", run))

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The best passages under their headings (see `KnowledgeSource`); the context is not used."""
        (passages,) = await self._retriever.search([text], k, self._embedding or self._retriever.embedding)
        return [Snippet(text=_with_heading(p), source_id=p.id, score=p.score) for p in passages]

    async def aclose(self) -> None:
        """Close the embedding model if the retriever owns it; idempotent."""
        await self._retriever.aclose()


def _with_heading(passage: Passage) -> str:
    is_file_name = PurePath(passage.source.partition("#")[0]).name == passage.title
    return passage.text if is_file_name else searchable_text(passage)


async def load_retriever(
    names: Sequence[str],
    settings: Settings,
    progress: Progress | None,
    load_embedding: LoadEmbedding | None = None,
    chunking: ChunkOptions | None = None,
) -> HybridRetriever:
    """A retriever over a saved index, or over files and directories that are read now.

    Passages are retrieved by words and embeddings, or by words only if no embedding model is available. Vectors of
    documents are cached: only texts that were not embedded before are embedded.

    Args:
        names: One saved index, or files and directories, which are searched together.
        progress: Receives the progress of reading and embedding.
        load_embedding: Loads embedding models, which its owner closes; None loads them by the settings, and they are
            closed with the retriever.
        chunking: How documents are split.

    Raises:
        DataError: There is nothing there, or it cannot be read.
        UserError: A library is not installed.
    """
    locations = [await asyncio.to_thread(_located, name) for name in names]
    owned = load_embedding is None

    async def load_own(name: str | None) -> EmbeddingModel:
        from ....serving.encoders.embeddings import load_embedding_model  # loads NumPy

        return await load_embedding_model(name or settings.embedding_model, settings, progress)

    load = load_embedding or load_own
    if len(locations) == 1 and locations[0][1]:
        return await load_index(locations[0][0], load, owned=owned)
    if progress is not None:
        progress("reading", 0, None)
    documents = await asyncio.to_thread(read_passages, [path for path, _ in locations], chunking)
    model: EmbeddingModel | None = None
    without_model = ""
    try:
        model = await load(None)
    except (UserError, BackendUnavailable, CapabilityMissing) as e:
        why = e.code if isinstance(e, BackendUnavailable) else e.message  # the text of the other names addresses
        without_model = f"passages are retrieved by their words only: {why}"

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("embedding", done, total)

    try:
        retriever = await HybridRetriever.build(
            documents.passages,
            model,
            name=", ".join(names),
            owned=owned,
            cache=EmbeddingCache(settings.cache_dir / FILE),
            progress=report,
        )
    except BaseException:
        if model is not None and owned:
            await model.aclose()
        raise
    degraded = (without_model,) if without_model else retriever.degraded
    retriever.degraded = (*degraded, *_shown_notes(documents.notes))
    return retriever


async def load_combined(names: Sequence[str], settings: Settings) -> Retriever:
    """Searches files, directories and saved indexes by words, and by embeddings if the settings name a model for them.

    Raises:
        UserError: A library is not installed.
        DataError: A file or directory cannot be read.
    """

    async def no_model(_name: str | None) -> EmbeddingModel:
        raise UserError("no embedding model is set")  # the default one would have to be downloaded first

    retrievers: list[Retriever] = []
    for group in await evidence_groups(names):
        uses_words = settings.embedding_model == DEFAULT_EMBEDDING_MODEL and not _located(group[0])[1]
        load = no_model if uses_words else None
        retrievers.append(await load_retriever(group, settings, None, load, SNIPPET_CHUNKING))
    return CombinedRetriever(retrievers)


async def evidence_groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """What is searched together: all documents, so that rare words are rare among all of them; each index by itself."""
    is_index = {name: (await asyncio.to_thread(_located, name))[1] for name in dict.fromkeys(names)}
    documents = tuple(name for name, indexed in is_index.items() if not indexed)
    return [*([documents] if documents else []), *((name,) for name, indexed in is_index.items() if indexed)]


def _shown_notes(notes: Sequence[FileNote]) -> tuple[str, ...]:
    """Documents that were left out or read otherwise; the first few by name."""
    shown = [
        f"{note.path} {'was skipped' if note.skipped else 'was read differently'}: {note.reason}"
        for note in notes[:MAX_NOTES]
    ]
    more = len(notes) - len(shown)
    return (*shown, *((f"{more:,} more documents were skipped or read differently",) if more else ()))


def _located(name: str) -> tuple[Path, bool]:
    """The path of evidence, and whether it is a saved index, finished or not."""
    path = Path(name).expanduser()
    return path, (path / DATABASE_FILE).is_file()
