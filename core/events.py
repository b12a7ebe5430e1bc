"""Everything that happens in a run, as typed events; `event_sinks` has what takes them.

The command line, server-sent events, traces, the viewer and the tests all read these. Events are numbered from 1 in
the order they were emitted; `parent` is the number of the event they belong under (a sample under its call, a call
under its stage), so that a trace is a tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter

from .answer import Answer, Solution, Verification
from .event_fields import EventFields as EventFields
from .jury_events import (
    ClaimLabelled,
    JuryStageEnded,
    OpinionGiven,
    OpinionsMerged,
    OpinionsRanked,
    ReviewGiven,
)
from .messages import Completion
from .question import Question
from .search_nodes import AssociatedItem as AssociatedItem
from .search_nodes import SearchNode as SearchNode


class RunStarted(EventFields):
    """A run begins, or goes on after an interruption."""

    type: Literal["run.started"] = "run.started"
    question: Question
    strategy: str
    models: dict[str, str]
    seed: int
    resumed: bool = False


class StageStarted(EventFields):
    """A stage of the pipeline begins, or one of a strategy that has stages."""

    type: Literal["stage.started"] = "stage.started"
    stage: str


class StageFinished(EventFields):
    """A stage ended; its parent is the stage's start."""

    type: Literal["stage.finished"] = "stage.finished"
    stage: str
    seconds: float


class CallStarted(EventFields):
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


class CallFinished(EventFields):
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


class TextDelta(EventFields):
    """New text of a sample that is being generated. Emitted only to those who listen; not stored."""

    type: Literal["text.delta"] = "text.delta"
    request: int
    sample: int
    text: str
    tokens: int
    reasoning: str = ""


class SampleFinished(EventFields):
    """A sample is complete; its parent is the call's start."""

    type: Literal["sample.finished"] = "sample.finished"
    request: int
    sample: int
    completion: Completion
    replayed: bool = False


class StepsScored(EventFields):
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


class BudgetCharged(EventFields):
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


class BudgetExhausted(EventFields):
    """A limit stopped the run; the best answer so far stands."""

    type: Literal["budget.exhausted"] = "budget.exhausted"
    kind: str
    used: float
    limit: float


class CandidateFound(EventFields):
    """A strategy has a complete attempt; `index` is its place among the solution's candidates."""

    type: Literal["candidate.found"] = "candidate.found"
    index: int
    answer: str | None
    score: float | None = None


class VoteUpdated(EventFields):
    """The votes so far.

    Attributes:
        votes: Votes by answer, most first.
        total: Candidates counted, those without an answer included.
    """

    type: Literal["vote.updated"] = "vote.updated"
    votes: dict[str, int]
    total: int


class NodesSearched(EventFields):
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


class LeafSelected(EventFields):
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


class MemoryAssociated(EventFields):
    """Knowledge was associated with a node of a search.

    Attributes:
        search: Name of the search's method.
        node: The node.
        query: What the external brains were asked; empty if none were.
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


class SearchEnded(EventFields):
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


class StepRouted(EventFields):
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


class StrategyNote(EventFields):
    """Something a strategy wants in the trace that has no event of its own."""

    type: Literal["strategy.note"] = "strategy.note"
    strategy: str
    name: str
    data: dict[str, JsonValue] = Field(default_factory=dict)


class Degraded(EventFields):
    """Something could not be done as the method says; `what` tells what was done instead."""

    type: Literal["run.degraded"] = "run.degraded"
    what: str


class SolutionFound(EventFields):
    """The strategy has ended."""

    type: Literal["solution.found"] = "solution.found"
    solution: Solution


class PassagesFound(EventFields):
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


class ClaimChecked(EventFields):
    """A claim of the answer was verified.

    Attributes:
        index: Which one, in order of the answer, from 0.
        report: The whole record, as `verify.reports.ClaimReport` reads it.
    """

    type: Literal["claim.checked"] = "claim.checked"
    index: int
    report: dict[str, JsonValue]


class Verified(EventFields):
    """The verifiers have ended."""

    type: Literal["verification.finished"] = "verification.finished"
    verification: Verification


class RunFailed(EventFields):
    """The run ended with an error."""

    type: Literal["run.failed"] = "run.failed"
    code: str
    message: str


class RunFinished(EventFields):
    """The run ended with an answer, whole or partial."""

    type: Literal["run.finished"] = "run.finished"
    answer: Answer


class EventsDropped(EventFields):
    """A reader was too slow and missed this many events; the run store has them."""

    type: Literal["events.dropped"] = "events.dropped"
    count: int


Event = Annotated[
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
    | CandidateFound
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
    | SolutionFound
    | PassagesFound
    | ClaimChecked
    | Verified
    | RunFailed
    | RunFinished
    | EventsDropped,
    Field(discriminator="type"),
]
"""Any event; the field `type` tells which."""

EVENT: TypeAdapter[Any] = TypeAdapter(Event)
"""Reads and checks the JSON form of any event."""

Sink = Callable[[EventFields], None]
"""Takes events as they are emitted; must be quick."""
