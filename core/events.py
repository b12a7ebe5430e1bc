"""Everything that happens in a run, as typed events, and the sinks that receive them.

The command line, server-sent events, traces, the viewer and the tests read the same events. They are numbered from 1 in
the order of emission; `parent` is the number of the event that one belongs under (a sample under its call, a call under
its stage), so that a trace is a tree.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TextIO

import anyio
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter

from .errors import StoreError
from .messages import Completion, Effort, EncodedOnce, Frozen
from .types import Answer, PendingToolCall, Question, Solution, Verification, WriteCheck


class Event(EncodedOnce):
    """Base of all events.

    Attributes:
        number: Position in the run, from 1; 0 before it is emitted.
        parent: Number of the event this one belongs under; None at the root.
        at_s: Seconds since the run began.
    """

    number: int = 0
    parent: int | None = None
    run_id: str = ""
    at_s: float = 0.0

    def stamped(self, *, number: int, parent: int | None, run_id: str, at_s: float) -> Self:
        """The event with its position in a run.

        The event itself, which has none before it is emitted; a copy if it was emitted before.
        """
        made = self if not self.number and self.known_encoding is None else self.model_copy()
        made.__dict__.update(number=number, parent=parent, run_id=run_id, at_s=at_s)
        made.__pydantic_fields_set__.update(_POSITION)
        return made

    def _with(self, name: str, value: EncodedOnce) -> bytes:
        """The JSON of an event with a large value, whose own JSON is needed elsewhere too."""
        rest = self.__pydantic_serializer__.to_json(self, exclude={name})
        return b'%s,"%s":%s}' % (rest[:-1], name.encode(), value.encoded())


_POSITION = frozenset({"number", "parent", "run_id", "at_s"})


Report = dict[str, JsonValue]
"""A complete record as JSON. The events of a jury name its class in `verify.edgejury.types`, which this layer does not
import. Jurors are numbered from 0."""


class OpinionAdded(Event):
    """A juror has answered, or failed to; `report` is its `JudgeVerdict`."""

    type: Literal["jury.opinion"] = "jury.opinion"
    juror: int
    report: Report


class ReviewAdded(Event):
    """A juror has reviewed the others' opinions, or failed to; `report` is its `Review`."""

    type: Literal["jury.review"] = "jury.review"
    reviewer: int
    report: Report


class OpinionsRanked(Event):
    """The opinions are ranked; `report` is the `Ranking`."""

    type: Literal["jury.ranked"] = "jury.ranked"
    report: Report


class OpinionsMerged(Event):
    """One answer was synthesized from the opinions, by the chair or a fallback; `report` is the `Synthesis`."""

    type: Literal["jury.merged"] = "jury.merged"
    report: Report


class ClaimLabelled(Event):
    """The jurors' agreement on a claim of the answer. Agreed is not verified.

    Attributes:
        index: Index of the claim in the answer, from 0.
        report: Its `ClaimLabel`.
    """

    type: Literal["jury.claim"] = "jury.claim"
    index: int
    report: Report


class JuryStageEnded(Event):
    """A stage of a jury has ended.

    Attributes:
        stage: "answer", "review", "chair" or "agreement".
        num_responses: Models that responded in time, parsable or not.
        report: Its cost, a `StageCost`.
    """

    type: Literal["jury.stage"] = "jury.stage"
    stage: str
    num_requests: int
    num_responses: int
    report: Report


JuryEvent = OpinionAdded | ReviewAdded | OpinionsRanked | OpinionsMerged | ClaimLabelled | JuryStageEnded
"""Any event of a jury."""


class SearchNode(Frozen):
    """A node of a search tree: a partial solution, of which it holds the last step.

    Attributes:
        id: Number within the search, from 0.
        parent: The node that it continues; None for a root.
        depth: Steps up to here; 0 for a root.
        text: The last step; empty for a root.
        score: Score of the partial solution by the reward source, in [0, 1]; None if it has none.
        terminal: Whether the solution is complete.
        forced: Whether the step is a final answer that was requested because steps or budget had run out.
        values: Values by which the search orders its nodes, under the names of its method.
    """

    id: int
    parent: int | None
    depth: int
    text: str = ""
    tokens: int = 0
    score: float | None = None
    terminal: bool = False
    forced: bool = False
    values: dict[str, float] = Field(default_factory=dict)


