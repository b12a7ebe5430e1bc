"""`Retriever`: the protocol of what finds passages for claims, and `HybridRetriever`, by words and by meaning.

Rankings by BM25 (`reasoning/retrieval/bm25.py`) and by the cosine of embeddings, and a third of those passages whose title
the claim names, become one by reciprocal-rank fusion (`reasoning/retrieval/rank_fusion.py`).

Which passages a claim names: those whose title stands in it, word for word.

`CombinedRetriever`: several places to look as one.

`MeteredRetriever`: what was found for a claim is kept in the run store, so that the run can be shown again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, runtime_checkable

from pydantic import Field, JsonValue, ValidationError

from ...core.errors import InvalidResponse, StoreError, UserError
from ...core.events import EvidenceRetrieved
from ...core.messages import Frozen
from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from ...serving.encoders.protocols import CrossEncoder, EmbeddingModel
from .bm25 import BM25Index
from .deduplication import PassageDeduplicator
from .passages import Passage, replace_surrogates
from .rank_fusion import fuse_rankings
from .words import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_BRACKET = re.compile(r"\s*\([^()]{0,200}\)\s*$")
_MOST_WORDS = 20
_MOST_CLAIM_WORDS = 400
# fmt: off
_NO_NAMES = frozenset([
    "a", "an", "the", "it", "he", "she", "they", "we", "i", "this", "that", "in", "on", "at", "of", "to", "is", "was",
    "and", "or", "not", "no", "one", "all", "you", "who", "what", "which", "there", "other",
])
# fmt: on


def title_match_length(title: str, claim: ClaimWords) -> int:
    """How many words of a claim are the title's: all words of the title, side by side; 0 if they are not in it.

    What stands in brackets at the title's end ("Mercury (planet)") tells things of one name apart and need not be said.
    Of headings ("Animals > Mammals") the longest that is named counts.
    """
    return max((len(name) for name in _names_of(title) if name in claim), default=0)


class ClaimWords:
    """The runs of words of a claim.

    Args:
        claim: The claim; of a very long one the beginning counts.
    """

    def __init__(self, claim: str) -> None:
        words = split_words(claim[: 20 * _MOST_CLAIM_WORDS])[:_MOST_CLAIM_WORDS]
        self._words = words
        self._runs: dict[int, set[tuple[str, ...]]] = {}

    def __contains__(self, name: tuple[str, ...]) -> bool:
        size = len(name)
        if size not in self._runs:
            self._runs[size] = {tuple(self._words[i : i + size]) for i in range(len(self._words) - size + 1)}
        return name in self._runs[size]


@lru_cache(maxsize=4096)
def _names_of(title: str) -> tuple[tuple[str, ...], ...]:
    names = []
    for part in title[:2000].split(" > "):
        name = tuple(split_words(_BRACKET.sub("", part) or part))
        if 0 < len(name) <= _MOST_WORDS and not _NO_NAMES.issuperset(name):
            names.append(name)
    return tuple(names)


VERSION = 1
"""Part of the identity; another one whenever the same passages would be ranked otherwise."""

_BATCH = 256

Reranker = Callable[[Sequence[tuple[str, str]]], Awaitable[Sequence[float]]]
"""How well passages answer claims: gets (claim, passage with its title), gives a number for each; more is better."""


@runtime_checkable
class Retriever(Protocol):
    """What finds passages that may speak for or against claims.

    All methods may be called concurrently from one event loop.

    Attributes:
        name: What it is called.
        identity: Changes whenever a claim could get other passages.
    """

    name: str
    identity: str

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """The passages for each claim, the best first, at most `k`; their ids are unique over all claims.

        Raises:
            UserError: `k` is not positive.
            ReasonError: They could not be searched.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""


class RetrieverOptions(Frozen):
    """How passages are ranked.

    Attributes:
        candidates: Passages that each ranking puts forward.
        reranked: Passages that a scorer reads for a claim.
        titles: Whether passages whose title the claim names are a ranking of their own.
    """

    candidates: Annotated[int, Field(ge=1)] = 50
    reranked: Annotated[int, Field(ge=1)] = 20
    titles: bool = True


class KeywordIndex(Protocol):
    """Places of texts by the words they share with a query."""

    def rank(self, query: str, most: int) -> list[tuple[int, float]]:
        """(place, score), the best first."""


class VectorIndex(Protocol):
    """Places of vectors by their product with queries."""

    def nearest(self, queries: NDArray[np.float32], most: int) -> list[list[int]]:
        """For each row of `[queries, dimension]` the places of the nearest, the best first."""


