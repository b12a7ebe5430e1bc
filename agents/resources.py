"""What runs work with: models, knowledge and verifier resources, loaded at first use and shared by many runs.

What reads documents, indexes and memories is imported by the first run that has any.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.budget import require_known_price
from ..core.errors import BackendUnavailable, DataError, UserError
from ..core.files import Progress
from ..core.run import Run, RunConfig
from ..core.settings import LocalSettings, Settings
from ..core.store.protocol import RunRecord
from ..reasoning.knowledge import KnowledgeSource, Retriever, Snippet
from ..reasoning.retrieval.metered import MeteredRetriever
from ..reasoning.strategy import STRATEGIES, Knowledge, Models
from ..serving.encoders.factory import load_embedding_model
from ..serving.encoders.protocols import EmbeddingModel
from ..serving.litellm.limiter import LimiterRegistry
from ..serving.model import LanguageModel
from ..serving.rewards.model import RewardModel
from ..verify.entailment.factory import EMBEDDED, LEXICAL, MODEL, find_embedded, load_entailment
from ..verify.entailment.judge import JudgeEntailment
from ..verify.entailment.lexical import LexicalEntailment
from ..verify.entailment.metered import MeteredEntailment
from ..verify.types import Entailment
from ..verify.verifier import PreparesItself, VerifierContext, make_verifiers
from .planner import BUILT_IN_ENTAILMENTS, entailment_of_strategy, uses_role

if TYPE_CHECKING:
    from ..reasoning.memory.named_memory import NamedMemory
    from ..reasoning.retrieval.readers import FileNote


class CrossLoopLock:
    """Waits for a thread lock without blocking the event loop; a cancelled wait does not take the lock.

    An asyncio lock belongs to one loop, and the synchronous methods run on another loop than the caller's own.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 (the holder may be on another loop)
            await asyncio.sleep(0.01)

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()


# -- models

LoadModel = Callable[[str, Settings, Progress | None, LimiterRegistry], Awaitable[LanguageModel]]
LoadRewardModel = Callable[
    [str, Settings, Progress | None, Callable[[str], Awaitable[LanguageModel]]], Awaitable[RewardModel]
]
_Key = tuple[str, LocalSettings]
IN_PROCESS = ("local/", "gguf/", "vllm/", "vllm-pooling/", "judge/local/", "judge/gguf/", "judge/vllm/")
"""Beginnings of the strings of models whose weights are loaded into this process."""


class ModelPool:
    """Language models and reward models by their strings, loaded at first use, shared by many runs, closed together.

    Args:
        load_model: Loads a language model by its string.
        load_reward_model: Loads a reward model by its string.
        progress: Receives the progress of downloads.
        lock: Held while something is loaded.
    """

    def __init__(
        self,
        load_model: LoadModel,
        load_reward_model: LoadRewardModel,
        settings: Settings,
        progress: Progress | None,
        lock: threading.Lock,
    ) -> None:
        self._load_model, self._load_reward_model = load_model, load_reward_model
        self._settings, self._progress, self._lock = settings, progress, lock
        self._limiters = LimiterRegistry()
        self.wrap: Callable[[LanguageModel], LanguageModel] = lambda model: model
        """What a language model that is loaded is replaced by."""
        self._models: dict[_Key, LanguageModel] = {}
        self._rewards: dict[_Key, RewardModel] = {}

    def names(self) -> frozenset[str]:
        """Strings of the loaded models."""
        return frozenset(name for name, _ in (*self._models, *self._rewards))

    async def load(self, config: RunConfig) -> tuple[dict[str, LanguageModel], RewardModel | None]:
        """A run's language models by role, and its reward model; roles with one model string share the model.

        What is loaded already is returned at once, also while another model is being loaded.

        Raises:
            ReasonError: One cannot be loaded, or has no price although the budget is in dollars.
        """
        keys = {role: (name, config.local) for role, name in config.models.items() if role != "embedding"}
        if not all(key in (self._rewards if role == "reward" else self._models) for role, key in keys.items()):
            async with CrossLoopLock(self._lock):
                # first what takes no time, so that a wrong name or a missing key is told before weights are loaded
                for role, key in sorted(keys.items(), key=lambda item: item[1][0].startswith(IN_PROCESS)):
                    await (self._reward_model(key) if role == "reward" else self.language_model(*key))
        models = {role: self._models[key] for role, key in keys.items() if role != "reward"}
        reward = self._rewards[keys["reward"]] if "reward" in keys else None
        for model in models.values():
            require_known_price(config.budget, model.name, model.capabilities.price_known)
        if reward is not None:
            require_known_price(config.budget, reward.name, reward.capabilities.price_known)
        return models, reward

    async def language_model(self, name: str, local: LocalSettings) -> LanguageModel:
        """A language model by its string; the caller holds the lock."""
        key = name, local
        if key not in self._models:
            settings = self._settings.model_copy(update={"local": local})
            self._models[key] = self.wrap(await self._load_model(name, settings, self._progress, self._limiters))
        return self._models[key]

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        loaded: list[RewardModel | LanguageModel] = [*self._rewards.values(), *self._models.values()]
        self._rewards.clear()
        self._models.clear()
        async with AsyncExitStack() as stack:  # which closes the others too if one of them fails
            for model in reversed(loaded):
                stack.push_async_callback(model.aclose)

    async def _reward_model(self, key: _Key) -> None:
        name, local = key
        if key not in self._rewards:
            settings = self._settings.model_copy(update={"local": local})

            async def language_model(of: str) -> LanguageModel:
                return await self.language_model(of, local)

            self._rewards[key] = await self._load_reward_model(name, settings, self._progress, language_model)


