"""Admission of items to associative memory: relevance, novelty, brevity.

The three criteria are CoAT's (Pan, Deng, Huang, "CoAT: Chain-of-Associated-Thoughts", 2025, arXiv:2502.02390); the
measures and thresholds are ours:

    brevity     at most `MAX_ITEM_TOKENS`; longer items are dropped, not cut: half a fact may be false
    relevance   cosine with question and step of at least `MIN_RELEVANCE`; without embeddings, a common content word
    novelty     no duplicate of a text visible to the thought, on any of three levels: hash, word 3-grams, cosine
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import JsonValue

from ...core.concurrency import paced
from ...core.run import Run
from ...core.store.records import call_key
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.metered.calls import RecordedCalls
from ..knowledge import SELF_SOURCE, MemoryItem
from ..retrieval.deduplication import TextFingerprint, is_duplicate
from ..retrieval.words import content_terms

DropReason = Literal["empty", "too_long", "irrelevant", "duplicate"]

MAX_ITEM_TOKENS: Final = 96
MIN_COSINE: Final = 0.92
"""Cosine from which two texts are duplicates, on the third level."""
MIN_RELEVANCE: Final = 0.2
"""Minimum cosine of an item with question and step."""
MAX_COMPARED: Final = 128
"""Proposals that are compared in one batch, each with all texts that any of their thoughts sees."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An item proposed by a model or a knowledge source.

    Attributes:
        text: The knowledge.
        source_id: Its source; empty for the model's own.
        source_kind: "self", or the kind of the knowledge source.
        query: The query to the knowledge source.
        score: Relevance in [0, 1]; None measures it: the cosine with question and step or, without embeddings, the
            share of the item's content words that occur in them.
    """

    text: str
    source_id: str = ""
    source_kind: str = SELF_SOURCE
    query: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class NodeProposals:
    """The proposals for a thought.

    Attributes:
        node_id: The thought.
        about: Question and step, to which an item must be relevant; if it has no content words, every item is relevant.
        visible: All texts that the thought sees: the question, the steps of its path, the items of its path.
        proposals: The proposals, in order of preference.
    """

    node_id: int
    about: str
    visible: tuple[str, ...]
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """The result for a thought; `items` and all of `dropped` together are its proposals.

    Attributes:
        items: The admitted items, in order.
        dropped: Number of dropped proposals by reason.
    """

    items: tuple[MemoryItem, ...]
    dropped: Mapping[DropReason, int] = field(default_factory=dict)


class Similarity:
    """Cosine similarity of texts by an embedding model, which is not closed by this object.

    Args:
        embedding: The model, metered; or its stand-in in a replay.
        run: The run whose store keeps the cosines, so that a replay needs no embedding model; None keeps none.
    """

    def __init__(self, embedding: EmbeddingModel, run: Run | None = None) -> None:
        self._embedding, self._run = embedding, run

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """Cosines `[left, right]` in [-1, 1], all texts in one batch.

        Raises:
            ReasonError: The embedding failed, or a replay needs what was not recorded.
            StoreError: The run store failed.
        """
        if not left or not right:
            return [[] for _ in left]
        run, embedding = self._run, self._embedding
        request: dict[str, JsonValue] = {"cosines": list(left), "with": list(right)}
        key = call_key(embedding.identity, request, None, 0)
        stored = {} if run is None else await run.lookup_calls([key])
        if key in stored:
            return stored[key].response["cosines"]  # type: ignore[return-value]
        texts = list(dict.fromkeys((*left, *right)))
        rows = {text: row for row, text in enumerate(texts)}
        vectors = await embedding.embed(texts)
        products = vectors[[rows[t] for t in left]] @ vectors[[rows[t] for t in right]].T
        # rounded as stored, so that a replay compares the same numbers
        cosines = [[round(value, 6) for value in row] for row in products.clip(-1.0, 1.0).tolist()]
        if run is not None and run.recording:
            calls = RecordedCalls(run, "embedding", embedding.name, embedding.identity)
            response: dict[str, JsonValue] = {"cosines": [list(row) for row in cosines]}
            await run.save_calls([calls.record(key, request, response)])
        return cosines


class AdmissionFilter:
    """Applies the rules.

    Args:
        count_tokens: Length of a text in tokens of the model that will read it.
        similarity: Compares meanings; without it there is no third level, and relevance is a common content word.
    """

    def __init__(self, count_tokens: Callable[[str], int], similarity: Similarity | None = None) -> None:
        self._count_tokens, self._similarity = count_tokens, similarity

    async def admit(self, nodes: Sequence[NodeProposals]) -> list[AdmissionResult]:
        """Filter the proposals for some thoughts, with one batch of embeddings for some `MAX_COMPARED` of them.

        Items of one thought are compared with each other too, in order. Thoughts do not see each other's new items, so
        the result for each does not depend on the others.

        Raises:
            ReasonError: Meanings could not be compared.
        """
        results: list[AdmissionResult] = []
        batch: list[_NodeFilter] = []
        async for i, node in paced(enumerate(nodes, 1)):
            batch.append(_NodeFilter(node, self._count_tokens))
            if i == len(nodes) or sum(len(one.candidates) for one in batch) >= MAX_COMPARED:
                results += await self._results(batch)
                batch = []
        return results

    async def _results(self, filters: Sequence[_NodeFilter]) -> list[AdmissionResult]:
        left = list(dict.fromkeys(c.text for one in filters for c in one.candidates))
        if self._similarity is None or not left:
            return [one.result(None) for one in filters]
        visible = (t for one in filters if one.candidates for t in (one.node.about, *one.node.visible))
        right = list(dict.fromkeys((*(t for t in visible if t.strip()), *left)))
        table = await self._similarity.cosines(left, right)
        rows = {text: i for i, text in enumerate(left)}
        columns = {text: i for i, text in enumerate(right)}
        return [one.result(lambda item, text: table[rows[item]][columns[text]]) for one in filters]


Cosine = Callable[[str, str], float]
"""Cosine of an item with a text."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A proposal that is short and not a duplicate by its word 3-grams."""

    proposal: Proposal
    text: str
    tokens: int
    fingerprint: TextFingerprint


