"""`Run`: one question being answered. It is passed down explicitly; nothing in `reason` is global."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, NamedTuple, Protocol, cast

from pydantic import Field, JsonValue, ValidationError

from .budget import Budget, Ledger, LimitKind
from .calibration import CalibrationMap
from .errors import BudgetExceeded, DataError, ReasonError
from .events import (
    BudgetExhausted,
    CallFinished,
    Degraded,
    Event,
    EventDispatcher,
    RunFailed,
    RunFinished,
    RunStarted,
    Sink,
    StageFinished,
    StageStarted,
    TextDelta,
    ToolProgress,
)
from .messages import (
    TOOL_CHOICE_AUTO,
    ApprovalMode,
    Completion,
    Effect,
    Effort,
    EncodedOnce,
    Failure,
    Frozen,
    Prompt,
)
from .settings import LocalSettings
from .store.records import NewCall, RunRecord, StoredCall
from .store.run_writer import RunWriter
from .store.sql import RunStore
from .types import Question, Solution

MAX_UNSAVED_EVENTS = 100_000
"""More events than a run emits between two saves."""


class ToolFilter(Frozen):
    """Matches tools by name, and by whether they only read; None matches all."""

    tool_names: tuple[str, ...] | None = None
    read_only: bool | None = None

    def matches(self, name: str, effect: Effect) -> bool:
        """Whether it matches a tool."""
        has_name = self.tool_names is None or name in self.tool_names
        return has_name and self.read_only in (None, effect == "read")


class ToolRule(Frozen):
    """What a request makes of the tools of one description.

    Attributes:
        allow: The tools that the run may call.
        ask: Those whose calls need an approval, whatever the run's mode is; None is none.
        skip: If set, calls of all that it does not match need one too.
    """

    allow: ToolFilter = ToolFilter()
    ask: ToolFilter | None = None
    skip: ToolFilter | None = None

    def asks(self, name: str, effect: Effect) -> bool:
        """Whether calls of a tool need an approval, whatever the run's mode is."""
        is_skipped = self.skip is None or self.skip.matches(name, effect)
        return not is_skipped or (self.ask is not None and self.ask.matches(name, effect))


