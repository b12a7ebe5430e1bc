"""`Associator`: what knowledge joins a thought, from the model itself or from external brains, and what of it stays.

    query       of each thought, to all brains at once            (none: the model associates by itself)
    associate   AM = EB -> LLM(Q | G): the model says what of the snippets, or of what it knows, helps the next step
    admit       what bears on the thought, is new on its path, and is short

Source: Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), formula (2) and the three criteria of its associative memory;
the thresholds and the requirement that an item names a snippet are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.events import AssociatedItem, MemoryAssociated
from ...core.messages import Prompt, Request, Sampling
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..brains.consulting import Consultant, Found
from ..brains.quoting import plain
from ..memory.admission import Admission, Admitted, Proposal, Thought
from ..memory.item import SELF, MemoryItem
from ..memory.working import WorkingMemory
from ..prompts import history
from . import wording
from .conversation import ROOT, Conversation, Turn
from .replies import read_items
from .schemas import items_schema
from .shortening import shortened

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
        admission: Admission,
        consultant: Consultant | None,
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
                    Proposal(plain(shortened(s.text, query, self._how.tokens)), s.source_id, s.kind, query)
                    for s in snippets
                )
                for query, snippets in zip(queries, found, strict=True)
            ]
            lost: list[int] = [0] * len(paths)
        else:
            proposals, lost = await self._written(paths, queries, found)
        admitted = await self._admission.admit(
            [
                Thought(
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

    async def _consult(self, paths: Sequence[Sequence[Turn]]) -> tuple[list[str], list[list[Found]]]:
        """What the brains were asked about each thought, and what they found."""
        if self._consultant is None:
            return [""] * len(paths), [[] for _ in paths]
        queries = await self._queries(paths)
        wanted = [self._how.snippets + self._quoted(path) for path in paths]
        before = history(self._question)
        found = await self._consultant.ask(queries, max(wanted), [before] * len(paths) if before else ())
        return queries, [snippets[:most] for snippets, most in zip(found, wanted, strict=True)]

    def _quoted(self, path: Sequence[Turn]) -> int:
        """How many snippets the path has already, which the brains will find again."""
        if self._how.association == "written":
            return 0  # another thought may take another fact from the same snippet
        return sum(note.source_kind != SELF for note in self._conversation.known(path))

    async def _queries(self, paths: Sequence[Sequence[Turn]]) -> list[str]:
        plainly = [
            "\n".join((self._question.text, *(t.text for t in path[-1:])))[-_QUERY_CHARS * 4 :] for path in paths
        ]
        worded = [i for i, path in enumerate(paths) if path]  # the question is its own query
        if self._how.querying == "step" or not worded:
            return plainly
        sampling = Sampling(temperature=0.0, max_tokens=_QUERY_TOKENS, stop=("\n",), logprobs=False)
        replies = await self._model.generate(
            [Request(prompt=self._conversation.after(paths[i], wording.QUERY), sampling=sampling) for i in worded]
        )
        for i, (reply,) in zip(worded, replies, strict=True):
            plainly[i] = " ".join(reply.text.split())[:_QUERY_CHARS] or plainly[i]
        return plainly

    async def _written(
        self, paths: Sequence[Sequence[Turn]], queries: Sequence[str], found: Sequence[Sequence[Found]]
    ) -> tuple[list[tuple[Proposal, ...]], list[int]]:
        """What the model would have remembered, and how many items each time named no snippet that there was."""
        how = self._how
        asked = [i for i, snippets in enumerate(found) if snippets or self._consultant is None]
        can = self._model.capabilities
        begins = '{"items": [' if can.prefix and not can.json_schema else ""
        sampling = Sampling(temperature=how.temperature, max_tokens=how.tokens, logprobs=False)
        requests = []
        for i in asked:
            prompt: Prompt = self._conversation.after(
                paths[i], wording.associate(found[i], how.items, how.tokens), prefix=begins
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
                    made.append(Proposal(plain(item.text)))
                    continue
                number = item.source if item.source is not None else 1 if len(found[i]) == 1 else 0
                if not 1 <= number <= len(found[i]):
                    lost[i] += 1
                    continue
                source = found[i][number - 1]
                made.append(Proposal(plain(item.text), source.source_id, source.kind, queries[i]))
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
        outcome: Admitted,
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