class AssociatedItem(Frozen):
    """A piece of knowledge that was added to a search.

    Attributes:
        source_id: Where it comes from; empty for the model's own knowledge.
        source_kind: "self", or the kind of the knowledge source: "directory", "http", "memory", …
        score: Its relevance.
    """

    text: str
    source_id: str = ""
    source_kind: str = "self"
    score: float = 0.0


class RunStarted(Event):
    """A run has started or was resumed.

    Attributes:
        effort: How much models that think do so; None is each model's default.
        thinking_tokens: Maximum tokens of each thought; None is the effort's.
        may_be_repaired: As of the run's configuration: text of its samples is no answer before it is verified.
        trajectories: Number of its trajectories.
    """

    type: Literal["run.started"] = "run.started"
    question: Question
    strategy: str
    models: dict[str, str]
    seed: int
    resumed: bool = False
    effort: Effort | None = Field(default=None, exclude_if=lambda value: value is None)
    thinking_tokens: int | None = Field(default=None, exclude_if=lambda value: value is None)
    may_be_repaired: bool = Field(default=False, exclude_if=lambda value: not value)
    trajectories: int = Field(default=1, exclude_if=lambda value: value == 1)


class StageStarted(Event):
    """A stage of the pipeline, or of a strategy that has stages, has started.

    Attributes:
        trajectory: As of `ToolStarted`, of a trajectory's turn.
    """

    type: Literal["stage.started"] = "stage.started"
    stage: str
    trajectory: int = Field(default=0, exclude_if=lambda value: not value)


class StageFinished(Event):
    """A stage has ended; its parent is the stage's start."""

    type: Literal["stage.finished"] = "stage.finished"
    stage: str
    seconds: float
    trajectory: int = Field(default=0, exclude_if=lambda value: not value)


class CallStarted(Event):
    """A model is called.

    Attributes:
        operation: "generate", "score", "next_token", "relevance", "reward" or "embed".
        samples: Samples requested over all requests of the call.
        replayed: Samples that the run store already has.
        constrained: Whether every sample is held to a JSON Schema.
    """

    type: Literal["call.started"] = "call.started"
    role: str
    model: str
    operation: str
    requests: int
    samples: int
    replayed: int
    max_tokens: int = 0
    constrained: bool = Field(default=False, exclude_if=lambda value: not value)


class CallFinished(Event):
    """A model call has ended; its parent is the call's start.

    Attributes:
        thinking_tokens: Part of them that are thoughts.
        cached_tokens: Part of `prompt_tokens` whose keys and values were reused.
    """

    type: Literal["call.finished"] = "call.finished"
    role: str
    model: str
    seconds: float
    tokens: int
    thinking_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failed: int = 0


class TextDelta(Event):
    """New text of a sample that is being generated. Emitted only if a sink wants text; not stored.

    Attributes:
        answer_start: Of text that a strategy releases as part of the run's answer, which is never taken back: its
            position in the answer. Its tokens are those of samples, and not counted again. None for a sample's text.
    """

    type: Literal["text.delta"] = "text.delta"
    request: int
    sample: int
    text: str
    tokens: int
    thought: str = ""
    answer_start: int | None = Field(default=None, exclude_if=lambda value: value is None)


class SampleFinished(Event):
    """A sample is complete; its parent is the call's start."""

    type: Literal["sample.finished"] = "sample.finished"
    request: int
    sample: int
    completion: Completion
    replayed: bool = False

    def _encode(self) -> bytes:
        return self._with("completion", self.completion)


class StepsScored(Event):
    """A reward model has scored steps; its parent is the call's start.

    Attributes:
        log_odds: Per solution the log-odds that each step is right, in nats; empty for one that could not be scored.
        replayed: Solutions whose scores the run store had.
    """

    type: Literal["steps.scored"] = "steps.scored"
    role: str
    model: str
    log_odds: tuple[tuple[float, ...], ...]
    replayed: int = 0