class _NodeFilter:
    """Filters the proposals for one thought."""

    def __init__(self, node: NodeProposals, count_tokens: Callable[[str], int]) -> None:
        self.node = node
        self._dropped: Counter[DropReason] = Counter()
        self.candidates: list[_Candidate] = []
        visible = [TextFingerprint.of(text) for text in node.visible]
        for proposal in node.proposals:
            text = _clean(proposal.text)
            fingerprint = TextFingerprint.of(text)
            if not fingerprint.form:
                self._dropped["empty"] += 1
            elif (tokens := count_tokens(text)) > MAX_ITEM_TOKENS:
                self._dropped["too_long"] += 1
            elif is_duplicate(fingerprint, visible):
                self._dropped["duplicate"] += 1
            else:
                self.candidates.append(_Candidate(proposal, text, tokens, fingerprint))

    def result(self, cosine: Cosine | None) -> AdmissionResult:
        """The candidates that are relevant and new; `cosine` is None without embeddings."""
        items: list[MemoryItem] = []
        admitted: list[TextFingerprint] = []
        for candidate in self.candidates:
            relevance = self._relevance(candidate, cosine)
            if relevance is None:
                self._dropped["irrelevant"] += 1
            elif is_duplicate(candidate.fingerprint, admitted) or (
                cosine is not None and self._is_paraphrase(candidate, items, cosine)
            ):
                self._dropped["duplicate"] += 1
            else:
                items.append(self._item(candidate, relevance))
                admitted.append(candidate.fingerprint)
        return AdmissionResult(tuple(items), dict(self._dropped))

    def _relevance(self, candidate: _Candidate, cosine: Cosine | None) -> float | None:
        """Relevance to question and step; None if the candidate is irrelevant."""
        about = self.node.about
        if cosine is not None:
            if not about.strip():
                return 0.0
            value = cosine(candidate.text, about)
            return value if value >= MIN_RELEVANCE else None
        about_terms, terms = content_terms(about), content_terms(candidate.text)
        if not about_terms:
            return 0.0
        return len(about_terms & terms) / len(terms) if about_terms & terms else None

    def _is_paraphrase(self, candidate: _Candidate, items: Sequence[MemoryItem], cosine: Cosine) -> bool:
        texts = (*(t for t in self.node.visible if t.strip()), *(item.text for item in items))
        return any(cosine(candidate.text, text) >= MIN_COSINE for text in texts)

    def _item(self, candidate: _Candidate, relevance: float) -> MemoryItem:
        proposal = candidate.proposal
        score = proposal.score if proposal.score is not None and math.isfinite(proposal.score) else relevance
        return MemoryItem(
            text=candidate.text,
            source_id=proposal.source_id,
            source_kind=proposal.source_kind,
            query=proposal.query,
            node_id=self.node.node_id,
            hash=candidate.fingerprint.hash,
            score=min(1.0, max(0.0, score)),
            tokens=candidate.tokens,
        )


def _clean(text: str) -> str:
    """A text without surrounding whitespace, NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").strip()