class PassageStore(Protocol):
    """Passages by place."""

    def at(self, places: Sequence[int]) -> dict[int, Passage]:
        """Those of the places that there are."""


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """What is searched.

    Attributes:
        passages: The passages.
        words: Their words, with the titles'.
        vectors: Their vectors; None if there are none.
        digest: Hash of all of it.
    """

    passages: PassageStore
    words: KeywordIndex
    vectors: VectorIndex | None
    digest: str


class HybridRetriever:
    """Passages by words and by meaning; make it with `HybridRetriever.of`, or with `load_index`.

    Args:
        name: What it is called.
        searched: What is searched.
        embedding: Embeds claims; None searches by words alone.
        options: How passages are ranked.
        scorer: Reads the best passages beside the claim and decides their order.
        scorer_identity: Of the scorer: changes whenever it could score otherwise.
        owned: Whether the embedding model is closed with it.

    Attributes:
        name: What it is called.
        identity: Hash of passages, options and models.
        degraded: What it does less well than it could, and why; empty if nothing.
    """

    def __init__(
        self,
        name: str,
        searched: SearchIndex,
        embedding: EmbeddingModel | None = None,
        *,
        options: RetrieverOptions | None = None,
        scorer: Reranker | None = None,
        scorer_identity: str = "",
        owned: bool = False,
    ) -> None:
        self.name = name
        self._searched, self._embedding, self._owned = searched, embedding, owned
        self._options, self._scorer, self._scorer_identity = options or RetrieverOptions(), scorer, scorer_identity
        by_meaning = embedding is not None and searched.vectors is not None
        why = "no embedding model was given" if searched.vectors is not None else "the passages have no vectors"
        self.degraded: tuple[str, ...] = () if by_meaning else (f"passages are found by their words alone: {why}",)
        about = [
            VERSION,
            searched.digest,
            self._options.model_dump(mode="json"),
            embedding.identity if by_meaning and embedding is not None else None,
            None if scorer is None else scorer_identity,
        ]
        self.identity = f"hybrid:{hashlib.sha256(json.dumps(about).encode()).hexdigest()}"

    @classmethod
    async def of(
        cls,
        passages: Sequence[Passage],
        embedding: EmbeddingModel | None = None,
        *,
        name: str = "passages",
        options: RetrieverOptions | None = None,
        scorer: Reranker | None = None,
        scorer_identity: str = "",
        told: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Index passages in memory.

        Args:
            passages: The passages; their ids are unique.
            embedding: Embeds passages and claims; closed by whoever opened it. None searches by words alone.
            name: What it is called.
            options: How passages are ranked.
            scorer: See the class.
            scorer_identity: See the class.
            told: Hears how many passages are embedded, and how many there are.

        Raises:
            UserError: Two passages have the same id, or a library is not installed.
            BackendError: The embedding model failed.
        """
        held = list(passages)
        if len({passage.id for passage in held}) < len(held):
            raise UserError("two passages have the same id")
        words = await asyncio.to_thread(BM25Index, [searchable_text(passage) for passage in held])
        vectors = None if embedding is None or not held else await _embedded(held, embedding, told)
        searched = SearchIndex(_InMemory(held), words, vectors, _digest(held))
        return cls(name, searched, embedding, options=options, scorer=scorer, scorer_identity=scorer_identity)

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever`. Passages that repeat a better one word for word are left out.

        A passage's score is the scorer's, or else the fused one: at most 1/61 for each ranking.

        Raises:
            UserError: `k` is not positive.
            BackendError: Embedding or scorer failed.
            DataError: A saved index cannot be read.
        """
        if k < 1:
            raise UserError(f"k = {k}: at least 1 passage must be wanted")
        sounding = [replace_surrogates(claim) for claim in claims]
        asked = [claim for claim in dict.fromkeys(sounding) if claim.strip()]
        if not asked:
            return [[] for _ in claims]
        vectors = None
        if self._embedding is not None and self._searched.vectors is not None:
            vectors = await self._embedding.embed(asked, kind="query")
        most = max(k, self._options.candidates)
        ranked = await asyncio.to_thread(self._ranked, asked, vectors, most)
        if self._scorer is not None:
            ranked = await self._rescored(asked, ranked, self._scorer, max(k, self._options.reranked))
        found = await asyncio.to_thread(lambda: [_distinct(passages, k) for passages in ranked])
        by_claim = dict(zip(asked, found, strict=True))
        return [list(by_claim.get(claim, [])) for claim in sounding]

    async def aclose(self) -> None:
        """Close the embedding model if it is the retriever's own; idempotent."""
        if self._owned and self._embedding is not None:
            await self._embedding.aclose()

    def _ranked(self, claims: list[str], vectors: NDArray[np.float32] | None, most: int) -> list[list[Passage]]:
        """Candidates of each claim with their fused scores."""
        by_words = [[place for place, _ in self._searched.words.rank(claim, most)] for claim in claims]
        rankings = [[places] for places in by_words]
        if vectors is not None and self._searched.vectors is not None:
            for lists, near in zip(rankings, self._searched.vectors.nearest(vectors, most), strict=True):
                lists.append(near)
        # one look for all claims; of an index that is being changed some may be gone
        passages = self._searched.passages.at(sorted({place for lists in rankings for one in lists for place in one}))
        made: list[list[Passage]] = []
        for claim, lists in zip(claims, rankings, strict=True):
            fused = fuse_rankings(lists)
            if self._options.titles:
                named = _named(claim, [place for place, _ in fused], passages)
                fused = fuse_rankings([*lists, named]) if named else fused
            made.append([passages[p].model_copy(update={"score": s}) for p, s in fused if p in passages])
        return made

    async def _rescored(
        self, claims: list[str], ranked: list[list[Passage]], scorer: Reranker, most: int
    ) -> list[list[Passage]]:
        some = [passages[:most] for passages in ranked]
        pairs = [(claim, searchable_text(p)) for claim, passages in zip(claims, some, strict=True) for p in passages]
        scores = [float(score) for score in await scorer(pairs)] if pairs else []
        if len(scores) != len(pairs) or not all(math.isfinite(score) for score in scores):
            raise InvalidResponse(
                f"the scorer of {self.name} gave {len(scores)} scores for {len(pairs)} pairs, or no numbers"
            )
        left = iter(scores)
        scored = [[p.model_copy(update={"score": next(left)}) for p in passages] for passages in some]
        return [sorted(passages, key=lambda p: -p.score) for passages in scored]


def searchable_text(passage: Passage) -> str:
    """What of a passage is searched: its title and its text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def cross_encoder_reranker(model: CrossEncoder) -> Reranker:
    """A reranking cross-encoder as a scorer; `model.identity` is its identity.

    Raises:
        UserError: The model tells classes, and does not rank.
    """
    if len(model.labels) != 1:
        raise UserError(f"{model.name} tells {', '.join(model.labels)}, and does not rank")

    async def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(row[0]) for row in await model.logits(pairs)]

    return score


def _named(claim: str, places: list[int], passages: dict[int, Passage]) -> list[int]:
    """The passages whose title the claim names, the longest name first, then in the order given."""
    words = ClaimWords(claim)
    lengths = {place: title_match_length(passages[place].title, words) for place in places if place in passages}
    return sorted((place for place in places if lengths.get(place)), key=lambda place: -lengths[place])


def _distinct(passages: list[Passage], k: int) -> list[Passage]:
    seen = PassageDeduplicator()
    taken: list[Passage] = []
    for passage in passages:
        if len(taken) == k:
            break
        if not seen.repeats(passage):
            taken.append(passage)
    return taken


class _InMemory:
    def __init__(self, passages: list[Passage]) -> None:
        self._passages = passages

    def at(self, places: Sequence[int]) -> dict[int, Passage]:
        return {place: self._passages[place] for place in places}


class _Flat:
    """Exact search by FAISS."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def nearest(self, queries: NDArray[np.float32], most: int) -> list[list[int]]:
        _, places = self._index.search(queries, min(most, self._index.ntotal))
        return [[int(place) for place in row if place >= 0] for row in places]


async def _embedded(
    passages: list[Passage], embedding: EmbeddingModel, told: Callable[[int, int], None] | None
) -> _Flat:
    from .vector_index import load_faiss

    index = load_faiss().IndexFlatIP(embedding.dimension)
    for start in range(0, len(passages), _BATCH):
        texts = [searchable_text(passage) for passage in passages[start : start + _BATCH]]
        index.add(await embedding.embed(texts, kind="document"))
        if told is not None:
            told(index.ntotal, len(passages))
    return _Flat(index)


def _digest(passages: list[Passage]) -> str:
    hashed = hashlib.sha256()
    for passage in passages:
        encoded = passage.model_dump_json().encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.hexdigest()


class CombinedRetriever:
    """The best of several retrievers together (see `Retriever`).

    Scores are fused ranks, which can be compared: what is first in two rankings of its own place comes before what is
    first in one. Ids that two places both use are told apart by the place's name.

    Args:
        retrievers: At least one; closed with this object.
    """

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)
        self.name = ", ".join(r.name for r in retrievers)
        digest = hashlib.sha256("\n".join(r.identity for r in retrievers).encode()).hexdigest()
        self.identity = f"several:{digest}"
        self.degraded = tuple(
            f"{r.name}: {why}" for r in retrievers for why in getattr(r, "degraded", ()) if isinstance(why, str)
        )

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(retriever.retrieve(claims, k)) for retriever in self._retrievers]
        found: list[list[Passage]] = [[] for _ in claims]
        taken: dict[str, int] = {}
        for number, task in enumerate(tasks):
            for mine, more in zip(found, task.result(), strict=True):
                mine.extend(self._named(passage, number, taken) for passage in more)
        return [sorted(passages, key=lambda p: -p.score)[:k] for passages in found]

    async def aclose(self) -> None:
        """Close all of them; idempotent."""
        for retriever in self._retrievers:
            await retriever.aclose()

    def _named(self, passage: Passage, number: int, taken: dict[str, int]) -> Passage:
        if taken.setdefault(passage.id, number) == number:
            return passage
        return passage.model_copy(update={"id": f"{self._retrievers[number].name}:{passage.id}"})


