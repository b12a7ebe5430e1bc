"""What may enter associative memory: relevance, novelty, brevity.

The three aims are CoAT's (Pan, Deng, Huang, "CoAT: Chain-of-Associated-Thoughts", 2025, arXiv:2502.02390); how they are
measured, and the thresholds, are this project's own:

    brevity     at most `max_tokens`; what is longer is left out, not cut: half a fact may be false
    relevance   cosine with question and step at least `relevance`; without embeddings, a common content word
    novelty     on none of three levels the same as a text that the thought sees: hash, word 3-grams, cosine
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from ...core.messages import Frozen
from ..retrieval.deduplication import MIN_CONTAINMENT, MIN_JACCARD, DuplicateLevel, TextFingerprint, duplicate_level
from ..retrieval.words import content_terms
from .similarity import Similarity
from .working_memory import SELF_SOURCE, MemoryItem

DropReason = Literal["empty", "too_long", "irrelevant", "duplicate"]
"""Why something was left out."""


class AdmissionRules(Frozen):
    """The thresholds.

    Attributes:
        max_tokens: Most tokens of an item.
        jaccard: From this Jaccard index of word 3-grams on, two texts are the same.
        containment: From this share of an item's 3-grams in a text on, the item is not new.
        cosine: From this cosine on, two texts are the same.
        relevance: Least cosine of an item with question and step.
    """

    max_tokens: Annotated[int, Field(ge=1)] = 96
    jaccard: Annotated[float, Field(gt=0, le=1)] = MIN_JACCARD
    containment: Annotated[float, Field(gt=0, le=1)] = MIN_CONTAINMENT
    cosine: Annotated[float, Field(gt=0, le=1)] = 0.92
    relevance: Annotated[float, Field(ge=-1, le=1)] = 0.2


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a model or a brain would have remembered.

    Attributes:
        text: The knowledge.
        source_id: Where it comes from; empty for the model's own.
        source_kind: "self", or the kind of the brain.
        query: What the brain was asked.
        score: How relevant it is, in [0, 1]; None takes what is measured here: the cosine with question and step or,
            without embeddings, the share of its content words that these have.
    """

    text: str
    source_id: str = ""
    source_kind: str = SELF_SOURCE
    query: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class NodeProposals:
    """A thought, what it sees, and what is proposed for it.

    Attributes:
        node_id: The thought.
        about: Question and step, which an item must bear on; what has no words bears on everything.
        visible: All it sees: the question, the texts of its path, the items of its path.
        proposals: What is proposed, the most wanted first.
    """

    node_id: int
    about: str
    visible: tuple[str, ...]
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """What became of a thought's proposals; their number is that of `items` and all of `dropped`.

    Attributes:
        items: What may be remembered, in order.
        dropped: How many were left out, by reason; reasons that left nothing out are not there.
        duplicates_by_level: How many of the duplicates were found on each level.
    """

    items: tuple[MemoryItem, ...]
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    duplicates_by_level: Mapping[DuplicateLevel, int] = field(default_factory=dict)


class AdmissionFilter:
    """The three rules.

    Args:
        rules: The thresholds.
        count_tokens: Length of a text in tokens of the model that will read it.
        similarity: Compares meanings; None leaves out the third level and looks for common words instead.
    """

    def __init__(
        self, rules: AdmissionRules, count_tokens: Callable[[str], int], similarity: Similarity | None = None
    ) -> None:
        self.rules = rules
        self._count_tokens = count_tokens
        self._similarity = similarity

    async def admit(self, thoughts: Sequence[NodeProposals]) -> list[AdmissionResult]:
        """Judge the proposals of some thoughts, with one batch of embeddings for all.

        Items of one thought are compared with each other too, in order. Thoughts do not see each other's new items, so
        the result for each does not depend on the others.

        Args:
            thoughts: The thoughts, for example all siblings of an expansion.

        Returns:
            What became of the proposals, in the order of `thoughts`.

        Raises:
            ReasonError: Meanings could not be compared.
        """
        looks = [_Look(thought, self.rules, self._count_tokens) for thought in thoughts]
        cosine = await self._compare(looks)
        return [look.judge(cosine) for look in looks]

    async def _compare(self, looks: Sequence[_Look]) -> Cosine | None:
        if self._similarity is None:
            return None
        left = list(dict.fromkeys(c.text for look in looks for c in look.candidates))
        seen = (t for look in looks if look.candidates for t in (look.thought.about, *look.thought.visible))
        right = list(dict.fromkeys((*(t for t in seen if t.strip()), *left)))
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
    """A proposal that is short and not in the words of what is seen."""

    proposal: Proposal
    text: str
    tokens: int
    marks: TextFingerprint


class _Look:
    """One thought's proposals under way."""

    def __init__(self, thought: NodeProposals, rules: AdmissionRules, count_tokens: Callable[[str], int]) -> None:
        self.thought, self._rules = thought, rules
        self._dropped: Counter[DropReason] = Counter()
        self._levels: Counter[DuplicateLevel] = Counter()
        self.candidates: list[_Candidate] = []
        visible = [TextFingerprint.of(text) for text in thought.visible]
        for proposal in thought.proposals:
            text = _clean(proposal.text)
            marks = TextFingerprint.of(text)
            if not marks.form:
                self._dropped["empty"] += 1
            elif (tokens := count_tokens(text)) > rules.max_tokens:
                self._dropped["too_long"] += 1
            elif not self._is_known(marks, visible):
                self.candidates.append(_Candidate(proposal, text, tokens, marks))

    def judge(self, cosine: Cosine | None) -> AdmissionResult:
        """Take what is relevant and new.

        Args:
            cosine: Compares meanings; None where that cannot be.
        """
        items: list[MemoryItem] = []
        taken: list[TextFingerprint] = []
        for candidate in self.candidates:
            relevance = self._relevance(candidate, cosine)
            if relevance is None:
                self._dropped["irrelevant"] += 1
            elif self._is_known(candidate.marks, taken):
                continue
            elif cosine is not None and self._means_the_same(candidate, items, cosine):
                self._duplicate(3)
            else:
                items.append(self._item(candidate, relevance))
                taken.append(candidate.marks)
        return AdmissionResult(tuple(items), dict(self._dropped), dict(self._levels))

    def _relevance(self, candidate: _Candidate, cosine: Cosine | None) -> float | None:
        """How much an item bears on question and step; None if it does not."""
        about = self.thought.about
        if cosine is not None:
            if not about.strip():
                return 0.0
            close = cosine(candidate.text, about)
            return close if close >= self._rules.relevance else None
        asked, said = content_terms(about), content_terms(candidate.text)
        if not asked:
            return 0.0
        return len(asked & said) / len(said) if asked & said else None

    def _is_known(self, marks: TextFingerprint, texts: Sequence[TextFingerprint]) -> bool:
        rules = self._rules
        level = duplicate_level(marks, texts, jaccard_from=rules.jaccard, containment_from=rules.containment)
        if level is not None:
            self._duplicate(level)
        return level is not None

    def _means_the_same(self, candidate: _Candidate, items: Sequence[MemoryItem], cosine: Cosine) -> bool:
        texts = (*(t for t in self.thought.visible if t.strip()), *(item.text for item in items))
        return any(cosine(candidate.text, text) >= self._rules.cosine for text in texts)

    def _duplicate(self, level: DuplicateLevel) -> None:
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
            node_id=self.thought.node_id,
            hash=candidate.marks.hash,
            score=min(1.0, max(0.0, score)),
            tokens=candidate.tokens,
        )


def _clean(text: str) -> str:
    """A text without blanks around it, and of characters that can be written down."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ").strip()