class BudgetCharged(Event):
    """The run was charged; totals are of the run so far."""

    type: Literal["budget.charged"] = "budget.charged"
    role: str
    model: str
    tokens: int
    calls: int
    total_tokens: int
    total_calls: int
    total_usd: float | None
    reward_calls: int = 0
    total_reward_calls: int = 0
    total_thinking_tokens: int = 0
    total_prompt_tokens: int = 0
    limits: dict[str, float] = Field(default_factory=dict)


class BudgetExhausted(Event):
    """A limit stopped the run; the best answer so far is its result."""

    type: Literal["budget.exhausted"] = "budget.exhausted"
    kind: str
    used: float
    limit: float


class CandidateAdded(Event):
    """A strategy has a complete attempt; `index` is its index among the solution's candidates."""

    type: Literal["candidate.added"] = "candidate.added"
    index: int
    answer: str | None
    score: float | None = None


class VoteUpdated(Event):
    """The votes so far.

    Attributes:
        votes: Votes by answer, in descending order.
        total: Candidates counted, those without an answer included.
    """

    type: Literal["vote.updated"] = "vote.updated"
    votes: dict[str, int]
    total: int


class NodesSearched(Event):
    """A search has added the results of a batch.

    Attributes:
        expanded: Nodes that were continued, in the order of their requests.
        nodes: Nodes that are new, or whose values changed; a repeated node replaces the former.
        discarded: Continuations that became no node: duplicates and empty ones.
    """

    type: Literal["search.nodes"] = "search.nodes"
    search: str
    expanded: tuple[int, ...] = ()
    nodes: tuple[SearchNode, ...] = ()
    discarded: int = 0


class LeafSelected(Event):
    """A tree search has selected a leaf to expand.

    Attributes:
        path: The nodes from the root to the leaf.
        attractions: The value by which each of them but the root was selected among its siblings.
    """

    type: Literal["search.selected"] = "search.selected"
    search: str
    path: tuple[int, ...]
    attractions: tuple[float, ...] = ()


class MemoryAssociated(Event):
    """Knowledge was associated with a node of a search.

    Attributes:
        query: The query of the knowledge sources; empty if there was none.
        snippets: Number of snippets that they returned.
        items: What was added to the memory.
        dropped: What was not, by reason: "empty", "too_long", "irrelevant", "duplicate", "unsupported".
    """

    type: Literal["memory.associated"] = "memory.associated"
    search: str
    node: int
    query: str = ""
    snippets: int = 0
    items: tuple[AssociatedItem, ...] = ()
    dropped: dict[str, int] = Field(default_factory=dict)


class SearchEnded(Event):
    """A search has ended.

    Attributes:
        chosen: The node whose solution it returns; None if there is none.
        stopped: Why it ended: "done", "exhausted", or the limit that it reached.
        cost: Tokens, passes of the reward source, expansions, …
    """

    type: Literal["search.ended"] = "search.ended"
    search: str
    chosen: int | None = None
    stopped: str = "done"
    cost: dict[str, int] = Field(default_factory=dict)


class StepRouted(Event):
    """The large model (role "main") or the small one has generated a step of a chain.

    Attributes:
        entropy: Entropy of the step's first token under the small model, in nats; None if it was not computed.
        kind: The distribution that the entropy is of.
        reason: Why this model was chosen.
        score: The large model's digit for a draft step, 0 to 9; None if it was not scored.
    """

    type: Literal["step.routed"] = "step.routed"
    index: int
    role: str
    model: str
    entropy: float | None = None
    threshold: float | None = None
    kind: str = ""
    tokens: int = 0
    reason: str = ""
    score: float | None = None


class StrategyNote(Event):
    """A detail of a strategy for the trace that has no event type of its own."""

    type: Literal["strategy.note"] = "strategy.note"
    strategy: str
    name: str
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Degraded(Event):
    """Something could not be done as the method says; `what` also states what was done instead."""

    type: Literal["run.degraded"] = "run.degraded"
    what: str


class SolutionFinished(Event):
    """The strategy has ended."""

    type: Literal["solution.finished"] = "solution.finished"
    solution: Solution