def refuse_changed_models(record: RunRecord, models: Mapping[str, LanguageModel | RewardModel]) -> None:
    """Refuse to resume a run with other models than it began with.

    Raises:
        UserError: A model has changed.
    """
    for role, model in models.items():
        recorded = record.identities.get(role)
        if isinstance(recorded, dict) and recorded.get("identity") != model.identity:
            raise UserError(
                f"model {model.name} is not the one that run {record.id} began with", hint="ask the question again"
            )


# -- knowledge

SourceLike = str | KnowledgeSource | Callable[..., Any]
"""What a knowledge source is created from: a description (see `retrieval.sources.factory`), a source, or a function."""


def source_name(source: SourceLike) -> str:
    """Name of a source in a run's configuration."""
    if isinstance(source, str):
        return source
    if isinstance(source, KnowledgeSource):
        return source.name
    return f"python:{getattr(source, '__module__', '')}.{getattr(source, '__qualname__', type(source).__qualname__)}"


def refuse_unused_knowledge(strategy: str, context: Sequence[SourceLike], memory: str) -> None:
    """Refuse knowledge that the strategy would not use.

    Raises:
        UserError: There is some, and the strategy uses no knowledge sources.
    """
    if (context or memory) and not uses_role(strategy, "knowledge"):
        able = sorted(name for name in STRATEGIES.names() if uses_role(name, "knowledge"))
        what = f"the memory {memory!r}" if memory else f"{source_name(context[0])!r}"
        raise UserError(
            f"the strategy {strategy} uses no knowledge sources, so it cannot use {what}",
            hint=f"take one of {', '.join(able)}; single text files can be given to any strategy",
        )


def refuse_duplicate_sources(context: Sequence[SourceLike]) -> None:
    """Refuse sources that a run's configuration could not tell apart.

    Raises:
        UserError: Two have the same name: one source given twice, or two functions with one qualified name.
    """
    by_name: dict[str, SourceLike] = {}
    for source in context:
        name = source_name(source)
        if name in by_name:
            is_same = by_name[name] is source or isinstance(source, str)
            raise UserError(
                f"the context has {name!r} twice",
                hint="give it once"
                if is_same
                else "two sources have this name, which a stored run could not tell apart: define each function with a "
                "name of its own, or rename a source",
            )
        by_name[name] = source


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
                from ..reasoning.retrieval.sources.factory import create_knowledge_source

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
                from ..reasoning.memory.named_memory import load_memory

                self.memories[config.memory] = await load_memory(config.memory, settings, embedding)
            memory = self.memories[config.memory]
            identity = identities.get(f"knowledge:{len(config.context)}") or memory.identity
            loaded.append(_WithIdentity(memory, identity))
        return Knowledge(tuple(loaded), memory, embedding)

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


def changed_sources(knowledge: Knowledge, record: RunRecord) -> list[str]:
    """Names of the knowledge sources that have changed since a run began."""
    identities = _recorded_identities(record)
    return [
        source.name
        for i, source in enumerate(knowledge.sources)
        if identities.get(f"knowledge:{i}", source.identity) != source.identity
    ]


def knowledge_identities(knowledge: Knowledge) -> dict[str, Any]:
    """What a replay needs to know of the knowledge, by role."""
    identities: dict[str, Any] = {}
    if knowledge.sources:
        from ..reasoning.retrieval.sources.client import source_description

        identities = {f"knowledge:{i}": source_description(one) for i, one in enumerate(knowledge.sources)}
    if knowledge.embedding is not None:
        embedding = knowledge.embedding
        identities["embedding"] = {
            "identity": embedding.identity,
            "name": embedding.name,
            "dimension": embedding.dimension,
            "max_tokens": embedding.max_tokens,
        }
    return identities


def _recorded_identities(record: RunRecord | None) -> dict[str, str]:
    if record is None:
        return {}
    return {
        role: str(recorded["identity"])
        for role, recorded in record.identities.items()
        if isinstance(recorded, dict) and "identity" in recorded
    }


# -- verifiers


def refuse_missing_evidence(names: Sequence[str]) -> None:
    """Refuse files, directories and indexes that do not exist, before anything is loaded.

    Raises:
        DataError: One does not exist.
    """
    for name in names:
        if not os.path.exists(os.path.expanduser(name)):
            raise DataError(f"{name} does not exist", hint="name existing files or directories")


MAX_NOTES = 5
"""Notes on documents that a run reports."""


