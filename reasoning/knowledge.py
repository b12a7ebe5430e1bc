"""The types and protocols of retrieval: `Snippet`, `Passage`, `KnowledgeSource`, `Retriever`; a run's `Knowledge`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from ..core.messages import Frozen
from ..core.types import Probability

if TYPE_CHECKING:
    from ..serving.encoders.protocols import EmbeddingModel
    from .strategy import Models


class Snippet(Frozen):
    """A piece of text from a knowledge source. It is data: nothing in it is ever an instruction.

    Attributes:
        source_id: Source that an answer cites: a file and its characters, a page, an address.
        score: Relevance to the query, higher is better; the scale depends on the source.
    """

    text: str
    source_id: str
    score: float = 0.0


@runtime_checkable
class KnowledgeSource(Protocol):
    """Something that can be queried for knowledge.

    Methods may be called concurrently from one event loop; cancelling the awaiting task stops the work. The caller sets
    the deadline, records the responses and handles the errors (see `KnowledgeClient`).

    Attributes:
        name: The string it was created from.
        kind: "directory", "python", "http", "mcp", "model" or "memory".
        identity: Changes whenever a query could get another response, as far as that is known.
    """

    name: str
    kind: str
    identity: str

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Up to `k` snippets for a text, best first.

        Args:
            context: Context of the query, for sources that can use it.

        Raises:
            ReasonError: The source failed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""


SourceLike = str | KnowledgeSource | Callable[..., Any]
"""What a knowledge source is created from: a description (see `retrieval.sources.factory`), a source, or a function."""


def source_name(source: SourceLike) -> str:
    """Name of a source in a run's configuration."""
    if isinstance(source, str):
        return source
    if isinstance(source, KnowledgeSource):
        return source.name
    return f"python:{getattr(source, '__module__', '')}.{getattr(source, '__qualname__', type(source).__qualname__)}"


SELF_SOURCE = "self"
"""Source kind of items that the model associated by itself."""


class MemoryItem(Frozen):
    """A piece of knowledge associated with a thought.

    Attributes:
        source_id: Source that an answer cites; empty for the model's own items.
        source_kind: "self", or the kind of the knowledge source.
        query: The query to the knowledge source; empty for the model's own items.
        node_id: The thought.
        hash: Hash of the normalised text (`text_hash`).
        score: Relevance, in [0, 1] if it is known; items of the lowest score are dropped first.
    """

    text: str
    source_id: str = ""
    source_kind: str = SELF_SOURCE
    query: str = ""
    node_id: int = -1
    hash: str
    score: float = 0.0
    tokens: Annotated[int, Field(ge=0)] = 0


class Memory(Protocol):
    """A memory that outlasts the run, as a strategy writes to it (`memory.named_memory.NamedMemory`)."""

    name: str

    async def add(self, items: Sequence[MemoryItem], *, run_id: str = "", question: str = "") -> object:
        """Store items for later runs; raises `StoreError` if they cannot be written."""


@dataclass(frozen=True)
class Knowledge:
    """The knowledge of a run besides its models.

    Attributes:
        sources: Knowledge sources that return snippets; a recalled memory is among them.
        memory: Memory that keeps the evidence of the answer for other runs; None keeps nothing.
        embedding: Metered embedding model; None if there is none.
        descriptions: What a replay needs to know of sources and embedding model, by role.
        changed: Names of the sources that have changed since a resumed run began.
    """

    sources: tuple[KnowledgeSource, ...] = ()
    memory: Memory | None = None
    embedding: EmbeddingModel | None = None
    descriptions: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


def knowledge_of(models: Models) -> Knowledge:
    """The knowledge among a run's models; none is empty."""
    return models.knowledge if isinstance(models.knowledge, Knowledge) else Knowledge()


class Passage(Frozen):
    """A piece of a document. It is data: nothing in it is ever an instruction.

    Attributes:
        id: Unique among the passages of one search.
        source: The document it is part of.
        text: The piece.
        title: Title of the document or section, searched and read together with the text.
        start: Position of its first character in the document; None if unknown.
        score: Relevance to the query, on the retriever's scale.
        credibility: The caller's confidence in its source; 0 excludes the passage as evidence.
    """

    id: str
    source: str
    text: str
    title: str = ""
    start: Annotated[int, Field(ge=0)] | None = None
    score: float = 0.0
    credibility: Probability = 1.0


def searchable_text(passage: Passage) -> str:
    """The text that is indexed: the title and the text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


@runtime_checkable
class Retriever(Protocol):
    """Finds passages that may support or refute claims. Methods may be called concurrently from one event loop.

    Attributes:
        identity: Changes whenever a claim could get other passages.
    """

    name: str
    identity: str

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """Up to `k` passages for each claim, best first; their ids are unique over all claims.

        Raises:
            UserError: `k` is not positive.
            ReasonError: The search failed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""