ROLE = "retriever"


class MeteredRetriever:
    """A retriever of one run; it is a `Retriever` itself.

    Searching is not charged: it costs neither tokens nor passes. What was found is stored by claim, and answers a
    resumed or replayed run.

    Args:
        retriever: What searches; it is not closed by this object.
        run: The run.
    """

    def __init__(self, retriever: Retriever, run: Run) -> None:
        self._retriever, self._run = retriever, run
        self.name, self.identity = retriever.name, retriever.identity

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`; claims that the store has an answer to are not looked up again."""
        began = time.monotonic()
        wanted = list(dict.fromkeys(claims))
        asked: dict[str, dict[str, JsonValue]] = {c: {"retrieval": {"claim": c, "k": k}} for c in wanted}
        keys = {c: call_key(self.identity, asked[c], None, 0) for c in wanted}
        stored = await self._run.stored(list(keys.values()))
        found = {c: _passages(stored[key]) for c, key in keys.items() if key in stored}
        missing = [c for c in wanted if c not in found]
        if missing:
            found.update(zip(missing, await self._retriever.retrieve(missing, k), strict=True))
            calls = [
                StoredCall(
                    key=keys[c],
                    role=ROLE,
                    model=self.name,
                    request=asked[c],
                    reply={"passages": [p.model_dump(mode="json") for p in found[c]]},
                )
                for c in missing
            ]
            await self._run.store.add_calls(self._run.id, calls)
        self._run.emit(
            EvidenceRetrieved(
                retriever=self.name,
                claims=len(wanted),
                passages=sum(map(len, found.values())),
                replayed=len(wanted) - len(missing),
                seconds=time.monotonic() - began,
            )
        )
        return [list(found[c]) for c in claims]

    async def aclose(self) -> None:
        """Do nothing: the retriever belongs to whoever opened it."""


class RecordedRetriever:
    """Stands for a retriever when a stored run is shown again; the store answers before anything comes here.

    Args:
        name: The name of the recorded run's.
        identity: Its identity.
        degraded: What it did less well than it could.
    """

    def __init__(self, name: str, identity: str, degraded: tuple[str, ...] = ()) -> None:
        self.name, self.identity, self.degraded = name, identity, degraded

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """Refuse.

        Raises:
            StoreError: Always: the store has nothing for a claim.
        """
        raise StoreError(
            f"the store does not hold what was found for {claims[0][:60]!r}",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )

    async def aclose(self) -> None:
        """Do nothing."""


def _passages(call: StoredCall) -> list[Passage]:
    """What was stored.

    Raises:
        StoreError: It is no list of passages.
    """
    kept = call.reply.get("passages")
    try:
        return [Passage.model_validate(one) for one in kept] if isinstance(kept, list) else []
    except ValidationError as e:
        raise StoreError(
            f"the store has {str(call.reply)[:80]!r} as passages", hint="another version of reason made it"
        ) from e
