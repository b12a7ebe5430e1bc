"""Everything that happens in a run, as typed events; `event_sinks` has what takes them.

The command line, server-sent events, traces, the viewer and the tests all read these. Events are numbered from 1 in
the order they were emitted; `parent` is the number of the event they belong under (a sample under its call, a call
under its stage), so that a trace is a tree.

`Event`: what every event of a run has.

What happens in a jury, as typed events: opinions, reviews, the ranking, the chair's answer, labels, costs.

Jurors are numbered from 0. A `report` is the whole record, as the class of `verify.edgejury.opinions` that is named
reads it: this layer does not know them.

What events tell of a search: its nodes, and the knowledge that came into it.

Who hears of events: `MemorySink`, `JsonlSink`, `LiveSink`; and `read_events`, which reads a written trace.
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
from pydantic import Field, JsonValue, TypeAdapter

from .errors import DataError, StoreError
from .messages import Completion, Frozen
from .types import Answer, Question, Solution, Verification

_set = object.__setattr__


class Event(Frozen):
    """What every event has.

    Attributes:
        number: Position in the run, from 1; 0 before it is emitted.
        parent: Number of the event this one belongs under; None at the root.
        run_id: The run.
        at_s: Seconds since the run began.
    """

    number: int = 0
    parent: int | None = None
    run_id: str = ""
    at_s: float = 0.0

    def stamped(self, *, number: int, parent: int | None, run_id: str, at_s: float) -> Self:
        """The event with its place in a run.

        It is what `model_copy` gives, at a quarter of the time: a run does little else as often.
        """
        kind = type(self)
        made = kind.__new__(kind)
        fields: dict[str, Any] = {**self.__dict__, "number": number, "parent": parent, "run_id": run_id, "at_s": at_s}
        _set(made, "__dict__", fields)
        _set(made, "__pydantic_fields_set__", self.__pydantic_fields_set__ | _PLACE)
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


_PLACE = frozenset({"number", "parent", "run_id", "at_s"})


Report = dict[str, JsonValue]


class OpinionGiven(Event):
    """A juror has answered, or failed to; `report` is its `Opinion`."""

    type: Literal["jury.opinion"] = "jury.opinion"
    juror: int
    report: Report


class ReviewGiven(Event):
    """A juror has reviewed the others' opinions, or failed to; `report` is its `Review`."""

    type: Literal["jury.review"] = "jury.review"
    reviewer: int
    report: Report


class OpinionsRanked(Event):
    """The opinions are in order; `report` is the `Ranking`."""

    type: Literal["jury.ranked"] = "jury.ranked"
    report: Report


class OpinionsMerged(Event):
    """One answer was made of the opinions, by the chair or in its place; `report` is the `Synthesis`."""

    type: Literal["jury.merged"] = "jury.merged"
    report: Report


class ClaimLabelled(Event):
    """How far the jurors agree on a claim of the answer is known. Agreed is not verified.

    Attributes:
        index: Which one, in order of the answer, from 0.
        report: Its `ClaimLabel`.
    """

    type: Literal["jury.claim"] = "jury.claim"
    index: int
    report: Report


class JuryStageEnded(Event):
    """A stage of a jury has ended.

    Attributes:
        stage: "answer", "review", "chair" or "agreement".
        asked: How many were asked something.
        replied: How many replied in time with something, whether that could be read or not.
        report: What it cost, a `StageCost`.
    """

    type: Literal["jury.stage"] = "jury.stage"
    stage: str
    asked: int
    replied: int
    report: Report


JuryEvent = OpinionGiven | ReviewGiven | OpinionsRanked | OpinionsMerged | ClaimLabelled | JuryStageEnded
"""Any of them."""


class SearchNode(Frozen):
    """A node of a search tree: the beginning of a solution, of which it holds the last step.

    Attributes:
        id: Its number within the search, from 0.
        parent: The node that it continues; None for a root.
        depth: Steps up to here; 0 for a root.
        text: The last step; empty for a root.
        tokens: Tokens generated for this step.
        score: What the reward source says of the solution up to here, in [0, 1]; None if it says nothing.
        terminal: Whether the solution is complete.
        forced: Whether the step is a final answer asked for since steps or budget had run out.
        values: What the search orders its nodes by, under the names of its method.
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
    """A piece of knowledge that came into a search.

    Attributes:
        text: The knowledge.
        source_id: Where it comes from; empty for the model's own.
        source_kind: "self", or the kind of what was asked: "folder", "http", "memory", …
        score: How relevant it is.
    """

    text: str
    source_id: str = ""
    source_kind: str = "self"
    score: float = 0.0


class RunStarted(Event):
    """A run begins, or goes on after an interruption."""

    type: Literal["run.started"] = "run.started"
    question: Question
    strategy: str
    models: dict[str, str]
    seed: int
    resumed: bool = False


class StageStarted(Event):
    """A stage of the pipeline begins, or one of a strategy that has stages."""

    type: Literal["stage.started"] = "stage.started"
    stage: str


class StageFinished(Event):
    """A stage ended; its parent is the stage's start."""

    type: Literal["stage.finished"] = "stage.finished"
    stage: str
    seconds: float


