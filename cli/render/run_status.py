"""The progress line of a run, and what a command needs to know of the run's events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...agents.planner import GIVEN
from ...core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    StrategyNote,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from ...core.types import Answer, Question
from .console import printable
from .status import ProgressView
from .tool_calls import call_text

if TYPE_CHECKING:
    from rich.console import RenderableType

SEPARATOR = " · "
AMOUNTS = {"tokens": "tokens", "thinking_tokens": "of them thinking", "calls": "calls", "usd": "USD"}
"""Shown amounts, with their units."""


@dataclass
class _TrajectoryRow:
    turns: int = 0
    tokens: int = 0
    state: str = "waiting"
    call: str = ""


class RunStatus(ProgressView):
    """The progress line of a run; an event sink.

    Args:
        limits: Limits of the budget by kind, as far as they are known before the run starts.
        note: The work until the first event.
        clock: Monotonic seconds; replaced in tests.

    Attributes:
        run_id: The run; None before it starts.
        question: Its question; None before it starts.
        limits: Limits of the budget by kind.
        exhausted: The limit that stopped the run; None if none did.
        answer: The complete or partial answer; None before the end.
        has_stored: Whether anything that was paid is stored.
        hint: What keys do, at the end of the line.
        on_start: Called with the run's ID when it starts.
    """

    def __init__(
        self,
        limits: Mapping[str, float] | None = None,
        note: str = "loading the model",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock, note)
        self.run_id: str | None = None
        self.question: Question | None = None
        self.limits: dict[str, float] = dict(limits or {})
        self.exhausted: str | None = None
        self.answer: Answer | None = None
        self.has_stored = False
        self.hint = ""
        self.on_start: Callable[[str], object] = lambda _: None
        self._title = ""
        self._samples = self._finished = 0
        self._spent: dict[str, float] = {}
        self._trajectories: list[_TrajectoryRow] = []
        self._trajectory_of: dict[int, int] = {}
        """Number of the trajectory of a turn's events."""
        self._in_flight: dict[int, dict[tuple[int, int], int]] = {}
        """Tokens of calls that are not charged yet, by call and sample."""

    @property
    def set_limits(self) -> dict[str, float]:
        """The limits that are set, by kind."""
        return {kind: limit for kind, limit in self.limits.items() if limit}

    def __call__(self, event: Event) -> None:
        """Update from an event."""
        if self._trajectories:
            self._follow(event)
        match event:
            case RunStarted():
                self._first_note = self._note = ""
                self.run_id, self.question = event.run_id, event.question
                strategy = "verify" if event.strategy == GIVEN else event.strategy
                self._title = " ".join(filter(None, (strategy, event.models.get("main"))))
                self._trajectories = [
                    _TrajectoryRow() for _ in range(event.trajectories if event.trajectories > 1 else 0)
                ]
                self.on_start(event.run_id)
            case StrategyNote(name="auto.chosen" | "question.routed"):
                self._title += f" → {event.data.get('selected_strategy', '')}"
            case ToolStarted():
                self._note = f"calling {event.tool}"
            case ToolProgress():
                self._note = f"{event.tool}: {event.text}"
            case ToolFinished():
                self._note = self._first_note
            case StageStarted():
                self._first_note = self._note = event.stage
            case CallStarted(operation="generate"):
                self._samples += event.samples
            case TextDelta():
                tokens = self._in_flight.setdefault(event.parent or 0, {})
                slot = (event.request, event.sample)
                tokens[slot] = tokens.get(slot, 0) + event.tokens
            case SampleFinished():
                self._finished += 1
                tokens = self._in_flight.setdefault(event.parent or 0, {})
                tokens[event.request, event.sample] = event.completion.usage.completion_tokens
            case BudgetCharged():
                self._charge(event)
            case BudgetExhausted():
                self.exhausted = event.kind
            case RunFinished():
                self.answer = event.answer
            case _:
                pass
        self._plain()

    def _follow(self, event: Event) -> None:
        """Update the row of the trajectory that an event is of."""
        number = getattr(event, "trajectory", 0) or self._trajectory_of.get(event.parent or -1, 0)
        if not number:
            return
        if event.number:
            self._trajectory_of[event.number] = number
        row = self._trajectories[number - 1]
        match event:
            case StageStarted():
                row.turns, row.state = row.turns + 1, "thinking"
            case StageFinished():
                row.state = "ended"
            case ToolStarted():
                row.call, row.state = call_text(event.tool, event.arguments, 60), "calling"
            case ToolFinished():
                row.state = "failed call" if event.is_error else "called"
            case CallFinished():
                row.tokens += event.tokens
            case _:
                pass

    def render(self) -> RenderableType:
        """The line; of several trajectories a row for each below it."""
        line = super().render()
        if not self._trajectories:
            return line
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (
            ("", "right"),
            ("turns", "right"),
            ("tokens", "right"),
            ("state", "left"),
            ("last call", "left"),
        ):
            table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
        for number, row in enumerate(self._trajectories, 1):
            cells = (str(number), str(row.turns), f"{row.tokens:,}", row.state, row.call)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        return Group(line, table)

    def line(self) -> str:
        """For example `self-consistency local/smollm2-135m · solve · 3/8 samples · 412/2,000 tokens · 1 call`."""
        spent = self._spent | {"tokens": self._tokens}
        samples = f"{self._finished:,}/{self._samples:,} samples" if self._samples > 1 else ""
        amounts = [self._amount(kind, spent.get(kind, 0), unit) for kind, unit in AMOUNTS.items()]
        note = "" if self._note == self._title else self._note
        return SEPARATOR.join(filter(None, (printable(self._title), note, samples, *amounts)))

    def _terminal_line(self) -> str:
        limit = self.limits.get("seconds")
        seconds = f"{self.elapsed:.1f}{f'/{limit:g}' if limit else ''} s"
        return SEPARATOR.join(filter(None, (self.line(), seconds, self.hint)))

    @property
    def _tokens(self) -> float:
        return self._spent.get("tokens", 0) + sum(sum(call.values()) for call in self._in_flight.values())

    def _amount(self, kind: str, spent: float, unit: str) -> str:
        """An amount with its limit; empty if nothing was spent and it has no limit."""
        shown, limit = f"{spent:.4f}" if kind == "usd" else f"{spent:,.0f}", self.limits.get(kind)
        if limit:
            return f"{shown}/{limit:,g} {unit}"
        return f"{shown} {unit.removesuffix('s') if spent == 1 else unit}" if spent else ""

    def _charge(self, event: BudgetCharged) -> None:
        self._spent = {
            "tokens": event.total_tokens,
            "thinking_tokens": event.total_thinking_tokens,
            "calls": event.total_calls,
            "usd": event.total_usd or 0.0,
        }
        self.limits.update(event.limits)
        self.has_stored |= event.total_tokens + event.total_reward_calls > 0
        self._in_flight.pop(event.parent or 0, None)
