"""`Associator`: brings knowledge to the steps of a search, from the model itself or from knowledge sources.

    query       all knowledge sources for each step                          (without sources: only the model)
    associate   AM = EB -> LLM(Q | G): the model picks or recalls what helps the next step
    admit       what is relevant to the step, new on its path, and short

The paper calls the knowledge sources "external brain" (EB).

Source: Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), formula (2) and the three criteria of its associative memory;
the thresholds, and that every item must name a snippet, are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...core.events import AssociatedItem, MemoryAssociated
from ...core.json_schema import JsonSchema
from ...core.messages import Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...serving.metered.model import MeteredModel
from ...serving.output_schemas import STRING_SCHEMA, array_schema, enum_schema, find_object, object_schema
from ..knowledge import SELF_SOURCE, MemoryItem
from ..memory.admission import AdmissionFilter, AdmissionResult, NodeProposals, Proposal
from ..memory.working_memory import WorkingMemory
from ..prompts import conversation_text
from ..quoting import quote_line
from ..retrieval.sources.client import KnowledgeClient, SourcedSnippet
from ..retrieval.words import content_terms
from ..segmentation import sentence_spans
from . import prompts
from .prompts import ROOT, PathStep, ThoughtPrompts

GAP = " … "
"""Stands for omitted sentences."""


def select_sentences(text: str, about: str, max_tokens: int) -> str:
    """The sentences of a snippet that share the most content words with `about`, within `max_tokens`.

    Complete sentences only, in their order: half a fact may be false. Ties go to the earlier sentence.

    Args:
        text: The snippet.
        about: Question and step.
        max_tokens: Limit by `estimate_tokens`.

    Returns:
        The text itself if it is short enough; empty if no sentence fits.
    """
    if estimate_tokens(text) <= max_tokens:
        return text
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    terms = content_terms(about)
    by_overlap = sorted(range(len(sentences)), key=lambda i: (-len(content_terms(sentences[i]) & terms), i))
    kept: list[int] = []
    for i in by_overlap:
        if estimate_tokens(_joined(sentences, candidate := sorted([*kept, i]))) <= max_tokens:
            kept = candidate
    return _joined(sentences, kept)


def estimate_tokens(text: str) -> int:
    """Number of tokens at four bytes each.

    Independent of the model's tokenizer on purpose: a replay has none, and must omit what the run omitted.
    """
    return len(text.encode("utf-8", "replace")) // 4 + 1


def _joined(sentences: list[str], kept: list[int]) -> str:
    parts: list[str] = []
    for position, i in enumerate(kept):
        if position:
            parts.append(" " if kept[position - 1] == i - 1 else GAP)
        parts.append(sentences[i])
    return "".join(parts)


Association = Literal["written", "quoted", "none"]
"""What becomes a note: what the model writes that helps; sentences of the snippets, without a call; nothing."""
NUM_SNIPPETS = 3
"""m: snippets requested from the sources for a step."""
MAX_NOTE_TOKENS = 96
"""L_am: maximum tokens of an association and of a quoted snippet."""
MAX_NEW_NOTES = 3
"""Maximum items of an association."""
_TEMPERATURE = 0.3
_QUERY_CHARS = 1_600


class Associator:
    """Brings knowledge to the last steps of a batch of paths.

    Attributes:
        dropped: Number of rejected items by reason.
        unreadable: Number of completions that could not be parsed.
    """

    def __init__(
        self,
        name: str,
        model: MeteredModel,
        question: Question,
        conversation: ThoughtPrompts,
        memory: WorkingMemory,
        admission: AdmissionFilter,
        sources: KnowledgeClient | None,
        run: Run,
        association: Association,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.unreadable = 0
        self._name, self._model, self._question, self._run = name, model, question, run
        self._conversation, self._memory, self._admission = conversation, memory, admission
        self._sources, self._is_quoting = sources, sources is not None and association == "quoted"

    def max_tokens_per_thought(self) -> int:
        """Maximum tokens generated for one step."""
        return 0 if self._is_quoting else MAX_NOTE_TOKENS

    def cost(self) -> dict[str, int]:
        """Counts of dropped items, unreadable completions and failed queries."""
        sources = self._sources
        failed = {} if sources is None else {"eb_errors": sources.errors, "eb_timeouts": sources.timeouts}
        repeats = 0 if sources is None else sources.repeats
        return {
            "unread_notes": self.unreadable,
            "dups_dropped": self.dropped["duplicate"] + repeats,
            "dropped": sum(self.dropped.values()),
            **failed,
        }

    async def associate(self, paths: Sequence[Sequence[PathStep]]) -> None:
        """Bring knowledge to the last step of each path; the admitted items are in the memory afterwards.

        Args:
            paths: Paths from the first step; an empty path stands for the question itself.

        Raises:
            BudgetExceeded: The budget does not cover the calls.
            BackendError: The model failed.
        """
        if not paths:
            return
        queries, snippets = await self._query_sources(paths)
        if self._is_quoting:
            proposals = [
                tuple(
                    Proposal(
                        quote_line(select_sentences(s.text, query, MAX_NOTE_TOKENS)),
                        s.source_id,
                        s.source_kind,
                        query,
                    )
                    for s in retrieved
                )
                for query, retrieved in zip(queries, snippets, strict=True)
            ]
            unsupported: list[int] = [0] * len(paths)
        else:
            proposals, unsupported = await self._propose(paths, queries, snippets)
        results = await self._admission.admit(
            [
                NodeProposals(
                    node_id=_last_id(path),
                    about="\n".join((self._question.text, *(step.text for step in path[-1:]))),
                    visible=self._visible(path),
                    proposals=proposed,
                )
                for path, proposed in zip(paths, proposals, strict=True)
            ]
        )
        for i, (path, result) in enumerate(zip(paths, results, strict=True)):
            items = result.items[:MAX_NEW_NOTES]
            self._memory.add(_last_id(path), items)
            self._emit(_last_id(path), queries[i], len(snippets[i]), items, result, unsupported[i])

    async def _query_sources(self, paths: Sequence[Sequence[PathStep]]) -> tuple[list[str], list[list[SourcedSnippet]]]:
        """The query of each path and the snippets for it."""
        if self._sources is None:
            return [""] * len(paths), [[] for _ in paths]
        queries = ["\n".join((self._question.text, *(t.text for t in path[-1:])))[-_QUERY_CHARS:] for path in paths]
        counts = [NUM_SNIPPETS + self._num_quoted(path) for path in paths]
        context = conversation_text(self._question)
        results = await self._sources.query(queries, max(counts), [context] * len(paths) if context else ())
        return queries, [snippets[:count] for snippets, count in zip(results, counts, strict=True)]

    def _num_quoted(self, path: Sequence[PathStep]) -> int:
        """Number of snippets already quoted on the path, which the sources will return again."""
        if not self._is_quoting:
            return 0  # another step may take another fact from the same snippet
        return sum(note.source_kind != SELF_SOURCE for note in self._conversation.known(path))

    async def _propose(
        self, paths: Sequence[Sequence[PathStep]], queries: Sequence[str], snippets: Sequence[Sequence[SourcedSnippet]]
    ) -> tuple[list[tuple[Proposal, ...]], list[int]]:
        """The items that the model proposes for each path, and how many of them named no valid snippet."""
        indices = [i for i, retrieved in enumerate(snippets) if retrieved or self._sources is None]
        capabilities = self._model.quick_capabilities
        prefix = '{"items": [' if capabilities.prefix and not capabilities.json_schema else ""
        sampling = SamplingParams(default_temperature=_TEMPERATURE, max_tokens=MAX_NOTE_TOKENS, effort="none")
        requests = []
        for i in indices:
            prompt: Prompt = self._conversation.after(
                paths[i], prompts.associate(snippets[i], MAX_NEW_NOTES, MAX_NOTE_TOKENS), prefix=prefix
            )
            seed = self._run.derive_seed("associate", *(step.text for step in paths[i]))
            schema = items_schema(len(snippets[i]), MAX_NEW_NOTES) if capabilities.json_schema else None
            params = sampling.model_copy(update={"seed": seed, "json_schema": schema})
            requests.append(Request(prompt=prompt, sampling=params))
        results = await self._model.generate(requests) if requests else []
        proposals: list[tuple[Proposal, ...]] = [() for _ in paths]
        unsupported = [0] * len(paths)
        for i, (completion,) in zip(indices, results, strict=True):
            if not completion.ok:
                self.unreadable += 1
                continue
            items, readable = read_items(prefix + completion.text)
            self.unreadable += not readable
            kept = []
            for item in items:
                if self._sources is None:
                    kept.append(Proposal(quote_line(item.text)))
                    continue
                number = item.source if item.source is not None else 1 if len(snippets[i]) == 1 else 0
                if not 1 <= number <= len(snippets[i]):
                    unsupported[i] += 1
                    continue
                source = snippets[i][number - 1]
                kept.append(Proposal(quote_line(item.text), source.source_id, source.source_kind, queries[i]))
            proposals[i] = tuple(kept)
        return proposals, unsupported

    def _visible(self, path: Sequence[PathStep]) -> tuple[str, ...]:
        notes = (item.text for item in self._conversation.known(path))
        return self._question.text, *(step.text for step in path), *notes

    def _emit(
        self,
        node_id: int,
        query: str,
        snippets: int,
        items: Sequence[MemoryItem],
        result: AdmissionResult,
        unsupported: int,
    ) -> None:
        dropped: dict[str, int] = {str(reason): count for reason, count in result.dropped.items()}
        if unsupported:
            dropped["unsupported"] = unsupported
        if len(result.items) > len(items):
            dropped["too_many"] = len(result.items) - len(items)
        self.dropped.update(dropped)
        self._run.emit(
            MemoryAssociated(
                search=self._name,
                node=node_id,
                query=query,
                snippets=snippets,
                items=tuple(
                    AssociatedItem(text=i.text, source_id=i.source_id, source_kind=i.source_kind, score=i.score)
                    for i in items
                ),
                dropped=dropped,
            )
        )


def _last_id(path: Sequence[PathStep]) -> int:
    return path[-1].node_id if path else ROOT


MAX_ITEMS = 32

_OBJECT = re.compile(r"\{[^{}]*\}")

_LINE = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|\[(?P<source>\d{1,3})\])\s+(?P<text>\S.*)$")

_NOTHING = re.compile(r'\W*(?:none|nothing(?: to add)?|n/?a|\{\s*"items"\s*:\s*\[\s*\]\s*\}|\[\s*\])\W*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ProposedItem:
    """An item as the model wrote it.

    Attributes:
        source: Number of the snippet it names, from 1; None without one.
    """

    text: str
    source: int | None = None


def read_items(text: str) -> tuple[list[ProposedItem], bool]:
    """Parse the items of a completion: JSON, truncated JSON, objects without the outer one, or a list.

    Returns:
        The items in order, and whether the completion could be parsed; an empty list can be.
    """
    if _NOTHING.fullmatch(text):
        return [], True
    data = find_object(text, lambda value: isinstance(value.get("items"), list))
    if data is not None:
        parsed = [item for item in map(_item, data["items"][:MAX_ITEMS]) if item is not None]
        return parsed, bool(parsed) or not data["items"]
    objects = (find_object(piece, lambda value: "text" in value) for piece in _OBJECT.findall(text))
    items = [item for item in map(_item, objects) if item is not None]
    if not items:
        lines = (match for line in text.splitlines() if (match := _LINE.match(line)) is not None)
        items = [ProposedItem(m["text"].strip(), int(m["source"]) if m["source"] else None) for m in lines]
    return items[:MAX_ITEMS], bool(items)


def _item(item: Any) -> ProposedItem | None:
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not item["text"].strip():
        return None
    source = item.get("source", item.get("source_id"))
    number = re.search(r"\d{1,3}", str(source)) if isinstance(source, int | str) else None
    return ProposedItem(item["text"].strip(), None if number is None else int(number[0]))


def items_schema(snippets: int, max_items: int) -> JsonSchema:
    """JSON schema of an association.

    Args:
        snippets: Number of snippets shown, one of which each item names; 0 without any.
        max_items: Maximum number of items.
    """
    item: JsonSchema = {"text": STRING_SCHEMA}
    if snippets:
        item["source"] = enum_schema(range(1, snippets + 1))
    return object_schema({"items": array_schema(object_schema(item), max_items)})