class RunConfig(EncodedOnce):
    """Everything that is decided before a run begins. Stored with it, so that it can be resumed or replayed.

    Attributes:
        parameters: The strategy's parameters, complete.
        models: Model string by role ("main", "small", "judge", "reward", "juror-1", "juror-2", …).
        verify_parameters: The parameters of each verifier, complete.
        evidence: Where verifiers retrieve evidence: files, directories and saved indexes.
        repairs: How often an answer that did not pass goes back to the strategy.
        require_verified: Whether an answer that is not verified is an error.
        local: Settings of the embedded engine: its number format affects what a seed yields.
        reuse: Which stored calls may answer a call: "run" those of this run, "store" those of any run with the same
            model, request, seed and index, "none" none.
        calibration: The map that calibrates the answer's confidence, complete: its file may change.
        context: Descriptions of the knowledge sources.
        memory: Name of the memory that is recalled, and that `coat` extends; empty is none.
        tenant: The tenant that owns the run on a server: responses and prefix caches are shared within one tenant.
        effort: How much models that think do so before they answer; None is each model's default.
        adaptive_thinking: Whether models that think only if they are asked to are asked.
        thinking_tokens: Maximum tokens of each thought; None is the effort's.
        sample_tokens: Maximum tokens of each attempt at the question, its thought included; None is no limit.
        tools: The tools that the run executes: the names of tools, and descriptions as of `--tool`.
        approve: Which of their calls need an approval; None refuses tools that change something.
        check_writes: Policy by which calls that change something are checked; empty checks only that the user asked for
            them, None nothing.
        tool_rules: By descriptions of `tools`, which of their tools may be called, and which need an approval besides.
        conversation: Name of the conversation that the question belongs to; empty is none.
        parent: The conversation's run before this one; empty for the first.
        conversation_budget: Limits of all runs of the conversation together.
        client_loop: Digest of what the requests of a client that executes the question's tools itself have in common
            in one run: it waits for the results of their calls, with which an equal request continues it. Empty for a
            run that ends with its first turn.
        trajectories: Number of loops that a run with tools is made by, of which one is chosen.
        select: The rule that chooses; empty is the default of the run's tools.
        one_call: Whether a turn has one call at most: the first of those that the model makes.
    """

    question: Question
    strategy: str
    parameters: dict[str, JsonValue]
    models: dict[str, str]
    verify: tuple[str, ...] = ()
    require_verified: bool = False
    verify_parameters: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    repairs: int = 0
    budget: Budget = Budget()
    local: LocalSettings = LocalSettings()
    seed: int
    reuse: str = "run"
    calibration: CalibrationMap | None = None
    context: tuple[str, ...] = ()
    memory: str = ""
    tenant: str = Field(default="", exclude_if=lambda value: not value)
    # unset fields are in no dump: digests of configurations without them do not depend on them
    effort: Effort | None = Field(default=None, exclude_if=lambda value: value is None)
    adaptive_thinking: bool = Field(default=False, exclude_if=lambda value: not value)
    thinking_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    sample_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    tools: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    approve: ApprovalMode | None = Field(default=None, exclude_if=lambda value: value is None)
    check_writes: str | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_rules: dict[str, ToolRule] = Field(default_factory=dict, exclude_if=lambda value: not value)
    conversation: str = Field(default="", exclude_if=lambda value: not value)
    parent: str = Field(default="", exclude_if=lambda value: not value)
    conversation_budget: Budget | None = Field(default=None, exclude_if=lambda value: value is None)
    client_loop: str = Field(default="", exclude_if=lambda value: not value)
    trajectories: int = Field(default=1, exclude_if=lambda value: value == 1)
    select: str = Field(default="", exclude_if=lambda value: not value)
    one_call: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def may_be_repaired(self) -> bool:
        """Whether what the strategy has written may be replaced or refused after its verification."""
        return bool(self.verify) and (self.repairs > 0 or self.require_verified)

    def for_client_loop(self, thread: str = "") -> RunConfig:
        """This configuration with `client_loop`: of all but the messages after the question, forced calls and the seed.

        A forced call is forced once, and a request without a seed has a new one.

        Args:
            thread: What equal questions must have in common besides.
        """
        common = {"continuation": (), "tool_choice": TOOL_CHOICE_AUTO}
        question = self.question.with_references.model_copy(update=common)
        digest = hashlib.sha256(self.model_copy(update={"question": question, "seed": 0}).encoded())
        digest.update(thread.encode())
        return self.model_copy(update={"client_loop": digest.hexdigest()})


class ErrorFilter(Protocol):
    """Decides what a run gets to know of the errors of models, before strategies, events and the store do."""

    def error(self, error: ReasonError, role: str) -> ReasonError:
        """The error that a call in this role raises."""

    def failure(self, failure: Failure, role: str) -> Failure:
        """The failure of a sample of a call in this role."""


