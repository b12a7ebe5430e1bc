"""`Retriever`: the protocol of passage search, and `HybridRetriever`, which combines BM25, embeddings and titles.

Rankings by BM25, by the cosine of embeddings, and by titles that the claim names become one by reciprocal-rank fusion.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import JsonValue, ValidationError

from ...core.clock import monotonic
from ...core.errors import StoreError, UserError
from ...core.events import EvidenceRetrieved
from ...core.run import Run
from ...core.store.records import StoredCall, call_key
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.metered.calls import RecordedCalls
from ...serving.metered.replay import ReplayStub
from ..knowledge import Passage, Retriever, searchable_text
from .bm25 import BM25Index
from .deduplication import PassageDeduplicator
from .embedding_cache import EmbeddingCache, embed_documents
from .passages import replace_surrogates
from .rank_fusion import fuse_rankings
from .vector_index import VectorIndex
from .words import STOP_WORDS, split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 2
"""Part of the identity; increased whenever the same passages would be ranked differently."""


NUM_CANDIDATES = 50
"""Passages taken from each ranking."""


class PassageStore(Protocol):
    """Passages by position."""

    def get(self, positions: Sequence[int]) -> dict[int, Passage]:
        """The passages at the positions, as far as they exist."""


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """Data of a `HybridRetriever`; `vectors` is None without embeddings, `digest` is a hash of everything."""

    passages: PassageStore
    keywords: BM25Index
    vectors: VectorIndex | None
    digest: str


class HybridRetriever:
    """Hybrid passage search by BM25 and embeddings; create it with `HybridRetriever.build` or `load_index`.

    Args:
        name: Its name.
        index: Data to search.
        embedding: Embeds claims; None searches by BM25 only.
        owned: Whether the embedding model is closed with the retriever.

    Attributes:
        name: Its name.
        identity: Hash of passages and models.
        degraded: Reduced functionality and its reason; empty if there is none.
    """

    def __init__(
        self,
        name: str,
        index: SearchIndex,
        embedding: EmbeddingModel | None = None,
        *,
        owned: bool = False,
    ) -> None:
        self.name = name
        self._index, self.embedding, self._owned = index, embedding, owned
        uses_vectors = embedding is not None and index.vectors is not None
        reason = "no embedding model was given" if index.vectors is not None else "the passages have no vectors"
        self.degraded: tuple[str, ...] = () if uses_vectors else (f"passages are searched by words only: {reason}",)
        content = [
            VERSION,
            index.digest,
            embedding.identity if uses_vectors and embedding is not None else None,
        ]
        self.identity = f"hybrid:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"

    @classmethod
    async def build(
        cls,
        passages: Sequence[Passage],
        embedding: EmbeddingModel | None = None,
        *,
        name: str = "passages",
        owned: bool = False,
        cache: EmbeddingCache | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Index passages in memory.

        Args:
            passages: Passages with unique ids.
            embedding: Embeds passages and claims; None searches by BM25 only.
            name: See the class.
            owned: See the class.
            cache: Cache of the vectors of passages.
            progress: Called with the numbers of passages embedded and in total.

        Raises:
            UserError: Two passages have the same id, or a library is not installed.
            BackendError: The embedding model failed.
        """
        passages = list(passages)
        if len({passage.id for passage in passages}) < len(passages):
            raise UserError("two passages have the same id")
        texts = await asyncio.to_thread(lambda: [searchable_text(passage) for passage in passages])
        keywords = await asyncio.to_thread(lambda: BM25Index.of(map(split_words, texts)))
        vectors = None
        if embedding is not None and passages:
            vectors = VectorIndex.exact(await embed_documents(texts, embedding, cache=cache, progress=progress))
        index = SearchIndex(_PassageList(passages), keywords, vectors, _digest(passages))
        return cls(name, index, embedding, owned=owned)

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever`. A score is the fused one: up to 1/61 for each ranking.

        Raises:
            UserError: `k` is not positive.
            BackendError: The embedding model failed.
            DataError: A saved index cannot be read.
        """
        return await self.search(claims, k, self.embedding)

    async def search(self, claims: Sequence[str], k: int, embedding: EmbeddingModel | None) -> list[list[Passage]]:
        """`retrieve` with another instance of the embedding model, such as a metered one."""
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        clean_claims = [replace_surrogates(claim) for claim in claims]
        distinct = [claim for claim in dict.fromkeys(clean_claims) if claim.strip()]
        if not distinct:
            return [[] for _ in claims]
        vectors = None
        if embedding is not None and self._index.vectors is not None:
            vectors = await embedding.embed(distinct, kind="query")
        ranked = await asyncio.to_thread(self._rank, distinct, vectors, max(k, NUM_CANDIDATES))
        results = await asyncio.to_thread(lambda: [_without_repetitions(passages, k) for passages in ranked])
        by_claim = dict(zip(distinct, results, strict=True))
        return [list(by_claim.get(claim, [])) for claim in clean_claims]

    async def aclose(self) -> None:
        """Close the embedding model if the retriever owns it; idempotent."""
        if self._owned and self.embedding is not None:
            await self.embedding.aclose()

    def _rank(self, claims: list[str], vectors: NDArray[np.float32] | None, k: int) -> list[list[Passage]]:
        """Candidates of each claim with their fused scores."""
        index = self._index
        rankings = [[[position for position, _ in index.keywords.search(claim, k)]] for claim in claims]
        if vectors is not None and index.vectors is not None:
            for lists, nearest in zip(rankings, index.vectors.search(vectors, k), strict=True):
                lists.append(nearest)
        # one read for all claims; passages of an index that is being changed may have been deleted
        passages = index.passages.get(sorted({position for lists in rankings for one in lists for position in one}))
        ranked: list[list[Passage]] = []
        for claim, lists in zip(claims, rankings, strict=True):
            fused = fuse_rankings(lists)
            title_matches = _by_title(claim, [position for position, _ in fused], passages)
            fused = fuse_rankings([*lists, title_matches]) if title_matches else fused
            ranked.append([passages[p].model_copy(update={"score": s}) for p, s in fused if p in passages])
        return ranked


class CombinedRetriever:
    """Several retrievers as one; the best passages of all by their fused scores, which are comparable.

    Ids that two retrievers share are prefixed with the retriever's name. The retrievers are closed with this object.
    """

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)
        self.name = ", ".join(r.name for r in retrievers)
        digest = hashlib.sha256("\n".join(r.identity for r in retrievers).encode()).hexdigest()
        self.identity = f"combined:{digest}"
        self.degraded = tuple(
            f"{r.name}: {reason}"
            for r in retrievers
            for reason in getattr(r, "degraded", ())
            if isinstance(reason, str)
        )

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(retriever.retrieve(claims, k)) for retriever in self._retrievers]
        results: list[list[Passage]] = [[] for _ in claims]
        owner_by_id: dict[str, int] = {}
        for number, task in enumerate(tasks):
            for passages, retrieved in zip(results, task.result(), strict=True):
                passages.extend(self._with_unique_id(passage, number, owner_by_id) for passage in retrieved)
        return [sorted(passages, key=lambda p: -p.score)[:k] for passages in results]

    async def aclose(self) -> None:
        """Close all of them; idempotent."""
        for retriever in self._retrievers:
            await retriever.aclose()

    def _with_unique_id(self, passage: Passage, number: int, owner_by_id: dict[str, int]) -> Passage:
        if owner_by_id.setdefault(passage.id, number) == number:
            return passage
        return passage.model_copy(update={"id": f"{self._retrievers[number].name}:{passage.id}"})


class _PassageList:
    def __init__(self, passages: list[Passage]) -> None:
        self._passages = passages

    def get(self, positions: Sequence[int]) -> dict[int, Passage]:
        return {position: self._passages[position] for position in positions}


def _without_repetitions(passages: list[Passage], k: int) -> list[Passage]:
    deduplicator = PassageDeduplicator()
    kept: list[Passage] = []
    for passage in passages:
        if len(kept) == k:
            break
        if not deduplicator.is_repetition(passage):
            kept.append(passage)
    return kept


def _digest(passages: list[Passage]) -> str:
    hashed = hashlib.sha256()
    for passage in passages:
        encoded = passage.model_dump_json().encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.hexdigest()


# -- the retriever of a run


class MeteredRetriever:
    """A retriever of one run; it is a `Retriever` itself.

    Searching costs neither tokens nor passes, so nothing is reserved or charged. The passages are stored by claim, and
    answer a resumed or replayed run. The retriever is not closed by this object.
    """

    def __init__(self, retriever: Retriever, run: Run) -> None:
        self._retriever, self._run = retriever, run
        self.name, self.identity = retriever.name, retriever.identity
        self._calls = RecordedCalls(run, "retriever", self.name, self.identity)

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`; claims with stored passages are not searched again."""
        started = monotonic()
        distinct = list(dict.fromkeys(claims))
        requests: dict[str, dict[str, JsonValue]] = {c: {"retrieval": {"claim": c, "k": k}} for c in distinct}
        keys = {c: call_key(self.identity, requests[c], None, 0) for c in distinct}
        stored = await self._run.lookup_calls(list(keys.values()))
        by_claim = {c: _stored_passages(stored[key]) for c, key in keys.items() if key in stored}
        missing = [c for c in distinct if c not in by_claim]
        if missing:
            by_claim.update(zip(missing, await self._retriever.retrieve(missing, k), strict=True))
            records = [
                self._calls.record(keys[c], requests[c], {"passages": [p.model_dump(mode="json") for p in by_claim[c]]})
                for c in missing
            ]
            await self._run.save_calls(records)
        self._run.emit(
            EvidenceRetrieved(
                retriever=self.name,
                claims=len(distinct),
                passages=sum(map(len, by_claim.values())),
                replayed=len(distinct) - len(missing),
                seconds=monotonic() - started,
            )
        )
        return [list(by_claim[c]) for c in claims]

    async def aclose(self) -> None:
        """Do nothing: the retriever is closed by its owner."""


class RecordedRetriever(ReplayStub):
    """Replaces a retriever in a replay; `degraded` is what the recorded one reported."""

    def __init__(self, name: str, identity: str, degraded: tuple[str, ...] = ()) -> None:
        super().__init__(name, identity)
        self.degraded = degraded

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """Raise `not_recorded`."""
        raise self.not_recorded(f"the passages of {claims[0][:60]!r}")


def _stored_passages(call: StoredCall) -> list[Passage]:
    stored = call.response.get("passages")
    try:
        return [Passage.model_validate(passage) for passage in stored] if isinstance(stored, list) else []
    except ValidationError as e:
        raise StoreError(
            f"the store has {str(call.response)[:80]!r} as passages", hint="another version of reason wrote it"
        ) from e


# -- titles that a claim names

_BRACKET = re.compile(r"\s*\([^()]{0,200}\)\s*$")
_MAX_TITLE_WORDS = 20
_MAX_CLAIM_WORDS = 400


class ClaimWords:
    """The word sequences of a claim; of a very long claim only the beginning."""

    def __init__(self, claim: str) -> None:
        self._words = split_words(claim[: 20 * _MAX_CLAIM_WORDS])[:_MAX_CLAIM_WORDS]
        self._sequences: dict[int, set[tuple[str, ...]]] = {}

    def __contains__(self, name: tuple[str, ...]) -> bool:
        size = len(name)
        if size not in self._sequences:
            starts = range(len(self._words) - size + 1)
            self._sequences[size] = {tuple(self._words[i : i + size]) for i in starts}
        return name in self._sequences[size]


def title_match_length(title: str, claim: ClaimWords) -> int:
    """Number of words of a title that occur as a sequence in a claim; 0 unless the complete title does.

    A bracket at the end of a title ("Mercury (planet)") distinguishes namesakes and need not occur. Of a path of
    headings ("Animals > Mammals") the longest match counts.
    """
    return max((len(name) for name in _title_names(title) if name in claim), default=0)


def _by_title(claim: str, positions: list[int], passages: dict[int, Passage]) -> list[int]:
    """Positions of the passages whose title the claim names, the longest title first, then in the input order."""
    words = ClaimWords(claim)
    lengths = {p: title_match_length(passages[p].title, words) for p in positions if p in passages}
    return sorted((p for p in positions if lengths.get(p)), key=lambda p: -lengths[p])


@lru_cache(maxsize=4096)
def _title_names(title: str) -> tuple[tuple[str, ...], ...]:
    names = []
    for part in title[:2000].split(" > "):
        name = tuple(split_words(_BRACKET.sub("", part) or part))
        if 0 < len(name) <= _MAX_TITLE_WORDS and not STOP_WORDS.issuperset(name):
            names.append(name)
    return tuple(names)
