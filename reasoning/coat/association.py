"""`Associator`: what knowledge joins a thought, from the model itself or from external brains, and what of it stays.

    query       of each thought, to all brains at once            (none: the model associates by itself)
    associate   AM = EB -> LLM(Q | G): the model says what of the snippets, or of what it knows, helps the next step
    admit       what bears on the thought, is new on its path, and is short

Source: Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), formula (2) and the three criteria of its associative memory;
the thresholds and the requirement that an item names a snippet are ours.

`shortened`: the sentences of a snippet that bear most on what is asked, as many as may be quoted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...core.events import AssociatedItem, MemoryAssociated
from ...core.json_schema import STRING_SCHEMA, JsonSchema, array_schema, enum_schema, object_schema
from ...core.messages import Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...serving.metered.model import MeteredModel
from ..memory.admission import AdmissionFilter, AdmissionResult, NodeProposals, Proposal
from ..memory.working_memory import SELF_SOURCE, MemoryItem, WorkingMemory
from ..prompts import conversation_text
from ..retrieval.quoting import quote_line
from ..retrieval.sources.client import KnowledgeClient, SourcedSnippet
from ..retrieval.words import content_terms
from ..segmentation import sentence_spans
from . import prompts
from .prompts import ROOT, Conversation, Turn

GAP = " … "
"""What stands where sentences were left out."""


def shortened(text: str, about: str, most: int) -> str:
    """A text that is too long, without the sentences that have least to do with what is asked.

    Whole sentences only, in their order: half a fact may be false. A heading on a line of its own is a sentence. Those
    with most content words of `about` stay, of equals the earlier, as long as they fit.

    Args:
        text: The snippet.
        about: Question and step.
        most: Most tokens (see `approximate_tokens`).

    Returns:
        The text itself if it is short enough; empty if not one of its sentences is.
    """
    if approximate_tokens(text) <= most:
        return text
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    asked = content_terms(about)
    by_bearing = sorted(range(len(sentences)), key=lambda i: (-len(content_terms(sentences[i]) & asked), i))
    kept: list[int] = []
    for i in by_bearing:
        if approximate_tokens(_joined(sentences, wider := sorted([*kept, i]))) <= most:
            kept = wider
    return _joined(sentences, kept)


def approximate_tokens(text: str) -> int:
    """About so many tokens: one for four bytes, whoever's tokens they are.

    Not what a model's tokenizer counts, on purpose: a replay has none, and must leave out what its run left out.
    """
    return len(text.encode("utf-8", "replace")) // 4 + 1


def _joined(sentences: list[str], kept: list[int]) -> str:
    parts: list[str] = []
    for at, i in enumerate(kept):
        if at:
            parts.append(" " if kept[at - 1] == i - 1 else GAP)
        parts.append(sentences[i])
    return "".join(parts)


Querying = Literal["step", "model"]
Association = Literal["written", "quoted"]
_QUERY_TOKENS = 32
_QUERY_CHARS = 400


@dataclass(frozen=True, slots=True)
class Associating:
    """How knowledge is asked for.

    Attributes:
        snippets: m, snippets wanted of the brains for a thought.
        tokens: L_am, most tokens of an association, and of a quoted snippet (see `shortening`).
        items: Most items of one.
        association: "written": the model says what helps; "quoted": the snippets are taken as they are, without a
            call; of long ones the sentences that bear most on question and step.
        querying: "step": the brains are asked with question and step; "model": with a query that the model writes.
        temperature: Of the association.
    """

    snippets: int = 3
    tokens: int = 96
    items: int = 3
    association: Association = "written"
    querying: Querying = "step"
    temperature: float = 0.3


class Associator:
    """Brings knowledge to thoughts, all of a batch together.

    Args:
        name: Name of the search, for the trace.
        model: Who associates.
        question: The question.
        conversation: How paths are put.
        memory: Where what is admitted goes.
        admission: The rules.
        consultant: The external brains; None where there are none.
        run: The run.
        how: How.

    Attributes:
        dropped: What did not enter, by reason.
        unread: Replies that could not be read.
    """

    def __init__(
        self,
        name: str,
        model: MeteredModel,
        question: Question,
        conversation: Conversation,
        memory: WorkingMemory,
        admission: AdmissionFilter,
        consultant: KnowledgeClient | None,
        run: Run,
        how: Associating,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.unread = 0
        self._name, self._model, self._question, self._run = name, model, question, run
        self._conversation, self._memory, self._admission = conversation, memory, admission
        self._consultant, self._how = consultant, how

    def most_tokens(self) -> int:
        """Most tokens that associating with one thought generates."""
        queries = _QUERY_TOKENS if self._consultant is not None and self._how.querying == "model" else 0
        writes = self._consultant is None or self._how.association == "written"
        return queries + (self._how.tokens if writes else 0)

    def cost(self) -> dict[str, int]:
        """What was dropped, could not be read, and was not answered by the brains."""
        consultant = self._consultant
        failed = {} if consultant is None else {"eb_errors": consultant.errors, "eb_timeouts": consultant.timeouts}
        repeats = 0 if consultant is None else consultant.repeats
        return {
            "unread_notes": self.unread,
            "dups_dropped": self.dropped["duplicate"] + repeats,
            "dropped": sum(self.dropped.values()),
            **failed,
        }

    async def associate(self, paths: Sequence[Sequence[Turn]]) -> None:
        """Bring knowledge to the last thought of each path; what is admitted is in the memory afterwards.

        Args:
            paths: The paths; with an empty one, knowledge comes to the question itself.

        Raises:
            LimitExceeded: The calls do not fit the budget.
            BackendError: The model failed.
        """
        if not paths:
            return
        queries, found = await self._consult(paths)
        if self._consultant is not None and self._how.association == "quoted":
            proposals = [
                tuple(
                    Proposal(quote_line(shortened(s.text, query, self._how.tokens)), s.source_id, s.kind, query)
                    for s in snippets
                )
                for query, snippets in zip(queries, found, strict=True)
            ]
            lost: list[int] = [0] * len(paths)
        else:
            proposals, lost = await self._written(paths, queries, found)
        admitted = await self._admission.admit(
            [
                NodeProposals(
                    node_id=_last(path),
                    about="\n".join((self._question.text, *(turn.text for turn in path[-1:]))),
                    visible=self._visible(path),
                    proposals=proposed,
                )
                for path, proposed in zip(paths, proposals, strict=True)
            ]
        )
        for i, (path, outcome) in enumerate(zip(paths, admitted, strict=True)):
            items = outcome.items[: self._how.items]
            self._memory.add(_last(path), items)
            self._tell(_last(path), queries[i], len(found[i]), items, outcome, lost[i])

    async def _consult(self, paths: Sequence[Sequence[Turn]]) -> tuple[list[str], list[list[SourcedSnippet]]]:
        """What the brains were asked about each thought, and what they found."""
        if self._consultant is None:
            return [""] * len(paths), [[] for _ in paths]
        queries = await self._queries(paths)
        wanted = [self._how.snippets + self._quoted(path) for path in paths]
        before = conversation_text(self._question)
        found = await self._consultant.ask(queries, max(wanted), [before] * len(paths) if before else ())
        return queries, [snippets[:most] for snippets, most in zip(found, wanted, strict=True)]

    def _quoted(self, path: Sequence[Turn]) -> int:
        """How many snippets the path has already, which the brains will find again."""
        if self._how.association == "written":
            return 0  # another thought may take another fact from the same snippet
        return sum(note.source_kind != SELF_SOURCE for note in self._conversation.known(path))

    async def _queries(self, paths: Sequence[Sequence[Turn]]) -> list[str]:
        plainly = [
            "\n".join((self._question.text, *(t.text for t in path[-1:])))[-_QUERY_CHARS * 4 :] for path in paths
        ]
        worded = [i for i, path in enumerate(paths) if path]  # the question is its own query
        if self._how.querying == "step" or not worded:
            return plainly
        sampling = SamplingParams(temperature=0.0, max_tokens=_QUERY_TOKENS, stop=("\n",), logprobs=False)
        replies = await self._model.generate(
            [Request(prompt=self._conversation.after(paths[i], prompts.QUERY), sampling=sampling) for i in worded]
        )
        for i, (reply,) in zip(worded, replies, strict=True):
            plainly[i] = " ".join(reply.text.split())[:_QUERY_CHARS] or plainly[i]
        return plainly

    async def _written(
        self, paths: Sequence[Sequence[Turn]], queries: Sequence[str], found: Sequence[Sequence[SourcedSnippet]]
    ) -> tuple[list[tuple[Proposal, ...]], list[int]]:
        """What the model would have remembered, and how many items each time named no snippet that there was."""
        how = self._how
        asked = [i for i, snippets in enumerate(found) if snippets or self._consultant is None]
        can = self._model.capabilities
        begins = '{"items": [' if can.prefix and not can.json_schema else ""
        sampling = SamplingParams(temperature=how.temperature, max_tokens=how.tokens, logprobs=False)
        requests = []
        for i in asked:
            prompt: Prompt = self._conversation.after(
                paths[i], prompts.associate(found[i], how.items, how.tokens), prefix=begins
            )
            seed = self._run.derive_seed("associate", *(turn.text for turn in paths[i]))
            schema = items_schema(len(found[i]), how.items) if can.json_schema else None
            own = sampling.model_copy(update={"seed": seed, "json_schema": schema})
            requests.append(Request(prompt=prompt, sampling=own))
        replies = await self._model.generate(requests) if requests else []
        proposals: list[tuple[Proposal, ...]] = [() for _ in paths]
        lost = [0] * len(paths)
        for i, (reply,) in zip(asked, replies, strict=True):
            if not reply.ok:
                self.unread += 1
                continue
            said, readable = read_items(begins + reply.text)
            self.unread += not readable
            made = []
            for item in said:
                if self._consultant is None:
                    made.append(Proposal(quote_line(item.text)))
                    continue
                number = item.source if item.source is not None else 1 if len(found[i]) == 1 else 0
                if not 1 <= number <= len(found[i]):
                    lost[i] += 1
                    continue
                source = found[i][number - 1]
                made.append(Proposal(quote_line(item.text), source.source_id, source.kind, queries[i]))
            proposals[i] = tuple(made)
        return proposals, lost

    def _visible(self, path: Sequence[Turn]) -> tuple[str, ...]:
        notes = (item.text for item in self._conversation.known(path))
        return self._question.text, *(turn.text for turn in path), *notes

    def _tell(
        self,
        node_id: int,
        query: str,
        snippets: int,
        items: Sequence[MemoryItem],
        outcome: AdmissionResult,
        lost: int,
    ) -> None:
        dropped: dict[str, int] = {str(reason): count for reason, count in outcome.dropped.items()}
        if lost:
            dropped["unsupported"] = lost
        if len(outcome.items) > len(items):
            dropped["too_many"] = len(outcome.items) - len(items)
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


def _last(path: Sequence[Turn]) -> int:
    """The node that a path leads to."""
    return path[-1].node_id if path else ROOT


MOST_ITEMS = 32

_OBJECT = re.compile(r"\{[^{}]*\}")

_TEXT = re.compile(r'"text"\s*:\s*"((?:[^"\\]|\\.){1,2000})"')

_SOURCE = re.compile(r'"source(?:_id)?"\s*:\s*"?\[?\s*(\d{1,3})')

_LINE = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|\[(?P<source>\d{1,3})\])\s+(?P<text>\S.*)$")

_NOTHING = re.compile(r'\W*(?:none|nothing(?: to add)?|n/?a|\{\s*"items"\s*:\s*\[\s*\]\s*\}|\[\s*\])\W*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """An item as the model proposed it.

    Attributes:
        text: The knowledge.
        source: Number of the snippet that it names, from 1; None if it names none.
    """

    text: str
    source: int | None = None


def read_items(reply: str) -> tuple[list[Said], bool]:
    """The items of a reply.

    A reply that was cut short gives those that are whole.

    Returns:
        The items in order, and whether the reply could be read: an empty list of items can.
    """
    if _NOTHING.fullmatch(reply):
        return [], True
    found = _json_items(reply)
    if found is not None:
        return found[:MOST_ITEMS], True
    objects = [_item_of(piece) for piece in _OBJECT.findall(reply)]
    said = [item for item in objects if item is not None]
    if not said:
        said = [
            Said(m["text"].strip(), int(m["source"]) if m["source"] else None)
            for m in map(_LINE.match, reply.splitlines())
            if m is not None
        ]
    return said[:MOST_ITEMS], bool(said)


def _json_items(reply: str) -> list[Said] | None:
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        data = json.loads(reply[start : end + 1])
    except (ValueError, RecursionError):
        return None
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        return None
    said = [_item(item) for item in items]
    return [item for item in said if item is not None]


def _item(item: Any) -> Said | None:
    if isinstance(item, str):
        return Said(item.strip()) if item.strip() else None
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not item["text"].strip():
        return None
    source = item.get("source", item.get("source_id"))
    number = re.search(r"\d{1,3}", str(source)) if isinstance(source, int | str) else None
    return Said(item["text"].strip(), None if number is None else int(number[0]))


def _item_of(piece: str) -> Said | None:
    """One item out of a piece of text that looks like its JSON."""
    text, source = _TEXT.search(piece), _SOURCE.search(piece)
    if text is None:
        return None
    try:
        said = str(json.loads(f'"{text[1]}"'))
    except ValueError:
        said = text[1]
    return Said(said.strip(), None if source is None else int(source[1])) if said.strip() else None


def items_schema(snippets: int, most: int) -> JsonSchema:
    """Items of knowledge.

    Args:
        snippets: How many snippets were shown, one of which each item names; 0 if there were none to name.
        most: Most items.
    """
    item: JsonSchema = {"text": STRING_SCHEMA}
    if snippets:
        item["source"] = enum_schema(range(1, snippets + 1))
    return object_schema({"items": array_schema(object_schema(item), most)})
