"""The knowledge of runs: sources, memories, embedding models and retrievers, loaded once and shared by many runs.

`Reasoner` takes `KnowledgePool` from the entry-point group `reason.resources`. What reads documents, indexes and
memories is imported by the first run that has any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.budget import LimitKind
from ...core.errors import BackendUnavailable, DataError, UserError
from ...core.files import Progress
from ...core.run import RunConfig
from ...core.settings import Settings
from ...core.store.protocol import RunRecord
from ...serving.encoders.factory import load_embedding_model
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.metered.replay import ReplayEmbedding
from ...serving.model import LanguageModel
from ..knowledge import KnowledgeSource, Retriever, Snippet, SourceLike, source_name
from ..strategy import Knowledge

if TYPE_CHECKING:
    from ..memory.named_memory import NamedMemory
    from .readers import FileNote

MAX_NOTES = 5
"""Notes on documents that a run reports."""


@dataclass
class KnowledgePool:
    """Knowledge sources, memories and embedding models by name, shared by many runs and closed together."""

    sources: dict[str, KnowledgeSource] = field(default_factory=dict)
    memories: dict[str, NamedMemory] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingModel] = field(default_factory=dict)

    async def load(
        self,
        config: RunConfig,
        settings: Settings,
        sources: Sequence[SourceLike],
        language_model: Callable[[str], Awaitable[LanguageModel]],
        progress: Progress | None,
        record: RunRecord | None = None,
    ) -> Knowledge:
        """The knowledge of a run.

        Args:
            sources: Sources of this process; a source of the configuration that is no description must be among them.
            language_model: Loads a language model by its string, for sources that are one.
            progress: Receives the progress of indexing and downloads.
            record: The stored run, if it is resumed.

        Raises:
            UserError: A source cannot be created from its description, or is missing.
            ReasonError: A source or memory cannot be opened.
        """
        embedding = await self._embedding_of(config, settings, progress)
        given = {source_name(source): source for source in sources}
        identities = _recorded_identities(record)
        loaded: list[KnowledgeSource] = []

        async def shared_embedding(name: str | None) -> EmbeddingModel:
            return await self._embedding(name or settings.embedding_model, settings, progress)

        for name in config.context:
            if name not in self.sources:
                from .sources.factory import create_knowledge_source

                self.sources[name] = await create_knowledge_source(
                    given.get(name, name),
                    settings,
                    load_embedding=shared_embedding,
                    load_language_model=language_model,
                    progress=progress,
                )
            loaded.append(self.sources[name])
        memory = None
        if config.memory:
            if config.memory not in self.memories:
                from ..memory.named_memory import load_memory

                self.memories[config.memory] = await load_memory(config.memory, settings, embedding)
            memory = self.memories[config.memory]
            identity = identities.get(f"knowledge:{len(config.context)}") or memory.identity
            loaded.append(_WithIdentity(memory, identity))
        changed = () if record is None else _changed_sources(loaded, identities)
        return Knowledge(tuple(loaded), memory, embedding, _descriptions(loaded, embedding), changed)

    def recorded(self, record: RunRecord, *, has_time_limit: bool) -> Knowledge:
        """The knowledge of a stored run, which answers from the run store only.

        Args:
            has_time_limit: Whether the run had a time limit: then a missing response was not reached in time.

        Raises:
            DataError: The record is damaged.
        """
        from .sources.client import recorded_source

        limit: LimitKind | None = "seconds" if has_time_limit else None
        try:
            sources: list[KnowledgeSource] = []
            while isinstance(recorded := record.identities.get(f"knowledge:{len(sources)}"), dict):
                sources.append(recorded_source(recorded, limit=limit))
            recorded = record.identities.get("embedding")
            embedding = None if not isinstance(recorded, dict) else ReplayEmbedding.from_json(recorded)
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
        return Knowledge(tuple(sources), None, embedding, _descriptions(sources, embedding))

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        loaded: list[KnowledgeSource | EmbeddingModel] = [
            *self.sources.values(),
            *self.memories.values(),
            *self.embeddings.values(),
        ]
        self.sources.clear()
        self.memories.clear()
        self.embeddings.clear()
        for one in loaded:
            await one.aclose()

    async def _embedding_of(
        self, config: RunConfig, settings: Settings, progress: Progress | None
    ) -> EmbeddingModel | None:
        """The run's embedding model; None if it is not available: the strategy works without it and says so."""
        name = config.models.get("embedding")
        if name is None:
            return None
        try:
            return await self._embedding(name, settings, progress)
        except (UserError, BackendUnavailable):
            return None

    async def _embedding(self, name: str, settings: Settings, progress: Progress | None) -> EmbeddingModel:
        if name not in self.embeddings:
            self.embeddings[name] = await load_embedding_model(name, settings, progress)
        return self.embeddings[name]