class EvidenceRetrieved(Event):
    """Evidence was retrieved.

    Attributes:
        claims: Claims that passages were retrieved for.
        passages: Passages retrieved for all of them.
        replayed: Claims that the run store had passages for.
    """

    type: Literal["evidence.retrieved"] = "evidence.retrieved"
    retriever: str
    claims: int
    passages: int
    replayed: int = 0
    seconds: float = 0.0


class ClaimChecked(Event):
    """A claim of the answer was verified.

    Attributes:
        index: Index of the claim in the answer, from 0.
        report: The complete record, as JSON of `verify.types.ClaimReport`.
    """

    type: Literal["claim.checked"] = "claim.checked"
    index: int
    report: dict[str, JsonValue]


class VerificationFinished(Event):
    """The verifiers have ended."""

    type: Literal["verification.finished"] = "verification.finished"
    verification: Verification


class ToolStarted(Event):
    """A tool call is being executed, or its result is taken from the run store.

    Attributes:
        call: ID of the call, the same in a resumed run.
        arguments: JSON of the arguments, as they may have been edited.
        effect: "read", "idempotent" or "write".
        turn: Index of the model turn.
        trajectory: Number of the trajectory that makes it, from 1; 0 in a run of one.
    """

    type: Literal["tool.started"] = "tool.started"
    call: str
    tool: str
    arguments: str
    effect: str
    turn: int
    trajectory: int = Field(default=0, exclude_if=lambda value: not value)


class ToolProgress(Event):
    """A line of progress of a tool call; its parent is the call's start. Not stored."""

    type: Literal["tool.progress"] = "tool.progress"
    call: str
    tool: str
    text: str


class ToolFinished(Event):
    """A tool call has a result; its parent is the call's start.

    Attributes:
        text: The result, as far as the model sees it.
        is_replayed: Whether the result of an earlier execution was taken from the run store.
        trajectory: As of `ToolStarted`.
    """

    type: Literal["tool.finished"] = "tool.finished"
    call: str
    tool: str
    text: str
    is_error: bool = False
    seconds: float = 0.0
    is_replayed: bool = Field(default=False, exclude_if=lambda value: not value)
    trajectory: int = Field(default=0, exclude_if=lambda value: not value)


class ToolChecked(Event):
    """A call that changes something was checked before its execution."""

    type: Literal["tool.checked"] = "tool.checked"
    call: str
    tool: str
    arguments: str
    write_check: WriteCheck


class ApprovalRequested(Event):
    """A tool call needs a decision.

    Attributes:
        question: "approval": whether it may be executed; "outcome": whether an interrupted call took effect.
    """

    type: Literal["approval.requested"] = "approval.requested"
    call: str
    tool: str
    arguments: str
    question: Literal["approval", "outcome"]


class ApprovalDecided(Event):
    """A decision about a tool call.

    Attributes:
        decision: "approve", "edit", "reject", "done" or "failed".
        by: Its origin: "terminal", "callback", "assume", …
    """

    type: Literal["approval.decided"] = "approval.decided"
    call: str
    tool: str
    decision: str
    by: str = ""


class RunWaiting(Event):
    """The run ends until decisions or results of tool calls are there; its answer follows."""

    type: Literal["run.waiting"] = "run.waiting"
    pending: tuple[PendingToolCall, ...]


class RunFailed(Event):
    """The run has ended with an error."""

    type: Literal["run.failed"] = "run.failed"
    code: str
    message: str


class RunFinished(Event):
    """The run has ended with an answer, complete or partial."""

    type: Literal["run.finished"] = "run.finished"
    answer: Answer

    def _encode(self) -> bytes:
        return self._with("answer", self.answer)


RUN_ENDS = (RunFinished, RunFailed)
"""The last events of runs."""


class EventsDropped(Event):
    """A reader was too slow and missed this many events; the run store has them."""

    type: Literal["events.dropped"] = "events.dropped"
    count: int