class Run:
    """One question being answered: frozen configuration, ledger, seeded generator, event sinks and store.

    Args:
        store: Where its calls and events are stored.
        sinks: Receive its events, in the context of the code that creates the run (see `EventDispatcher`).
        previous_events: The stored events of an interrupted run that is resumed; empty for a new run.
        has_started: Whether it has started before, even if none of its events was stored when its process was killed.
        stream_text: Whether a sink wants text deltas.
        recording: Whether the run is written to the store; a replay is not.
        is_new: Whether the store has no calls of it yet.
        conclusion: Of a run that is replayed, when the user wanted its answer: it stops at the same call. That of a
            resumed run is read in `previous_events`.

    Attributes:
        attachments: The question's attachments with their contents, by digest.
        answer_now: Set when the user wants the answer now (`conclude`): samples in flight are cut, no call begins.
        conclusion: When that happened before; None in a run that is no repetition of such a one.
        finished_calls: Calls that have ended, answered by the store or not.
        partial_completions: Samples that were cut by the budget, by the user, or while the model thought, with their
            prompts.
        degraded: What could not be done as the method says.
        stream_text: Whether a sink wants text deltas; may change while it runs.
        resumed: Whether it has started before.
        last_stored_event: Number of the last event stored before it was resumed; 0 for a new run.
        writer: Writes it to the store.
        requeue: Whether a cancelled run becomes "queued", for another process to continue, instead of ending.
        error_filter: A server's, whose callers must not see the texts of a model's side; None changes nothing.
    """

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        store: RunStore,
        *,
        sinks: Sequence[Sink] = (),
        previous_events: Sequence[Event] = (),
        has_started: bool = False,
        stream_text: bool = False,
        recording: bool = True,
        is_new: bool = False,
        conclusion: Conclusion | None = None,
    ) -> None:
        self.id = run_id
        self.config = config
        self.store = store
        self.ledger = Ledger(config.budget)
        self._best: Callable[[], Solution | None] = lambda: None
        self.effort: Effort | None = config.effort
        self.answer_now = asyncio.Event()
        self.conclusion = conclusion or find_conclusion(previous_events)
        self.finished_calls = 0
        self._on_conclude: set[Callable[[], object]] = set()
        self.partial_completions: list[tuple[Prompt, Completion]] = []
        self.degraded: list[str] = []
        self._spent_limits: set[str] = set()
        self.stream_text = stream_text
        self.requeue = False
        self.error_filter: ErrorFilter | None = None
        self.recording = recording
        self.writer = RunWriter(store, run_id, is_recording=recording)
        self._is_new = is_new
        self._seen_keys: set[str] = set()
        self._dispatch = EventDispatcher(sinks)
        self.last_stored_event = previous_events[-1].number if previous_events else 0
        self._next_event = self.last_stored_event + 1
        self.resumed = has_started or bool(previous_events)
        if self.resumed and not (previous_events and isinstance(previous_events[-1], RunFinished | RunFailed)):
            # killed: readers may have seen events that were not stored yet, and no number is used twice
            self._next_event += MAX_UNSAVED_EVENTS
        self._parent: int | None = None
        self._question = config.question.with_references
        self.attachments = {a.sha256: a for a in config.question.all_attachments}

    @property
    def question(self) -> Question:
        """The question, without the contents of its attachments."""
        return self._question

    @cached_property
    def rng(self) -> random.Random:
        """Generator seeded by the run's seed, for the strategy's own choices."""
        return random.Random(self.config.seed)  # noqa: S311 (reproducible choices, not secrets)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    def derive_seed(self, *names: str | int) -> int:
        """A seed for one purpose, in [0, 2^31), which every backend takes: a function of seed and names."""
        text = "\x1f".join(str(n) for n in (self.config.seed, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF

    def emit(self, event: Event, parent: int | None = None) -> int:
        """Number an event, under `parent` or the current `event_scope`, and dispatch it; returns the number."""
        number = self._next_event
        self._next_event += 1
        stamped = event.stamped(
            number=number,
            parent=self._parent if parent is None else parent,
            run_id=self.id,
            at_s=self.ledger.elapsed_s,
        )
        self.finished_calls += isinstance(event, CallFinished)
        if not isinstance(event, TextDelta | ToolProgress):
            self.writer.add_event(stamped)
        self._dispatch(stamped)
        return number

    @contextmanager
    def event_scope(self, number: int) -> Iterator[None]:
        """Make an event the parent of those emitted inside, unless they name another."""
        outer, self._parent = self._parent, number
        try:
            yield
        finally:
            self._parent = outer

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Make what is emitted inside a stage of the trace, however it ends."""
        began_s = self.ledger.elapsed_s
        number = self.emit(StageStarted(stage=name))
        try:
            with self.event_scope(number):
                yield
        finally:
            self.emit(StageFinished(stage=name, seconds=max(0.0, self.ledger.elapsed_s - began_s)), parent=number)

    async def lookup_calls(self, keys: Sequence[str]) -> dict[str, StoredCall]:
        """The stored calls that may answer this run, by their keys (see `RunConfig.reuse`)."""
        reuse = self.config.reuse
        if reuse == "none":
            return {}
        if reuse == "run" and self._is_new:
            # a call is looked up before it is stored: the store cannot have a key that is looked up for the first time
            is_known = bool(self._seen_keys.intersection(keys))
            self._seen_keys.update(keys)
            if not is_known:
                return {}
        calls = await self.find_calls(keys, any_run=reuse == "store")
        if reuse == "store" and self.recording:
            self.writer.add_copies(list(calls.values()))
        return calls

    async def find_calls(self, keys: Sequence[str], *, any_run: bool = False) -> dict[str, StoredCall]:
        """The stored calls of this run among `keys`, and with `any_run` those of all others of its tenant."""
        if self.writer.has_pending_calls or (any_run and not self.writer.is_created):
            await self.writer.flush()
        return await self.store.find_calls(self.id, keys, any_run=any_run)

    async def save_calls(self, calls: Sequence[NewCall]) -> None:
        """Write calls to the store."""
        self.writer.add_calls(calls)
        await self.writer.flush()

    async def save(self) -> None:
        """Write everything so far to the store, unless that is done in time anyway (`RunWriter.saving`)."""
        await self.writer.save()

    @property
    def best(self) -> Solution | None:
        """The best answer so far, which is the result if the run is stopped."""
        return self._best()

    def set_best(self, solution: Solution | Callable[[], Solution | None]) -> None:
        """Set the best answer so far, or a function that returns it when the run is stopped, as its result."""
        self._best = (lambda: solution) if isinstance(solution, Solution) else solution

    def conclude(self) -> None:
        """End the run with an answer now: from what it has, in one short call at most. Idempotent.

        Call it on the run's event loop.
        """
        if self.answer_now.is_set():
            return
        self.ledger.is_closed = True
        self.answer_now.set()
        closed = self.ledger.exceeded("user")
        self.emit(BudgetExhausted(kind=closed.kind, used=closed.used, limit=closed.limit))
        for callback in tuple(self._on_conclude):
            callback()

    @contextmanager
    def on_conclude(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call a function if the user wants the answer while the block runs; at once if that was before."""
        if self.answer_now.is_set():
            callback()
        self._on_conclude.add(callback)
        try:
            yield
        finally:
            self._on_conclude.discard(callback)

    def shown_error(self, error: ReasonError, role: str) -> ReasonError:
        """The error of a call as strategies, events and the store get it (see `ErrorFilter`)."""
        return error if self.error_filter is None else self.error_filter.error(error, role)

    def shown_failure(self, failure: Failure, role: str) -> Failure:
        """The failure of a sample as strategies, events and the store get it (see `ErrorFilter`)."""
        return failure if self.error_filter is None else self.error_filter.failure(failure, role)

    def require_open(self) -> None:
        """Refuse a call whose response is not stored, if the user wants the answer now, or wanted it before this call.

        Raises:
            BudgetExceeded: The user does.
        """
        if self.conclusion is not None and self.finished_calls >= self.conclusion.calls:
            self.conclude()
        if self.ledger.is_closed:
            raise self.ledger.exceeded("user")

    def degrade(self, what: str) -> None:
        """Record, in trace and answer, what could not be done as the method says and what was done instead."""
        if what not in self.degraded:
            self.degraded.append(what)
            self.emit(Degraded(what=what))

    def record_limit(self, error: BudgetExceeded) -> None:
        """Record a spent budget in the trace, each limit once."""
        if error.kind == "user" or error.kind in self._spent_limits:  # `conclude` records the user's wish
            return
        self._spent_limits.add(error.kind)
        if self.ledger.exhausted is None:  # in a replay, the models' stubs raise the error
            self.ledger.exhausted = cast(LimitKind, error.kind)
        self.emit(BudgetExhausted(kind=error.kind, used=error.used, limit=error.limit))


class Conclusion(NamedTuple):
    """When the user wanted the answer of a stored run.

    Attributes:
        calls: Calls that were finished before; of these, one whose response is not stored has failed.
    """

    stage: str
    calls: int


def find_conclusion(events: Sequence[Event]) -> Conclusion | None:
    """When the user wanted the answer of a stored run, by its events; None if they did not."""
    open_stages: dict[int, str] = {}  # the outermost, which is the pipeline's, first
    last, calls = "route", 0
    for event in events:
        if isinstance(event, RunStarted):
            open_stages.clear()
            calls = 0
        elif isinstance(event, StageStarted):
            last = last if open_stages else event.stage
            open_stages[event.number] = event.stage
        elif isinstance(event, StageFinished):
            open_stages.pop(event.parent or 0, None)
        elif isinstance(event, CallFinished):
            calls += 1
        elif isinstance(event, BudgetExhausted) and event.kind == "user":
            return Conclusion(next(iter(open_stages.values()), last), calls)
    return None


def new_run_id() -> str:
    """A run's name that sorts by time and can be typed: `20261124-163512-9f3a1c`."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{_random.getrandbits(24):06x}"


def new_seed() -> int:
    """A random seed in [0, 2^31)."""
    return _random.getrandbits(31)


_random = random.Random()  # noqa: S311 (names and seeds, not secrets: the system's generator may be slow)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def read_config(record: RunRecord) -> RunConfig:
    """The configuration of a stored run.

    Raises:
        DataError: It was written by another version of `reason` and cannot be read.
    """
    try:
        return RunConfig.model_validate(record.config)
    except ValidationError as e:
        raise DataError(f"run {record.id} was made by another version of reason", hint="ask the question again") from e
