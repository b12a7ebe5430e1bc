"""`Run`: one question being answered. It is passed down explicitly; nothing in `reason` is global."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import Field, JsonValue

from .answer import Solution
from .budget import Budget, Ledger
from .calibration import CalibrationMap
from .errors import LimitExceeded
from .event_sinks import Audience
from .events import BudgetExhausted, Degraded, EventFields, RunFailed, RunFinished, RunStarted, Sink, TextDelta
from .messages import Completion, Frozen
from .question import Question
from .settings import LocalSettings
from .store import RunStore, StoredCall

UNSAVED_EVENTS = 100_000
"""More events than a run emits between two times that they are saved."""


class RunConfig(Frozen):
    """Everything that was decided before the run began. Stored with it, so that it can go on or be shown again.

    Attributes:
        question: What is asked.
        strategy: Name of the strategy.
        parameters: The strategy's parameters, complete.
        models: Model string by role ("main", "small", "judge", "reward", "chair", "juror-1", "juror-2", …).
        verify: Names of the verifiers.
        verify_parameters: The parameters of each, complete.
        evidence: Where they look for evidence: files, folders and saved indexes.
        repairs: How often an answer that did not pass goes back to the strategy.
        require_verified: Whether an answer that is not verified is an error.
        budget: The limits.
        local: How the embedded engine was set up: its number format decides what a seed gives.
        seed: The seed from which every random choice follows.
        reuse: Which stored samples may answer a call: "run" only those of this run, "store" those of any run with the
            same model, request, seed and index, "none" no sample is looked up.
        calibration: The map that calibrates the answer's confidence, whole: its file may change or go.
        context: What is asked for knowledge, by the words that open it.
        memory: Name of the memory that is recalled, and that `coat` adds to; empty is none.
        tenant: Whose run it is on a server: replies and prefix caches are shared within one tenant alone.
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