class _WithIdentity:
    """A memory under the identity that a run began with: for the run it stays the same source while it grows."""

    def __init__(self, source: KnowledgeSource, identity: str) -> None:
        self._source = source
        self.name, self.kind, self.identity = source.name, source.kind, identity

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        return await self._source.query(text, k, context)

    async def aclose(self) -> None:
        """Do nothing: the pool closes the memory."""


def _changed_sources(sources: Sequence[KnowledgeSource], identities: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the sources that have changed since the run began."""
    return tuple(
        source.name
        for i, source in enumerate(sources)
        if identities.get(f"knowledge:{i}", source.identity) != source.identity
    )


def _descriptions(sources: Sequence[KnowledgeSource], embedding: EmbeddingModel | None) -> dict[str, Any]:
    """What a replay needs to know, by role."""
    descriptions: dict[str, Any] = {}
    if sources:
        from .sources.client import source_description

        descriptions = {f"knowledge:{i}": source_description(one) for i, one in enumerate(sources)}
    if embedding is not None:
        descriptions["embedding"] = {
            "identity": embedding.identity,
            "name": embedding.name,
            "dimension": embedding.dimension,
            "max_tokens": embedding.max_tokens,
        }
    return descriptions


def _recorded_identities(record: RunRecord | None) -> dict[str, str]:
    if record is None:
        return {}
    return {
        role: str(recorded["identity"])
        for role, recorded in record.identities.items()
        if isinstance(recorded, dict) and "identity" in recorded
    }


# -- evidence


async def load_retriever(names: Sequence[str], settings: Settings, progress: Progress | None) -> Retriever:
    """A retriever over a saved index, or over files and directories that are read now.

    Passages are retrieved by words and embeddings, or by words only if no embedding model is available. Vectors of
    documents are cached: only texts that were not embedded before are embedded.

    Args:
        names: One saved index, or files and directories, which are searched together.
        progress: Receives the progress of reading and embedding.

    Raises:
        DataError: There is nothing there, or it cannot be read.
        UserError: A library is not installed.
    """
    from .embedding_cache import FILE, EmbeddingCache
    from .index.saved_index import load_index
    from .passages import read_passages
    from .retriever import HybridRetriever

    locations = [await asyncio.to_thread(_located, name) for name in names]

    async def embedding(model: str | None) -> EmbeddingModel:
        return await load_embedding_model(model or settings.embedding_model, settings, progress)

    if len(locations) == 1 and locations[0][1]:
        return await load_index(locations[0][0], embedding)
    if progress is not None:
        progress("reading", 0, None)
    documents = await asyncio.to_thread(read_passages, [path for path, _ in locations])
    model: EmbeddingModel | None = None
    without_model = ""
    try:
        model = await embedding(None)
    except (UserError, BackendUnavailable) as e:
        why = e.message if isinstance(e, UserError) else e.code  # the text of the other names addresses
        without_model = f"passages are retrieved by their words only: {why}"

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("embedding", done, total)

    try:
        retriever = await HybridRetriever.build(
            documents.passages,
            model,
            name=", ".join(names),
            owned=True,
            cache=EmbeddingCache(settings.cache_dir / FILE),
            progress=report,
        )
    except BaseException:
        if model is not None:
            await model.aclose()
        raise
    degraded = (without_model,) if without_model else retriever.degraded
    retriever.degraded = (*degraded, *_shown_notes(documents.notes))
    return retriever


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
    """The path of evidence, and whether it is a saved index."""
    from .index.saved_index import read_manifest

    path = Path(name).expanduser()
    return path, path.is_dir() and read_manifest(path) is not None