class CallStarted(Event):
    """A model is called.

    Attributes:
        operation: "generate", "score", "next_token", "relevance", "reward" or "embed".
        samples: Samples wanted over all requests of the call.
        replayed: Samples that the run store already has.
    """

    type: Literal["call.started"] = "call.started"
    role: str
    model: str
    operation: str
    requests: int
    samples: int
    replayed: int
    max_tokens: int = 0


class CallFinished(Event):
    """A model call ended; its parent is the call's start.

    Attributes:
        tokens: Generated tokens.
        prompt_tokens: Tokens of the prompts.
        cached_tokens: Those of them whose keys and values were reused.
        failed: Samples that failed.
    """

    type: Literal["call.finished"] = "call.finished"
    role: str
    model: str
    seconds: float
    tokens: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failed: int = 0


class TextDelta(Event):
    """New text of a sample that is being generated. Emitted only to those who listen; not stored."""

    type: Literal["text.delta"] = "text.delta"
    request: int
    sample: int
    text: str
    tokens: int
    reasoning: str = ""


class SampleFinished(Event):
    """A sample is complete; its parent is the call's start."""

    type: Literal["sample.finished"] = "sample.finished"
    request: int
    sample: int
    completion: Completion
    replayed: bool = False


class StepsScored(Event):
    """A reward model has scored steps; its parent is the call's start.

    Attributes:
        log_odds: Per solution the log-odds that each step is right, in nats; empty for one that could not be scored.
        replayed: Solutions that the run store had scored.
    """

    type: Literal["steps.scored"] = "steps.scored"
    role: str
    model: str
    log_odds: tuple[tuple[float, ...], ...]
    replayed: int = 0


class BudgetCharged(Event):
    """What the run has spent so far."""

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
    limits: dict[str, float] = Field(default_factory=dict)


class BudgetExhausted(Event):
    """A limit stopped the run; the best answer so far stands."""

    type: Literal["budget.exhausted"] = "budget.exhausted"
    kind: str
    used: float
    limit: float


class CandidateAdded(Event):
    """A strategy has a complete attempt; `index` is its place among the solution's candidates."""

    type: Literal["candidate.found"] = "candidate.found"
    index: int
    answer: str | None
    score: float | None = None


class VoteUpdated(Event):
    """The votes so far.

    Attributes:
        votes: Votes by answer, most first.
        total: Candidates counted, those without an answer included.
    """

    type: Literal["vote.updated"] = "vote.updated"
    votes: dict[str, int]
    total: int


class NodesSearched(Event):
    """A search has taken in what it had asked for.

    Attributes:
        search: Name of the search's method.
        expanded: Nodes that were continued, in the order in which they were asked for.
        nodes: Nodes that are new, or whose values changed; a node told again replaces the former.
        discarded: Continuations that became no node: duplicates and empty ones.
    """

    type: Literal["search.nodes"] = "search.nodes"
    search: str
    expanded: tuple[int, ...] = ()
    nodes: tuple[SearchNode, ...] = ()
    discarded: int = 0


class LeafSelected(Event):
    """A tree search has chosen a leaf to expand.

    Attributes:
        search: Name of the search's method.
        path: The nodes from the root to the leaf.
        attractions: What each of them but the root was chosen by, among its siblings.
    """

    type: Literal["search.selected"] = "search.selected"
    search: str
    path: tuple[int, ...]
    attractions: tuple[float, ...] = ()


class MemoryAssociated(Event):
    """Knowledge was associated with a node of a search.

    Attributes:
        search: Name of the search's method.
        node: The node.
        query: The query to the knowledge sources; empty if there was none.
        snippets: Pieces that they found.
        items: What was remembered.
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
        search: Name of the search's method.
        chosen: The node whose solution it returns; None if there is none.
        stopped: Why it ended: "done", "exhausted", or the limit that it met.
        cost: What it has cost: tokens, passes of the reward source, expansions, …
    """

    type: Literal["search.ended"] = "search.ended"
    search: str
    chosen: int | None = None
    stopped: str = "done"
    cost: dict[str, int] = Field(default_factory=dict)


class StepRouted(Event):
    """The large model (role "main") or the small one has written step `index` of a chain, from 0; `why` decided that.

    `entropy` is of the step's first token in the small model's eyes, in nats, over what `kind` says; `score` is the
    large model's digit for a draft, 0 to 9. Each is None where nobody looked.
    """

    type: Literal["step.routed"] = "step.routed"
    index: int
    role: str
    model: str
    entropy: float | None = None
    threshold: float | None = None
    kind: str = ""
    tokens: int = 0
    why: str = ""
    score: float | None = None


class StrategyNote(Event):
    """Something a strategy wants in the trace that has no event of its own."""

    type: Literal["strategy.note"] = "strategy.note"
    strategy: str
    name: str
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Degraded(Event):
    """Something could not be done as the method says; `what` tells what was done instead."""

    type: Literal["run.degraded"] = "run.degraded"
    what: str