@dataclass(frozen=True)
class VerifierResources:
    """Entailment models and the retriever of one run's verifiers.

    Attributes:
        entailments: Entailment models by name, not metered.
        retriever: Where evidence is retrieved from; None if nowhere.
    """

    entailments: Mapping[str, Entailment] = field(default_factory=dict)
    retriever: Retriever | None = None

    def for_strategy(self, run: Run) -> MeteredEntailment | None:
        """The entailment model of a run's strategy, charged to the run; None if it has none that was loaded."""
        entailment = self.entailments.get(_strategy_entailment(run.config))
        return None if entailment is None else MeteredEntailment(entailment, run)

    def context(self, run: Run, models: Models, entailment: str) -> VerifierContext:
        """What a verifier works with in a run, charged to it.

        Args:
            entailment: The name of the verifier's judge, resolved.
        """
        second = None
        if entailment == MODEL:
            model: Entailment = JudgeEntailment(models.judge)
            embedded = next((name for name in EMBEDDED if name in self.entailments), None)
            second = None if embedded is None else MeteredEntailment(self.entailments[embedded], run)
        elif entailment == LEXICAL:
            model = LexicalEntailment()
        else:
            model = MeteredEntailment(self.entailments[entailment], run)
        retriever = None if self.retriever is None else MeteredRetriever(self.retriever, run)
        for what in self._degraded():
            run.degrade(f"evidence: {what}")
        return VerifierContext(run=run, models=models, entailment=model, retriever=retriever, second=second)

    def identities(self) -> dict[str, Any]:
        """What a replay needs to know, by role."""
        identities: dict[str, Any] = {
            f"entailment:{name}": {"identity": e.identity, "max_words": e.max_words}
            for name, e in self.entailments.items()
        }
        if self.retriever is not None:
            identities["retriever"] = {
                "identity": self.retriever.identity,
                "name": self.retriever.name,
                "degraded": self._degraded(),
            }
        return identities

    def _degraded(self) -> list[str]:
        """What the retriever could not do as intended, and what it left out."""
        return [str(what) for what in getattr(self.retriever, "degraded", ())]


@dataclass
class VerifierPool:
    """Entailment models and retrievers by name, shared by many runs and closed together."""

    entailments: dict[str, Entailment] = field(default_factory=dict)
    retrievers: dict[tuple[str, ...], Retriever] = field(default_factory=dict)

    async def load(self, config: RunConfig, settings: Settings, progress: Progress | None) -> VerifierResources:
        """The resources of a run's verifiers.

        Raises:
            ReasonError: An entailment model, a document or an index cannot be opened.
        """
        used: dict[str, Entailment] = {}
        for verifier in make_verifiers(config.verify, config.verify_parameters):
            if isinstance(verifier, PreparesItself):
                await verifier.prepare()
            if verifier.entailment not in BUILT_IN_ENTAILMENTS:
                used[verifier.entailment] = await self._entailment(verifier.entailment, settings, progress)
            elif verifier.entailment == MODEL and (config.evidence or config.question.documents):
                second = None if used.keys() & set(EMBEDDED) else await asyncio.to_thread(find_embedded, settings)
                if second is not None:  # it compares its verdicts with the model's
                    used[second] = await self._entailment(second, settings, progress)
        name = _strategy_entailment(config)
        if name and name not in used:
            with suppress(UserError, BackendUnavailable):  # a strategy works without it and says so
                used[name] = await self._entailment(name, settings, progress)
        if not config.verify:
            return VerifierResources(used)
        groups = await _evidence_groups(config.evidence)
        retrievers = [await self._retriever(names, settings, progress) for names in groups]
        if not retrievers:
            return VerifierResources(used)
        if len(retrievers) == 1:
            return VerifierResources(used, retrievers[0])
        from ..reasoning.retrieval.retriever import CombinedRetriever

        return VerifierResources(used, CombinedRetriever(retrievers))

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        loaded: list[Entailment | Retriever] = [*self.entailments.values(), *self.retrievers.values()]
        self.entailments.clear()
        self.retrievers.clear()
        for one in loaded:
            await one.aclose()

    async def _entailment(self, name: str, settings: Settings, progress: Progress | None) -> Entailment:
        if name not in self.entailments:
            self.entailments[name] = await load_entailment(name, settings, progress=progress)
        return self.entailments[name]

    async def _retriever(self, names: tuple[str, ...], settings: Settings, progress: Progress | None) -> Retriever:
        if names not in self.retrievers:
            self.retrievers[names] = await load_retriever(names, settings, progress)
        return self.retrievers[names]


def _strategy_entailment(config: RunConfig) -> str:
    return entailment_of_strategy(config.strategy, config.parameters, config.question)


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
    from ..reasoning.retrieval.embedding_cache import FILE, EmbeddingCache
    from ..reasoning.retrieval.index.saved_index import load_index
    from ..reasoning.retrieval.passages import read_passages
    from ..reasoning.retrieval.retriever import HybridRetriever

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


async def _evidence_groups(names: Sequence[str]) -> list[tuple[str, ...]]:
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
    from ..reasoning.retrieval.index.manifest import read_manifest

    path = Path(name).expanduser()
    return path, path.is_dir() and read_manifest(path) is not None