AnyEvent = Annotated[
    RunStarted
    | StageStarted
    | StageFinished
    | CallStarted
    | CallFinished
    | TextDelta
    | SampleFinished
    | StepsScored
    | BudgetCharged
    | BudgetExhausted
    | CandidateAdded
    | VoteUpdated
    | LeafSelected
    | MemoryAssociated
    | NodesSearched
    | SearchEnded
    | StepRouted
    | OpinionAdded
    | ReviewAdded
    | OpinionsRanked
    | OpinionsMerged
    | ClaimLabelled
    | JuryStageEnded
    | StrategyNote
    | Degraded
    | SolutionFinished
    | EvidenceRetrieved
    | ClaimChecked
    | VerificationFinished
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | ToolChecked
    | ApprovalRequested
    | ApprovalDecided
    | RunWaiting
    | RunFailed
    | RunFinished
    | EventsDropped,
    Field(discriminator="type"),
]
"""Any event, by its field `type`."""

EVENT_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent, config=ConfigDict(defer_build=True))
"""Validates the JSON of any event."""
EVENTS_ADAPTER: TypeAdapter[list[Any]] = TypeAdapter(list[AnyEvent], config=ConfigDict(defer_build=True))
"""Validates the JSON of a list of events."""

Sink = Callable[[Event], None]
"""Receives events as they are emitted; must be quick."""


log = logging.getLogger("reason.events")


class EventDispatcher:
    """Dispatches a run's events to its sinks.

    Each sink is called in the context (`contextvars`) of the code that created the dispatcher, whichever task or thread
    emits the event: a stream writer, a logger or a tracer finds there what it would find next to the question. A sink
    that raises is called no more, and its error is logged: a sink cannot break a run, nor lose what it has paid for.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._context = copy_context()

    def __call__(self, event: Event) -> None:
        """Dispatch an event."""
        if not self._sinks:
            return
        try:
            self._context.run(self._deliver, event)
        except RuntimeError:  # it is entered already: a sink has caused an event, or another thread emits one
            self._context.copy().run(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:
                log.exception("a sink failed at event %d of run %s and was removed", event.number, event.run_id)
                self._sinks = tuple(other for other in self._sinks if other is not sink)


class MemorySink:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def of_type(self, kind: str) -> list[Any]:
        """The events of one type, in order."""
        return [e for e in self.events if getattr(e, "type", None) == kind]


class JsonlSink:
    """Writes every event but text deltas to a file, one JSON object a line; a context manager.

    A file that cannot be written any more (a full disk) does not stop the run, whose events are in the store as well:
    the trace ends there, and leaving the context raises.

    Args:
        path: The file; replaced if it exists.

    Raises:
        StoreError: The file cannot be opened; on leaving the context, it could not be written completely.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as e:
            raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
        self._error: OSError | None = None

    def __call__(self, event: Event) -> None:
        """Write the event."""
        if isinstance(event, TextDelta) or self._error is not None:
            return
        try:
            self._file.write(event.encoded().decode() + "\n")
        except OSError as e:
            self._error = e

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as e:
            self._error = self._error or e
        if self._error is not None and error is None:
            raise StoreError(
                f"the trace {self._path} is incomplete: {self._error.strerror}",
                hint="`reason runs show RUN --trace FILE` writes it again from the run store",
            ) from self._error


class LiveSink:
    """Passes events to one asynchronous reader without ever blocking the run.

    When the reader falls `capacity` events behind, the oldest text delta is dropped, and if there is none, the oldest
    event; the reader receives the number of dropped events.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._queue: deque[Event] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._closed = False
        self._arrived = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Queue the event."""
        if len(self._queue) >= self._capacity:
            self._make_room()
        self._queue.append(event)
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after the queued events."""
        self._closed = True
        self._arrived.set()

    def _make_room(self) -> None:
        for i, queued in enumerate(self._queue):
            if isinstance(queued, TextDelta):
                del self._queue[i]
                break
        else:
            self._queue.popleft()
        self._dropped += 1

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events, in order, until `close`."""
        while True:
            while self._queue:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    yield EventsDropped(count=dropped)
                yield self._queue.popleft()
            if self._closed:
                return
            self._arrived = anyio.Event()
            await self._arrived.wait()