class Run:
    """One question being answered: frozen configuration, ledger, seeded generator, event sinks and store.

    Args:
        run_id: Name of the run in the store.
        config: What was decided before it began.
        store: Where its calls and events are kept.
        sinks: Who else hears its events, in the context of who makes the run (see `Audience`).
        after_events: The stored events of an interrupted run that goes on; empty for a new one.
        begun: Whether it has begun before, also where none of its events had been stored when its process was killed.
        wants_text: Whether somebody listens to text deltas.
        recording: Whether the run is written to the store; a replay is not.
        fresh: Whether the store has no replies of it yet.
        clock: Monotonic seconds; replaced in tests.

    Attributes:
        rng: Generator seeded by the run's seed, for the strategy's own choices.
        best: Best answer so far, which stands if the run is stopped.
        unfinished: Samples that were being generated when the run was cancelled.
        degraded: What could not be done as the method says.
        wants_text: Whether somebody listens to text deltas; may change while it goes on.
        resumed: Whether it goes on.
        resumed_after: Number of the last event stored before it went on; 0 for a new run.
        begun_before: How often it was begun or resumed before.
        paced: Whether somebody writes the events to the store every now and then (see `agents/pacing`).
        handed_over: Whether a cancelled run is given up as "queued", for another process to go on with, rather than
            ended.
    """

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        store: RunStore,
        *,
        sinks: Sequence[Sink] = (),
        after_events: Sequence[EventFields] = (),
        begun: bool = False,
        wants_text: bool = False,
        recording: bool = True,
        fresh: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = run_id
        self.config = config
        self.store = store
        self.ledger = Ledger(config.budget, clock)
        self.rng = random.Random(config.seed)  # noqa: S311 (reproducible choices, not secrets)
        self.best: Solution | None = None
        self.unfinished: list[Completion] = []
        self.degraded: list[str] = []
        self.wants_text = wants_text
        self.paced = False
        self.handed_over = False
        self.recording = recording
        self._fresh = fresh
        self._looked_for: set[str] = set()
        self._tell = Audience(sinks)
        self.resumed_after = after_events[-1].number if after_events else 0
        self.begun_before = sum(isinstance(event, RunStarted) for event in after_events)
        self._next_event = self.resumed_after + 1
        self.resumed = begun or bool(after_events)
        if self.resumed and not (after_events and isinstance(after_events[-1], RunFinished | RunFailed)):
            # killed: readers may have seen events that were not stored yet, and no number is used twice
            self._next_event += UNSAVED_EVENTS
        self._stage: int | None = None
        self._unsaved: list[EventFields] = []

    @property
    def question(self) -> Question:
        """What is asked."""
        return self.config.question

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    def derive_seed(self, *names: str | int) -> int:
        """A seed for one purpose, a function of the run's seed and the names alone.

        Returns:
            An integer in [0, 2^31), which every backend takes.
        """
        text = "\x1f".join(str(n) for n in (self.config.seed, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF

    def emit(self, event: EventFields, parent: int | None = None) -> int:
        """Number an event and hand it to every sink.

        Args:
            event: What happened.
            parent: Number of the event it belongs under; None is the stage under way.

        Returns:
            The event's number.
        """
        number = self._next_event
        self._next_event += 1
        under = self._stage if parent is None else parent
        stamped = event.stamped(number=number, parent=under, run_id=self.id, at_s=self.ledger.elapsed_s)
        if self.recording and not isinstance(event, TextDelta):
            self._unsaved.append(stamped)
        self._tell(stamped)
        return number

    @contextmanager
    def under(self, number: int) -> Iterator[None]:
        """Put the events emitted inside under the given one, unless they name another parent."""
        outer, self._stage = self._stage, number
        try:
            yield
        finally:
            self._stage = outer

    async def stored(self, keys: Sequence[str]) -> dict[str, StoredCall]:
        """The replies that the store has and that may answer this run, by their keys (see `RunConfig.reuse`)."""
        reuse = self.config.reuse
        if reuse == "none":
            return {}
        if reuse == "run" and self._fresh:
            # whoever stores a reply has looked for it before, so of what is looked for first the store has nothing
            known = self._looked_for.intersection(keys)
            self._looked_for.update(keys)
            if not known:
                return {}
        found = await self.store.find_calls(self.id, keys, any_run=reuse == "store")
        if reuse == "store" and self.recording:
            # this run's own copy, so that it can be replayed when the other run is gone
            await self.store.add_calls(self.id, list(found.values()), paid=False)
        return found

    async def save_events(self) -> None:
        """Write the events emitted so far to the store, unless that is done at a pace of its own."""
        if not self.paced:
            await self.write_events()

    async def write_events(self) -> None:
        """Write the events emitted so far to the store."""
        while self._unsaved:
            batch = self.take_events()
            try:
                await self.store.add_events(self.id, batch)
            except BaseException:  # also cancelled: written twice, they are there once
                self._unsaved[:0] = batch
                raise

    def take_events(self) -> list[EventFields]:
        """The events emitted so far that nobody has written to the store; whoever takes them does."""
        taken, self._unsaved = self._unsaved, []
        return taken

    def offer(self, solution: Solution) -> None:
        """Set the best answer so far; it is what the user gets if the run is stopped now."""
        self.best = solution

    def degrade(self, what: str) -> None:
        """Tell, in trace and answer, what could not be done as the method says and what was done instead."""
        if what not in self.degraded:
            self.degraded.append(what)
            self.emit(Degraded(what=what))

    def note_limit(self, error: LimitExceeded) -> None:
        """Put a spent budget into the trace."""
        self.emit(BudgetExhausted(kind=error.kind, used=error.used, limit=error.limit))


def new_run_id() -> str:
    """A name for a run that sorts by time and can be typed: `20261124-163512-9f3a1c`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def new_seed() -> int:
    """A seed for a run that was given none, in [0, 2^31)."""
    return secrets.randbelow(2**31)