class SolutionFinished(Event):
    """The strategy has ended."""

    type: Literal["solution.found"] = "solution.found"
    solution: Solution


class EvidenceRetrieved(Event):
    """Evidence was looked for.

    Attributes:
        retriever: Name of what was searched.
        claims: Claims that passages were looked for.
        passages: Passages found for all of them.
        replayed: Claims that the run store had an answer to.
        seconds: How long it took.
    """

    type: Literal["passages.found"] = "passages.found"
    retriever: str
    claims: int
    passages: int
    replayed: int = 0
    seconds: float = 0.0


class ClaimChecked(Event):
    """A claim of the answer was verified.

    Attributes:
        index: Which one, in order of the answer, from 0.
        report: The whole record, as `verify.reports.ClaimReport` reads it.
    """

    type: Literal["claim.checked"] = "claim.checked"
    index: int
    report: dict[str, JsonValue]


class VerificationFinished(Event):
    """The verifiers have ended."""

    type: Literal["verification.finished"] = "verification.finished"
    verification: Verification


class RunFailed(Event):
    """The run ended with an error."""

    type: Literal["run.failed"] = "run.failed"
    code: str
    message: str


class RunFinished(Event):
    """The run ended with an answer, whole or partial."""

    type: Literal["run.finished"] = "run.finished"
    answer: Answer


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
    | OpinionGiven
    | ReviewGiven
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
    | RunFailed
    | RunFinished
    | EventsDropped,
    Field(discriminator="type"),
]
"""Any event; the field `type` tells which."""

EVENT_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent)
"""Reads and checks the JSON form of any event."""

Sink = Callable[[Event], None]
"""Takes events as they are emitted; must be quick."""


log = logging.getLogger("reason.events")


class EventDispatcher:
    """The sinks of a run, which it tells of each event.

    Each hears in the context (`contextvars`) of whoever asked, whichever task or thread has the news: what a stream
    writer, a logger or a tracer looks up there is what it would find beside the question. One that raises hears no
    more, and its error is logged: listening cannot break a run, nor lose what it has paid for.

    Args:
        sinks: Who listens.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._context = copy_context()

    def __call__(self, event: Event) -> None:
        """Tell them."""
        for sink in self._sinks:
            try:
                self._context.copy().run(sink, event)  # a copy: a sink may be told of one event while it hears another
            except Exception:
                log.exception("a listener failed at event %d of run %s and hears no more", event.number, event.run_id)
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

    A file that cannot be written any more (a full disk) does not stop the run, which has its events in the store as
    well: the trace ends there, and leaving the context tells so.

    Args:
        path: The file; replaced if it exists.

    Raises:
        StoreError: The file cannot be opened; on leaving the context, it could not be written to its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as e:
            raise StoreError(f"cannot write the trace to {path}: {e.strerror}", hint="choose another --trace") from e
        self._broken: OSError | None = None

    def __call__(self, event: Event) -> None:
        """Write the event."""
        if isinstance(event, TextDelta) or self._broken is not None:
            return
        try:
            self._file.write(event.model_dump_json() + "\n")
        except OSError as e:
            self._broken = e

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as e:
            self._broken = self._broken or e
        if self._broken is not None and error is None:
            raise StoreError(
                f"the trace {self._path} is incomplete: {self._broken.strerror}",
                hint="`reason runs show RUN --trace FILE` writes it again from the run store",
            ) from self._broken


class LiveSink:
    """Hands events to one asynchronous reader without ever holding up the run.

    When the reader falls `capacity` events behind, the oldest text delta gives way, and if there is none, the oldest
    event; the reader is told how many it missed.

    Args:
        capacity: Most events waiting.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._waiting: deque[Event] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._closed = False
        self._news = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Queue the event."""
        if len(self._waiting) >= self._capacity:
            self._make_room()
        self._waiting.append(event)
        self._news.set()

    def close(self) -> None:
        """End the iteration once the waiting events are read."""
        self._closed = True
        self._news.set()

    def _make_room(self) -> None:
        for i, waiting in enumerate(self._waiting):
            if isinstance(waiting, TextDelta):
                del self._waiting[i]
                break
        else:
            self._waiting.popleft()
        self._dropped += 1

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events, in order, until `close`."""
        while True:
            while self._waiting:
                if self._dropped:
                    missed, self._dropped = self._dropped, 0
                    yield EventsDropped(count=missed)
                yield self._waiting.popleft()
            if self._closed:
                return
            self._news = anyio.Event()
            await self._news.wait()


def read_events(path: Path) -> list[Event]:
    """Read a trace that `JsonlSink` wrote.

    Raises:
        DataError: The file is missing or a line is not an event; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot read the trace {path}: {e}") from e
    events: list[Event] = []
    for n, line in enumerate(lines, 1):
        try:
            events.append(EVENT_ADAPTER.validate_json(line))
        except ValueError as e:
            raise DataError(f"{path}:{n}: not an event", hint="the file may be cut short") from e
    return events
