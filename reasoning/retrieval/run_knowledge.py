"""The knowledge of runs: sources, memories, embedding models and retrievers, loaded once and shared by many runs.

`Reasoner` takes `KnowledgePool` from the entry-point group `reason.resources`. What reads documents, indexes and
memories is imported by the first run that has any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core.budget import LimitKind
from ...core.errors import BackendUnavailable, DataError, UserError
from ...core.files import Progress
from ...core.run import RunConfig
from ...core.settings import Settings
from ...core.store.records import RunRecord
from ...serving.encoders.embeddings import load_embedding_model
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.metered.replay import ReplayEmbedding
from ..knowledge import Knowledge, KnowledgeSource, Snippet, SourceLike, source_name

if TYPE_CHECKING:
    from ..memory.named_memory import NamedMemory


@dataclass
class KnowledgePool:
    """Knowledge sources, memories and embedding models by name, shared by many runs and closed together."""

    sources: dict[str, KnowledgeSource] = field(default_factory=dict)
    memories: dict[tuple[str, str | None], NamedMemory] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingModel] = field(default_factory=dict)

    async def load(
        self,
        config: RunConfig,
        settings: Settings,
        sources: Sequence[SourceLike],
        progress: Progress | None,
        record: RunRecord | None = None,
    ) -> Knowledge:
        """The knowledge of a run.

        Args:
            sources: Sources of this process; a source of the configuration that is no description must be among them.
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
                    progress=progress,
                )
            loaded.append(self.sources[name])
        memory = None
        if config.memory:
            key = config.memory, None if embedding is None else embedding.identity
            if key not in self.memories:
                from ..memory.named_memory import load_memory

                self.memories[key] = await load_memory(config.memory, settings, embedding)
            memory = self.memories[key]
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
