"""Admission of items to associative memory: relevance, novelty, brevity.

The three criteria are CoAT's (Pan, Deng, Huang, "CoAT: Chain-of-Associated-Thoughts", 2025, arXiv:2502.02390); the
measures and thresholds are ours:

    brevity     at most `max_tokens`; longer items are dropped, not cut: half a fact may be false
    relevance   cosine with question and step of at least `relevance`; without embeddings, a common content word
    novelty     no duplicate of a text visible to the thought, on any of three levels: hash, word 3-grams, cosine
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from ...core.concurrency import paced
from ...core.messages import Frozen
from ..knowledge import SELF_SOURCE, MemoryItem
from ..retrieval.deduplication import MIN_CONTAINMENT, MIN_JACCARD, DuplicateLevel, TextFingerprint, duplicate_level
from ..retrieval.words import content_terms
from ..strategy import MAX_TOKENS
from .similarity import Similarity

DropReason = Literal["empty", "too_long", "irrelevant", "duplicate"]


class AdmissionRules(Frozen):
    """The thresholds.

    Attributes:
        max_tokens: Maximum tokens of an item.
        jaccard: Jaccard index of word 3-grams from which two texts are duplicates.
        containment: Share of an item's 3-grams in a text from which the item is a duplicate.
        cosine: Cosine from which two texts are duplicates.
        relevance: Minimum cosine of an item with question and step.
    """

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 96
    jaccard: Annotated[float, Field(gt=0, le=1)] = MIN_JACCARD
    containment: Annotated[float, Field(gt=0, le=1)] = MIN_CONTAINMENT
    cosine: Annotated[float, Field(gt=0, le=1)] = 0.92
    relevance: Annotated[float, Field(ge=-1, le=1)] = 0.2


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
        duplicates_by_level: Number of duplicates by level.
    """

    items: tuple[MemoryItem, ...]
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)


MAX_COMPARED = 128
"""Proposals that are compared in one batch, each with all texts that any of their thoughts sees."""


class AdmissionFilter:
    """Applies the rules.

    Args:
        rules: The thresholds.
        count_tokens: Length of a text in tokens of the model that will read it.
        similarity: Compares meanings; without it there is no third level, and relevance is a common content word.
    """

    def __init__(
        self, rules: AdmissionRules, count_tokens: Callable[[str], int], similarity: Similarity | None = None
    ) -> None:
        self.rules = rules
        self._count_tokens = count_tokens
        self._similarity = similarity

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
            batch.append(_NodeFilter(node, self.rules, self._count_tokens))
            if i == len(nodes) or sum(len(item_filter.candidates) for item_filter in batch) >= MAX_COMPARED:
                cosine = await self._compare(batch)
                results += [item_filter.result(cosine) for item_filter in batch]
                batch = []
        return results

    async def _compare(self, filters: Sequence[_NodeFilter]) -> Cosine | None:
        if self._similarity is None:
            return None
        left = list(dict.fromkeys(c.text for item_filter in filters for c in item_filter.candidates))
        visible = (
            t
            for item_filter in filters
            if item_filter.candidates
            for t in (item_filter.node.about, *item_filter.node.visible)
        )
        right = list(dict.fromkeys((*(t for t in visible if t.strip()), *left)))
        if not left:
            return None
        table = await self._similarity.cosines(left, right)
        rows = {text: i for i, text in enumerate(left)}
        columns = {text: i for i, text in enumerate(right)}
        return lambda item, text: table[rows[item]][columns[text]]


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

    def __init__(self, node: NodeProposals, rules: AdmissionRules, count_tokens: Callable[[str], int]) -> None:
        self.node, self._rules = node, rules
        self._dropped: Counter[DropReason] = Counter()
        self._levels: Counter[DuplicateLevel] = Counter()
        self.candidates: list[_Candidate] = []
        visible = [TextFingerprint.of(text) for text in node.visible]
        for proposal in node.proposals:
            text = _clean(proposal.text)
            fingerprint = TextFingerprint.of(text)
            if not fingerprint.form:
                self._dropped["empty"] += 1
            elif (tokens := count_tokens(text)) > rules.max_tokens:
                self._dropped["too_long"] += 1
            elif not self._is_duplicate(fingerprint, visible):
                self.candidates.append(_Candidate(proposal, text, tokens, fingerprint))

    def result(self, cosine: Cosine | None) -> AdmissionResult:
        """The candidates that are relevant and new; `cosine` is None without embeddings."""
        items: list[MemoryItem] = []
        admitted: list[TextFingerprint] = []
        for candidate in self.candidates:
            relevance = self._relevance(candidate, cosine)
            if relevance is None:
                self._dropped["irrelevant"] += 1
            elif self._is_duplicate(candidate.fingerprint, admitted):
                continue
            elif cosine is not None and self._is_paraphrase(candidate, items, cosine):
                self._count_duplicate(3)
            else:
                items.append(self._item(candidate, relevance))
                admitted.append(candidate.fingerprint)
        return AdmissionResult(tuple(items), dict(self._dropped), dict(self._levels))

    def _relevance(self, candidate: _Candidate, cosine: Cosine | None) -> float | None:
        """Relevance to question and step; None if the candidate is irrelevant."""
        about = self.node.about
        if cosine is not None:
            if not about.strip():
                return 0.0
            value = cosine(candidate.text, about)
            return value if value >= self._rules.relevance else None
        about_terms, terms = content_terms(about), content_terms(candidate.text)
        if not about_terms:
            return 0.0
        return len(about_terms & terms) / len(terms) if about_terms & terms else None

    def _is_duplicate(self, fingerprint: TextFingerprint, texts: Sequence[TextFingerprint]) -> bool:
        rules = self._rules
        level = duplicate_level(fingerprint, texts, min_jaccard=rules.jaccard, min_containment=rules.containment)
        if level is not None:
            self._count_duplicate(level)
        return level is not None

    def _is_paraphrase(self, candidate: _Candidate, items: Sequence[MemoryItem], cosine: Cosine) -> bool:
        texts = (*(t for t in self.node.visible if t.strip()), *(item.text for item in items))
        return any(cosine(candidate.text, text) >= self._rules.cosine for text in texts)

    def _count_duplicate(self, level: DuplicateLevel) -> None:
        self._dropped["duplicate"] += 1
        self._levels[level] += 1

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
