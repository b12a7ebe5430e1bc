"""What a run knows beside its models: opened from what its configuration names, and described for replays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import BackendUnavailable, DataError, UserError
from ..core.run import RunConfig
from ..core.settings import Settings
from ..core.store import RunRecord
from ..reasoning.brains.brain import Brain, Snippet
from ..reasoning.brains.opening import open_brain
from ..reasoning.brains.recorded import noted, recorded_brain
from ..reasoning.knowledge import Knowledge
from ..reasoning.memory.named import NamedMemory, open_memory
from ..reasoning.strategy import STRATEGIES
from ..serving.embeddings import EmbeddingModel, open_embedding
from ..serving.model import LanguageModel
from ..serving.pulling import Progress
from ..serving.recorded_embedding import RecordedEmbedding

Source = str | Brain | Callable[..., Any]
"""What a brain is opened from: words (see `brains.opening`), a brain, or a function."""


def uses(strategy: str, role: str) -> bool:
    """Whether a strategy uses a role."""
    return role in STRATEGIES.load(strategy).roles


def name_of(source: Source) -> str:
    """What stands for a source in a run's configuration."""
    if isinstance(source, str):
        return source
    if isinstance(source, Brain):
        return source.name
    return f"python:{getattr(source, '__module__', '')}.{getattr(source, '__qualname__', type(source).__qualname__)}"


def refuse_unused(strategy: str, context: Sequence[Source], memory: str) -> None:
    """Refuse knowledge that the strategy would not look at.

    Raises:
        UserError: There is some, and the strategy asks no brain.
    """
    if (context or memory) and not uses(strategy, "brain"):
        able = sorted(name for name in STRATEGIES.names() if uses(name, "brain"))
        what = f"the memory {memory!r}" if memory else f"{name_of(context[0])!r}"
        raise UserError(
            f"the strategy {strategy} looks nothing up, so it cannot use {what}",
            hint=f"take one of {', '.join(able)}; single text files can be given to any strategy",
        )


def refuse_namesakes(context: Sequence[Source]) -> None:
    """Refuse sources that a run's configuration could not tell apart.

    Raises:
        UserError: Two have the same name: one source given twice, or two functions of one qualified name.
    """
    known: dict[str, Source] = {}
    for source in context:
        name = name_of(source)
        if name in known:
            same = known[name] is source or isinstance(source, str)
            raise UserError(
                f"the context has {name!r} twice",
                hint="give it once"
                if same
                else "they are two sources of one name, which a stored run could not tell apart: give each function a "
                "name of its own with def, or each brain another name",
            )
        known[name] = source


@dataclass
class OpenedKnowledge:
    """Brains, memories and embedding models that are open, by name; they serve many runs and are closed together."""

    brains: dict[str, Brain] = field(default_factory=dict)
    memories: dict[str, NamedMemory] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingModel] = field(default_factory=dict)

    async def open(
        self,
        config: RunConfig,
        settings: Settings,
        sources: Sequence[Source],
        language_model: Callable[[str], Awaitable[LanguageModel]],
        progress: Progress | None,
        record: RunRecord | None = None,
    ) -> Knowledge:
        """What a run knows.

        Args:
            config: The run's configuration.
            settings: Where things are kept.
            sources: What was given to this process; a source of the configuration that is no words must be among them.
            language_model: Opens a language model by its string, for brains that are one.
            progress: Told how far indexing and fetching are.
            record: The run as stored, if it goes on.

        Raises:
            UserError: A brain cannot be opened from its words, or is missing.
            ReasonError: A brain or memory cannot be opened.
        """
        embedding = await self._compares(config, settings, progress)
        given = {name_of(source): source for source in sources}
        known = _identities(record)
        brains: list[Brain] = []

        async def open_shared(name: str | None) -> EmbeddingModel:
            return await self._embedding(name or settings.embedding_model, settings, progress)

        for name in config.context:
            if name not in self.brains:
                self.brains[name] = await open_brain(
                    given.get(name, name),
                    settings,
                    embedding=open_shared,
                    model=language_model,
                    progress=progress,
                )
            brains.append(self.brains[name])
        memory = None
        if config.memory:
            if config.memory not in self.memories:
                self.memories[config.memory] = await open_memory(config.memory, settings, embedding)
            memory = self.memories[config.memory]
            identity = known.get(f"brain:{len(config.context)}") or memory.identity
            brains.append(_AsBegun(memory, identity))
        return Knowledge(tuple(brains), memory, embedding)

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        opened: list[Brain | EmbeddingModel] = [
            *self.brains.values(),
            *self.memories.values(),
            *self.embeddings.values(),
        ]
        self.brains.clear()
        self.memories.clear()
        self.embeddings.clear()
        for one in opened:
            await one.aclose()

    async def _compares(
        self, config: RunConfig, settings: Settings, progress: Progress | None
    ) -> EmbeddingModel | None:
        """The embedding model that the strategy wants; None where none can be had: it does without, and says so."""
        name = config.models.get("embedding")
        if name is None:
            return None
        try:
            return await self._embedding(name, settings, progress)
        except (UserError, BackendUnavailable):
            return None

    async def _embedding(self, name: str, settings: Settings, progress: Progress | None) -> EmbeddingModel:
        if name not in self.embeddings:
            self.embeddings[name] = await open_embedding(name, settings, progress)
        return self.embeddings[name]


class _AsBegun:
    """A memory under the identity that a run began with: one that grows meanwhile stays the same brain to it."""

    def __init__(self, brain: Brain, identity: str) -> None:
        self._brain = brain
        self.name, self.kind, self.identity = brain.name, brain.kind, identity

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `Brain.query`."""
        return await self._brain.query(text, k, context)

    async def aclose(self) -> None:
        """Do nothing: the brain belongs to whoever opened it."""


def changed(knowledge: Knowledge, record: RunRecord) -> list[str]:
    """Names of the brains that answer otherwise than when a run began."""
    known = _identities(record)
    return [
        brain.name
        for i, brain in enumerate(knowledge.brains)
        if known.get(f"brain:{i}", brain.identity) != brain.identity
    ]


def described(knowledge: Knowledge) -> dict[str, Any]:
    """What a replay needs to know, by role."""
    found: dict[str, Any] = {f"brain:{i}": noted(brain) for i, brain in enumerate(knowledge.brains)}
    if knowledge.embedding is not None:
        embedding = knowledge.embedding
        found["embedding"] = {
            "identity": embedding.identity,
            "name": embedding.name,
            "dimension": embedding.dimension,
            "max_tokens": embedding.max_tokens,
        }
    return found


def recorded_knowledge(record: RunRecord, *, out_of_time: bool) -> Knowledge:
    """What a stored run knew, for showing it again: it answers from the run store alone.

    Args:
        record: The run.
        out_of_time: Whether it had a time limit: what the store does not have, it did not get to.

    Raises:
        DataError: What the store says of it is damaged.
    """
    try:
        brains: list[Brain] = []
        while isinstance(known := record.identities.get(f"brain:{len(brains)}"), dict):
            brains.append(recorded_brain(known, out_of_time=out_of_time))
        known = record.identities.get("embedding")
        embedding = None if not isinstance(known, dict) else RecordedEmbedding.described(known)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
    return Knowledge(tuple(brains), None, embedding)


def _identities(record: RunRecord | None) -> dict[str, str]:
    if record is None:
        return {}
    return {
        role: str(known["identity"])
        for role, known in record.identities.items()
        if isinstance(known, dict) and "identity" in known
    }
